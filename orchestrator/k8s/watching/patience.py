"""How long one who watches a launch waits for a cluster that does not answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from orchestrator.k8s.client.api import ClusterError

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
    sleep: Callable[[float], object] = time.sleep


def is_passing(error: ClusterError) -> bool:
    """Whether the same may succeed later: no answer at all, or that of an overloaded server."""
    return error.code == 0 or error.code == 429 or error.code >= 500


def patiently(call: Callable[[], Answer], tell: Callable[[str], None], patience: Patience) -> Answer:
    """The answer to a question, asked again while the cluster does not answer. Raises ClusterError in the end."""
    waited, pause = 0.0, patience.first_seconds
    while True:
        try:
            return call()
        except ClusterError as error:
            if not is_passing(error) or waited > patience.total_seconds:
                raise
            if not waited:
                tell(f"{error}; trying again")
        patience.sleep(pause)
        waited, pause = waited + pause, min(2 * pause, patience.longest_seconds)
