"""What may go wrong between a client and the server, on purpose."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal


@dataclass
class Fault:
    """What happens to the next `times` requests of `method` whose path matches `path` (a regular expression).

    `drop` cuts the connection before anything is done, `drop-after` when it is done, `error` answers with `code`
    (and Retry-After), `slow` waits `seconds` first, `refuse` answers with `code` and `message` as a webhook does.
    """

    kind: Literal["drop", "drop-after", "error", "slow", "refuse"]
    method: str = ".*"
    path: str = ""
    times: int = 1
    code: int = 500
    message: str = ""
    retry_after: int | None = None
    seconds: float = 0.0
    dry_run: bool | None = None
    """Only requests that are (or are not) dry runs."""

    def takes(self, method: str, path: str, dry_run: bool) -> bool:
        """Whether it happens to this request; it is then used up by one."""
        if self.dry_run is not None and self.dry_run != dry_run:
            return False
        if self.times <= 0 or not re.fullmatch(self.method, method) or not re.search(self.path, path):
            return False
        self.times -= 1
        return True
