"""How long one who watches a launch waits for a cluster that does not answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from orchestrator.k8s.client.api import ClusterError, ForbiddenError, NotFoundError

REFUSED_SECONDS = 60.0
"""How long a server may refuse what it has allowed before: one that starts does not know at once who may do what."""
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Patience:
    """How long broken connections are mended: waits double from `first_seconds`, `total_seconds` without any answer.

    `poll_seconds` lie between looks at whether there is a next attempt.
    """

    first_seconds: float = 0.5
    longest_seconds: float = 10.0
    total_seconds: float = 600.0
    poll_seconds: float = 2.0
    refused_seconds: float = REFUSED_SECONDS
    sleep: Callable[[float], object] = time.sleep

    def seconds_for(self, error: ClusterError, *, again: bool) -> float:
        """How long to go on after this error; `again` says that the same has succeeded before."""
        if is_passing(error):
            return self.total_seconds
        return self.refused_seconds if again and isinstance(error, (ForbiddenError, NotFoundError)) else 0.0


def is_passing(error: ClusterError) -> bool:
    """Whether the same may succeed later: no answer at all, or that of an overloaded server."""
    return error.code == 0 or error.code == 429 or error.code >= 500


def patiently(
    call: Callable[[], Answer], tell: Callable[[str], None], patience: Patience, *, again: bool = False
) -> Answer:
    """The answer to a question, asked again while the cluster does not answer. Raises ClusterError in the end.

    With `again` it was answered before, and may be refused for a while.
    """
    waited, pause = 0.0, patience.first_seconds
    while True:
        try:
            return call()
        except ClusterError as error:
            if waited >= patience.seconds_for(error, again=again):
                raise
            if not waited:
                tell(f"{error}; trying again")
        patience.sleep(pause)
        waited, pause = waited + pause, min(2 * pause, patience.longest_seconds)
