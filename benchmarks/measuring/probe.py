"""What the workers of a launch did when: a wrapper around `train_packs` that writes down times, a line a trial.

Times are those of the machine's monotonic clock, so they compare between its processes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from orchestrator import worker
from orchestrator.worker import WorkerSettings
from search_spaces.packs import Pack


@dataclass(frozen=True)
class TrialTimes:
    """One trial: which process, when it was entered, ready (everything imported) and left, and the wall and CPU
    seconds between the last two that were spent training."""

    process: int
    entered: float
    ready: float
    left: float
    training: float
    training_cpu: float


def train_packs(packs: Sequence[Pack], settings: WorkerSettings, report: Callable[[dict[str, float]], None]) -> None:
    """`orchestrator.worker.train_packs`, and a line beside the sweep's folder."""
    entered = time.monotonic()
    import workers.train

    ready = time.monotonic()
    original = workers.train.train_pack
    training = training_cpu = 0.0

    def timed(*arguments: Any) -> Iterator[Any]:
        nonlocal training, training_cpu
        stream = original(*arguments)
        while True:
            started, cpu_before = time.monotonic(), time.process_time()
            try:
                progress = next(stream)
            except StopIteration:
                return
            finally:
                training += time.monotonic() - started
                training_cpu += time.process_time() - cpu_before
            yield progress

    with mock.patch.object(workers.train, "train_pack", timed):
        worker.train_packs(packs, settings, report)
    folder = times_folder(settings.sweep_folder)
    folder.mkdir(exist_ok=True)
    times = TrialTimes(os.getpid(), entered, ready, time.monotonic(), training, training_cpu)
    with open(folder / f"{os.getpid()}.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(times)) + "\n")


def times_folder(sweep_folder: Path) -> Path:
    """Where the lines go."""
    return sweep_folder.with_name(f"{sweep_folder.name}-times")


def read_times(sweep_folder: Path) -> list[TrialTimes]:
    """All trials of a sweep, in the order in which they were entered."""
    lines = [line for path in times_folder(sweep_folder).glob("*.jsonl") for line in path.read_text().splitlines()]
    return sorted((TrialTimes(**json.loads(line)) for line in lines), key=lambda trial: trial.entered)
