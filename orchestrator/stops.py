"""Ctrl-C and SIGTERM: the first asks a launch to save what runs and leave, the second stops it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """Ctrl-C or SIGTERM. Python ends a process by SIGINT, whatever its exit code, once a plain KeyboardInterrupt has
    passed through an `exec` (as in the making of a dataclass, so in many imports), even if it is caught later."""


class Stops:
    """The stop signals of one launch."""

    def __init__(self) -> None:
        self._on_first: Callable[[], None] | None = None
        self._asked = False
        self._number: int = signal.SIGINT

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Handle the signals while the block runs: outside of `gracefully` the first one raises Interrupted."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number: int, frame: FrameType | None) -> None:
            if self._on_first and not self._asked:
                self._asked = True
                self._on_first()
            else:
                raise Interrupted

        with handled_by(handle):
            yield

    @contextmanager
    def gracefully(self, on_first: Callable[[], None]) -> Iterator[None]:
        """While the block runs, the first signal calls `on_first`, and the second raises Interrupted."""
        self._on_first = on_first
        try:
            yield
        finally:
            self._on_first = None

    def interrupt(self) -> None:
        """From another thread: raise Interrupted in the main thread, whatever was asked before."""
        self._on_first = None
        signal.pthread_kill(threading.main_thread().ident or 0, self._number)


@contextmanager
def handled_by(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Have Ctrl-C and SIGTERM handled by `handle` while the block runs."""
    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM raise Interrupted while the block runs."""
    with Stops().caught():
        yield
