"""Waiting in tests: until it has happened, and on a slow or busy machine for long."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_SECONDS = 300.0
"""What has not happened after so long never will; what works takes a small part of it."""


def wait_for(condition: Callable[[], object], seconds: float = PATIENCE_SECONDS, every: float = 0.02) -> None:
    """Return once a condition holds; it may raise what tells that it never will."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(every)
