"""What runs inside a Tune worker: train the packs of one assignment and commit what comes out to the ledger."""

from __future__ import annotations

import platform
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from orchestrator.estimate import guess_seconds
from orchestrator.ledger import Ledger
from search_spaces.packs import Pack
from search_spaces.runs import Run

FLUSH_SECONDS = 30.0
"""Rows of a long run become durable at least this often (at the next evaluation)."""
REPORT_SECONDS = 1.0
ERROR_LINES = 30


@dataclass(frozen=True)
class WorkerSettings:
    """Everything a worker needs beside its packs. Paths must be reachable from the worker."""

    sweep_folder: Path
    data_folder: Path
    attempt: int
    gpus: float
    threads: int


@dataclass
class Tally:
    """What one assignment has achieved so far; `work` is in estimated seconds."""

    done: int = 0
    diverged: int = 0
    failed: int = 0
    work: float = 0.0

    def as_report(self, work_under_way: float = 0.0) -> dict[str, float]:
        """For Tune, which gives `done` a meaning of its own."""
        return {
            "runs_done": self.done,
            "runs_diverged": self.diverged,
            "runs_failed": self.failed,
            "work": self.work + work_under_way,
        }

    @classmethod
    def from_report(cls, report: Mapping[str, float]) -> Tally:
        return cls(int(report["runs_done"]), int(report["runs_diverged"]), int(report["runs_failed"]), report["work"])


@dataclass
class Committer:
    """Buffers the rows of one pack, and writes them before the ends that claim them."""

    ledger: Ledger
    pack: Pack
    attempt: int
    device: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    files: int = 0
    flushed: float = field(default_factory=time.monotonic)

    def commit(self, rows: Sequence[dict[str, Any]], ends: Sequence[dict[str, Any]]) -> None:
        """Take in rows; make them durable if a run ended here, or if the last time was long ago."""
        self.rows += rows
        if not ends and time.monotonic() - self.flushed < FLUSH_SECONDS:
            return
        name = f"{self.pack.pack_id}-{self.files:05d}"
        if self.rows:
            self.ledger.write_rows(name, self.attempt, self.rows)
        if ends:
            self.ledger.write_ends(name, self.attempt, [end | self._provenance() for end in ends])
        self.rows, self.files, self.flushed = [], self.files + 1, time.monotonic()

    def _provenance(self) -> dict[str, Any]:
        versions = f"bo-sweep {version('bo-sweep')}, Python {platform.python_version()}, torch {version('torch')}"
        return {"pack_size": len(self.pack.runs), "device": self.device, "versions": versions}


def train_packs(packs: Sequence[Pack], settings: WorkerSettings, report: Callable[[dict[str, float]], None]) -> None:
    """Train packs one after another. A run that fails is recorded as failed; the others go on.

    Args:
        packs: in order.
        settings: see WorkerSettings.
        report: told the tally at most every second, and at the end.

    Raises:
        StorageError: results cannot be written; nothing is marked as done that is not durable.
    """
    import torch

    device = torch.device("cuda" if settings.gpus else "cpu")
    torch.set_num_threads(settings.threads)
    name = torch.cuda.get_device_name(device) if settings.gpus else platform.machine()
    ledger = Ledger(settings.sweep_folder)
    tally = Tally()
    last_report = time.monotonic()

    def on_progress(work: float) -> None:
        nonlocal last_report
        if time.monotonic() - last_report >= REPORT_SECONDS:
            last_report = time.monotonic()
            report(tally.as_report(work))

    for pack in packs:
        ended = _train_pack(pack, ledger, settings, name, device, tally, on_progress)
        unfinished = [run for run in pack.runs if run.run_id not in ended]
        if len(pack.runs) > 1:  # a failing run must not take its pack with it: each of the others gets its own try
            for run in unfinished:
                _train_pack(Pack((run,)), ledger, settings, name, device, tally, on_progress)
        tally.work += sum(guess_seconds(run, settings.gpus) for run in pack.runs)
    report(tally.as_report())


def _train_pack(
    pack: Pack,
    ledger: Ledger,
    settings: WorkerSettings,
    device_name: str,
    device: Any,
    tally: Tally,
    on_progress: Callable[[float], None],
) -> set[str]:
    """Train one pack and commit it; returns the ids of the runs that ended. A lone run that raises ends as failed."""
    from orchestrator.storage import StorageError
    from workers.train import train_pack

    committer = Committer(ledger, pack, settings.attempt, device_name)
    work = sum(guess_seconds(run, settings.gpus) for run in pack.runs)
    ended: set[str] = set()
    try:
        for progress in train_pack(pack.runs, settings.data_folder, device):
            ends = [vars(end) for end in progress.ended]
            committer.commit(progress.rows, ends)
            for end in progress.ended:
                ended.add(end.run_id)
                tally.diverged += end.status == "diverged"
                tally.done += end.status == "done"
            on_progress(work * progress.share_done)
    except StorageError:
        raise
    except Exception as error:  # whatever a run raises is that run's result, not the end of the sweep
        if len(pack.runs) == 1:
            committer.commit([], [failed_end(pack.runs[0], error)])
            ended.add(pack.runs[0].run_id)
            tally.failed += 1
    return ended


def failed_end(run: Run, error: BaseException) -> dict[str, Any]:
    """The end of a run that raised `error`: its last lines, and a signature that groups failures of one cause."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].name}" if frames else ""
    lines = "".join(traceback.format_exception(error)).splitlines()[-ERROR_LINES:]
    return {
        "run_id": run.run_id,
        "status": "failed",
        "seconds": 0.0,
        "error": "\n".join(lines),
        "signature": f"{type(error).__name__}{place}",
    }
