"""What the workers of a launch did when: a trainer that wraps the real one and writes down times, a line a pack.

Times are those of the machine's monotonic clock, so they compare between its processes.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces.runs import Run

if TYPE_CHECKING:  # PyTorch is for the workers to import: a launch starts without it
    import torch

    from workers.checkpoint import Checkpoint
    from workers.placement import Placement
    from workers.train import Progress

TRAINER = "benchmarks.measuring.probe:train_pack"
"""What `LaunchOptions.trainer` is told."""


@dataclass(frozen=True)
class PackTimes:
    """One pack: which process, when its training began (with everything imported) and when the worker was through with
    its last evaluation, and the wall and CPU seconds in between that were spent training."""

    process: int
    ready: float
    left: float
    training: float
    training_cpu: float


def train_pack(
    runs: Sequence[Run],
    folder: Path,
    device: torch.device,
    *,
    resume: Mapping[str, Checkpoint] | None = None,
    pause: Callable[[], bool],
    placement: Placement,
) -> Generator[Progress]:
    """`workers.train.train_pack`, and a line beside the data folder."""
    from workers import train

    ready = time.monotonic()
    training = training_cpu = 0.0
    stream = iter(train.train_pack(runs, folder, device, resume=resume, pause=pause, placement=placement))
    while True:
        started, cpu_before = time.monotonic(), time.process_time()
        progress = next(stream, None)
        training += time.monotonic() - started
        training_cpu += time.process_time() - cpu_before
        if progress is None:
            break
        yield progress
    times = PackTimes(os.getpid(), ready, time.monotonic(), training, training_cpu)
    where = times_folder(folder)
    where.mkdir(exist_ok=True)
    with open(where / f"{os.getpid()}.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(times)) + "\n")


def times_folder(data_folder: Path) -> Path:
    """Where the lines go: beside the data, the only place that a trainer is told."""
    return data_folder.with_name(f"{data_folder.name}-times")


def read_times(data_folder: Path) -> list[PackTimes]:
    """All packs that were trained, in the order in which they began."""
    lines = [line for path in times_folder(data_folder).glob("*.jsonl") for line in path.read_text().splitlines()]
    return sorted((PackTimes(**json.loads(line)) for line in lines), key=lambda pack: pack.ready)
