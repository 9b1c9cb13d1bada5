"""The lease: at most one launch writes to a sweep, and a dead one is replaced within seconds.

Storage need not offer locks or conditional writes, only that a listing shows what was written before it (local file
systems, NFS, S3 and GCS do). Each launch writes a claim of its own, then looks: where another live claim stands it
withdraws, so of two that come together at most one stays. A claim is live while it is rewritten. Ages are differences
between times of the storage's own clock, so the clocks of hosts do not matter.
"""

from __future__ import annotations

import getpass
import json
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import psutil

from orchestrator import paths
from orchestrator.storage import MissingFileError, Storage, StorageError

BEAT_SECONDS = 5.0
DEAD_SECONDS = 30.0
"""A claim that was not rewritten for this long belongs to a launch that is gone."""
LOOK_SECONDS = 1.0
"""Between two looks at a launch that may have died."""
TRIES = 4
"""Times that launches which come together withdraw and try again."""


class LeaseHeldError(Exception):
    """Another launch holds the sweep; the message says who, since when, and what to do."""


@dataclass(frozen=True)
class Claim:
    """What one launch says of itself. `progress` is whatever the launch wants viewers to see."""

    claim_id: str
    holder: str
    host: str
    process: int
    process_started: float
    since: str
    holding: bool = False
    progress: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return f"{paths.LEASE}/{self.claim_id}.json"

    def is_dead_here(self) -> bool:
        """Whether it is known to be of a process of this host that is gone; no need to wait then."""
        if self.host != _this_host():
            return False
        try:
            return abs(psutil.Process(self.process).create_time() - self.process_started) > 1
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False


class Lease:
    """The right to write to one sweep; hold it as a context manager.

    Args:
        storage: the sweep's folder.
        progress: asked at every beat for what `status` shows of the launch.
        on_loss: called once, from the beating thread, when another launch has taken over.
        patient: wait until it is known whether a launch on another host, which may have died (perhaps while it was
            waiting itself), still lives.
    """

    def __init__(
        self,
        storage: Storage,
        progress: Callable[[], Mapping[str, Any]] = dict,
        on_loss: Callable[[], None] = lambda: None,
        *,
        patient: bool = False,
    ) -> None:
        self._storage, self._progress, self._on_loss, self._patient = storage, progress, on_loss, patient
        self._claim = _own_claim()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="lease", daemon=True)
        self.lost = False

    def __enter__(self) -> Self:
        """Take the lease.

        Raises:
            LeaseHeldError: another live launch has it.
            StorageError: storage cannot be written.
        """
        tries, beats = 0, dict[str, float]()
        while True:
            self._write(self._claim)
            rivals = self._rivals()
            if not rivals:
                self._claim = replace(self._claim, holding=True)
                self._write(self._claim)
                self._thread.start()
                return self
            self._storage.delete(self._claim.path)
            rival, beat = next((each for each in rivals if each[0].holding), rivals[0])
            if self._patient and beats.setdefault(rival.claim_id, beat) == beat:
                time.sleep(LOOK_SECONDS)
                continue
            tries += 1
            if rival.holding or tries == TRIES:
                raise LeaseHeldError(_held_message(self._storage, rival))
            time.sleep(random.uniform(0.2, 1.0) * tries)

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()
        with suppress(StorageError):  # it is dead in DEAD_SECONDS anyway
            self._storage.delete(self._claim.path)

    def _beat_on(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            try:
                self._write(replace(self._claim, progress=self._progress()))
                later = [rival for rival, _ in self._rivals() if rival.holding and rival.since >= self._claim.since]
            except StorageError:
                continue  # storage that is gone for a while; workers have their own patience
            if later:
                self.lost = True
                self._on_loss()
                return

    def _write(self, claim: Claim) -> None:
        self._storage.write(claim.path, json.dumps(asdict(claim)).encode())

    def _rivals(self) -> list[tuple[Claim, float]]:
        """Live claims of others, with the times when they were written; dead ones are cleared away.

        Call it right after writing one's own.
        """
        files = self._storage.list(paths.LEASE)
        now = max((file.modified for file in files if file.path == self._claim.path), default=None)
        if now is None:  # someone took us for dead and cleared our claim away
            now = max((file.modified for file in files), default=0.0)
        live = []
        for file in files:
            if file.path == self._claim.path:
                continue
            claim = _read(self._storage, file.path)
            if now - file.modified >= DEAD_SECONDS or (claim is not None and claim.is_dead_here()):
                self._storage.delete(file.path)
            elif claim is not None:
                live.append((claim, file.modified))
        return live


def current_claim(storage: Storage) -> Claim | None:
    """The claim of the launch that runs now, if there is one; for showing, not for deciding."""
    live = []
    for file in storage.list(paths.LEASE):
        claim = _read(storage, file.path)
        if claim and claim.holding and not claim.is_dead_here() and time.time() - file.modified < 2 * DEAD_SECONDS:
            live.append(claim)
    return max(live, key=lambda claim: claim.since, default=None)


def _own_claim() -> Claim:
    process = os.getpid()
    return Claim(
        claim_id=uuid.uuid4().hex,
        holder=f"{_user()}@{socket.gethostname()}, process {process}",
        host=_this_host(),
        process=process,
        process_started=psutil.Process().create_time(),
        since=datetime.now(UTC).isoformat(timespec="microseconds"),
    )


def _this_host() -> str:
    """Where process ids mean the same: this boot of this host, in this container."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


def _read(storage: Storage, path: str) -> Claim | None:
    """None where it has just gone, or is no claim (a foreign file bars nobody)."""
    try:
        return Claim(**json.loads(storage.read(path)))
    except (MissingFileError, ValueError, TypeError):
        return None


def _held_message(storage: Storage, rival: Claim) -> str:
    since = rival.since[:19].replace("T", " ")
    return (
        f"sweep {storage.name!r} is being launched by {rival.holder}, since {since} UTC. Watch it with: "
        f"bo-sweep status {storage.name} --watch. Or stop that launch first; if it is dead, try again in "
        f"{DEAD_SECONDS:.0f} seconds"
    )
