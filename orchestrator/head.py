"""The head of a Ray cluster (its GCS): without it Ray itself ends this process within a minute, with exit code 1."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Self

import psutil

from orchestrator.console import LOG

CONNECT_SECONDS = 5.0
OWN_HEAD_SECONDS, SHARED_HEAD_SECONDS = 3.0, 40.0
"""How long the head of a cluster here, or of one with an address, may be gone; the latter may be started again."""
LOOK_SECONDS = 1.0
LEAVE_SECONDS = 15.0
"""What is stuck in a call to a cluster that is gone leaves by force after so long; the ledger needs no goodbye."""
INFRASTRUCTURE = 4
"""Exit code then."""


class ClusterLostError(ConnectionError):
    """The cluster, or the coordinator on it, is gone; all that was durable stays."""


class HeadWatch:
    """Looks every second whether the head lives, and ends what is done in the block when it does not.

    The block then raises ClusterLostError, by `interrupt`, which raises KeyboardInterrupt in the main thread.

    Args:
        lives: whether the head is there.
        patience_seconds: how long it may be gone.
        interrupt: see above.
    """

    def __init__(self, lives: Callable[[], bool], patience_seconds: float, interrupt: Callable[[], None]) -> None:
        self._lives, self._patience, self._interrupt = lives, patience_seconds, interrupt
        self._left = threading.Event()
        self._lost: ClusterLostError | None = None
        self._thread = threading.Thread(target=self._watch, name="head watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._lost is None:
            self.close()
        elif error is not None:
            raise self._lost from None

    def close(self) -> None:
        """Look no more; after a loss, what is left to do with the cluster can no longer be stuck."""
        self._left.set()

    def _watch(self) -> None:
        lived = time.monotonic()
        while not self._left.wait(LOOK_SECONDS):
            if self._lives():
                lived = time.monotonic()
            elif (gone := time.monotonic() - lived) > self._patience:
                self._lost = ClusterLostError(
                    f"the head of the Ray cluster has been gone for {gone:.0f} s. What was committed stays: launch "
                    "again to go on"
                )
                self._interrupt()
                if self._left.wait(LEAVE_SECONDS):
                    return
                LOG.print(f"Error: {self._lost}", markup=False)
                os._exit(INFRASTRUCTURE)


def own_head_lives() -> Callable[[], bool]:
    """A look at the head that this process starts; until it is there, it counts as alive."""
    seen = False

    def lives() -> bool:
        nonlocal seen
        try:
            children = psutil.Process().children()
            found = any(_is_head(child) for child in children)
        except psutil.Error:  # a child that went while we looked
            return True
        seen = seen or found
        return found or not seen

    return lives


def _is_head(child: psutil.Process) -> bool:
    try:
        return "gcs_server" in child.name() and child.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def answers(address: str) -> bool:
    """Whether something listens at `host:port`."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    return True
