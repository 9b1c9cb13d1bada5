"""Ctrl-C and SIGTERM while publishing: the first lets the W&B run at hand be finished, the second does not."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.stops import handled_by

LEAVE_SECONDS = 15.0
"""How long W&B has to take the run at hand, once asked to leave."""


class Stopping:
    """Whether the user wants to leave. Waiting ends at once when asked."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._over_at = float("inf")

    @property
    def asked(self) -> bool:
        """Whether to begin nothing more."""
        return self._event.is_set()

    def is_over(self) -> bool:
        """Whether to leave now, whatever is under way: what was not finished is written again another time."""
        return time.monotonic() >= self._over_at

    def ask(self) -> None:
        """Ask to leave; asking again is to leave now."""
        self._over_at = time.monotonic() + (0.0 if self.asked else LEAVE_SECONDS)
        self._event.set()

    def wait(self, seconds: float) -> None:
        """Wait so long, or until asked."""
        if seconds > 0:
            deadline = time.monotonic() + seconds
            while not self.asked and (left := deadline - time.monotonic()) > 0:
                time.sleep(min(left, 0.2))  # a signal that comes within an Event's wait may be heard only after it

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Let the signals ask while the block runs."""

        with handled_by(lambda number, frame: self.ask()):
            yield
