"""Which requests fail, and how."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass
from typing import Literal

Kind = Literal["status", "hang", "cut", "cut after"]


@dataclass(frozen=True)
class Fault:
    """What happens to matching requests, instead of an answer or after one was made."""

    kind: Kind
    """status: answered with `status` and not handled. hang: handled, but answered only after `seconds`. cut: the
    connection ends unhandled. cut after: the request is handled, and the connection ends without an answer."""
    on: str = ""
    """Part of what a request is called: "file_stream", with history lines in it "file_stream history", "upload", or a
    GraphQL operation as "graphql UpsertBucket"."""
    times: int | None = 1
    """How many matching requests it takes; None: all."""
    share: float = 1.0
    """Of the matching requests, drawn from the seed."""
    status: int = 429
    retry_after: float | None = None
    """Seconds for the header Retry-After of a `status`; None: without that header."""
    seconds: float = 1.0


class Faults:
    """The faults that are left; safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.set()

    def set(self, *faults: Fault, seed: int = 0) -> None:
        """These from now on, and no others."""
        with self._lock:
            self._drawn = [random.Random(f"{seed} {i}") for i in range(len(faults))]  # whatever else is asked between
            self._left: list[tuple[Fault, int | None]] = [(fault, fault.times) for fault in faults]
            self.given: list[tuple[str, Fault]] = []

    def draw(self, request: str) -> Fault | None:
        """What happens to a request of that name: the first fault that takes it."""
        with self._lock:
            for i, (fault, left) in enumerate(self._left):
                if fault.on not in request or left == 0 or self._drawn[i].random() >= fault.share:
                    continue
                self._left[i] = (fault, None if left is None else left - 1)
                self.given.append((request, fault))
                return fault
            return None
