"""The digits sweep that is put through chaos, and one launch of it in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import psutil

from orchestrator.lease import current_claim
from orchestrator.ledger import Ledger
from orchestrator.storage import Storage, StorageError
from workers.schema import TIMING_COLUMNS

SPACE = "digits-grid"
WORKER = "ImplicitFunc"
"""In the name of a worker's process."""
MARK = "BO_SWEEP_CHAOS"
"""In the environment of a launch and of all that it starts, so that its processes are found again."""
VARYING = (*TIMING_COLUMNS, "attempt", "pack_size")
"""Columns that may differ between two executions of the same sweep."""


@dataclass(frozen=True)
class Size:
    """Settings of the sweep, and the number of its runs."""

    settings: tuple[str, ...]
    runs: int


USUAL = Size(
    (
        *("--set", "widths=[2, 4]", "--set", "noise.rates=[0, 0.4]", "--seeds", "3"),
        *("--set", "recipe.epochs=80", "--set", "evaluation.points=30", "--set", "resources.checkpoint_seconds=0.5"),
    ),
    runs=12,
)
"""6 packs of some seconds each."""
SMALL = Size(
    (
        *("--set", "widths=[2, 4]", "--set", "noise.rates=[0, 0.4]", "--seeds", "1"),
        *("--set", "recipe.epochs=40", "--set", "evaluation.points=12", "--set", "resources.checkpoint_seconds=0.5"),
    ),
    runs=4,
)
"""2 packs of a few seconds each."""


@dataclass(frozen=True)
class Place:
    """Where a sweep lies.

    Attributes:
        url: for `--storage`.
        storage: the same, as the checks read it: around the faults.
        environment: what a launch needs to reach it.
        arguments: more for every launch.
        size: of the sweep.
    """

    url: str
    storage: Storage
    environment: Mapping[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    size: Size = USUAL

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.storage.child(SPACE))


def table(ledger: Ledger) -> pl.DataFrame:
    """The whole table without what may differ from one execution to the next."""
    return ledger.load().drop(*VARYING).sort("run_id", "evaluation")


class Launch:
    """One `bo-sweep launch`, in a session of its own. What it says goes to files in `folder`."""

    def __init__(self, place: Place, data: Path, folder: Path, *arguments: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.place, self.folder = place, folder
        self.started = time.monotonic()
        command = [sys.executable, "-m", "orchestrator.cli", "launch", SPACE, "--storage", place.url]
        command += ["--data", str(data), *place.size.settings, *place.arguments, *arguments]
        with open(folder / "stdout.txt", "w") as out, open(folder / "stderr.txt", "w") as err:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                env={**os.environ, **place.environment, MARK: str(folder)},
            )

    @property
    def errors(self) -> str:
        return (self.folder / "stderr.txt").read_text(errors="replace")

    @property
    def code(self) -> int | None:
        """The exit code; None while it runs."""
        return self.process.poll()

    def wait(self, seconds: float) -> int | None:
        """Its exit code, or None where it did not end within that time."""
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(seconds)
        return None

    def wait_until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Whether `condition` came true within that time and before the launch ended."""
        deadline = time.monotonic() + seconds
        while self.code is None and time.monotonic() < deadline:
            if condition():
                return True
            time.sleep(0.05)
        return False

    def is_training(self) -> bool:
        """Whether workers are at it: their progress stands in the lease."""
        with suppress(StorageError):  # which may be what the round is about
            claim = current_claim(self.place.storage.child(SPACE))
            return bool(claim and any(each["share_done"] > 0 for each in claim.progress.get("running", [])))
        return False

    def phase(self) -> str:
        """Where it is right now: 'start', 'training', 'end' (all runs have ended) or 'over'."""
        if self.code is not None:
            return "over"
        if self.is_training():
            return "training"
        with suppress(StorageError):  # progress in the lease is some seconds old
            ended = self.place.ledger.ends().height if self.place.ledger.exists() else 0
            if ended == self.place.size.runs:
                return "end"
        return "training" if self.children(WORKER) else "start"

    def children(self, sign: str) -> list[psutil.Process]:
        """Its living processes with `sign` in their name or command line."""
        return [process for process in self.processes() if sign in _description(process)]

    def processes(self) -> list[psutil.Process]:
        """All living processes that it started, also indirectly, and itself."""
        return marked_processes(self.folder)

    def clear(self, patience: float) -> list[str]:
        """Wait until all its processes are gone; kill what is left then, and tell what that was."""
        deadline = time.monotonic() + patience
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        described = [_description(process) for process in left]
        while left:
            for process in left:
                with suppress(psutil.Error):
                    process.send_signal(signal.SIGKILL)
            time.sleep(0.1)
            left = self.processes()
        self.process.wait()
        return described


def marked_processes(folder: Path) -> list[psutil.Process]:
    """All living processes of launches that speak in `folder` or below it."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            mark = process.environ().get(MARK)
            if mark and Path(mark).is_relative_to(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _description(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return f"{process.name()} {' '.join(process.cmdline())}"
    return ""
