"""How long a request is tried again when the trouble may pass."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

TRANSIENT_CODES = frozenset({429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Retries:
    """Tries of one request: waits double from `first_seconds`, with jitter, until `tries` or `total_seconds` are used.

    `sleep` takes seconds; tests give their own.
    """

    tries: int = 5
    first_seconds: float = 0.5
    longest_seconds: float = 8.0
    total_seconds: float = 20.0
    sleep: Callable[[float], object] = time.sleep

    def wait(self, tried: int, waited: float, at_least: float | None = None) -> float | None:
        """Sleep before the next try and return for how long; None, without sleep, where no more is to be tried.

        `tried` counts tries so far, `waited` seconds so far; `at_least` is what the server asks for (Retry-After).
        """
        if tried >= self.tries:
            return None
        # Half to one and a half of the step: clients that failed together do not come back together.
        seconds = min(self.first_seconds * 2.0 ** (tried - 1), self.longest_seconds) * random.uniform(0.5, 1.5)
        seconds = max(seconds, at_least or 0.0)
        if waited + seconds > self.total_seconds:
            return None
        self.sleep(seconds)
        return seconds
