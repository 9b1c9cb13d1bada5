"""What to do while W&B does not take anything: wait longer and longer, and say so once."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from orchestrator.console import duration

SHORTEST_SECONDS, LONGEST_SECONDS = 1.0, 60.0


class Troubles:
    """One trouble after another, each told in one line when it begins and one when it is over.

    Args:
        say: takes a line for the user.
        patience_seconds: how long a trouble may last, None for ever.
        what: what does not work, and what it is when it works again.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        patience_seconds: float | None = None,
        what: tuple[str, str] = ("W&B takes nothing right now", "W&B takes rows again"),
    ) -> None:
        self._say, self._patience, self._what = say, patience_seconds, what
        self._since: float | None = None
        self._tries = 0

    def begin(self, reason: str) -> float:
        """Take in a failed try; returns how many seconds to wait before the next one.

        Raises:
            ConnectionError: it has lasted too long.
        """
        now = time.monotonic()
        if self._since is None:
            self._since, self._tries = now, 0
            self._say(f"{self._what[0]} ({reason}). Trying again; nothing is lost")
        if self._patience is not None and now - self._since >= self._patience:
            raise ConnectionError(
                f"W&B has taken nothing for {duration(now - self._since)}: {reason}. Nothing is lost: the ledger has "
                "it all, and the same command goes on where this one ended"
            )
        pause = min(SHORTEST_SECONDS * 2.0 ** min(self._tries, 10), LONGEST_SECONDS)
        self._tries += 1
        return float(pause) * random.uniform(0.5, 1.0)

    def end(self) -> None:
        """Something was taken."""
        if self._since is not None:
            self._say(f"{self._what[1]}, after {duration(time.monotonic() - self._since)}")
            self._since = None
