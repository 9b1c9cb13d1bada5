"""A trainer that trains nothing: ten rows of random numbers a run, and its end. For measuring all that is around it."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from search_spaces.runs import Run
from workers.member import RunEnd
from workers.placement import Placement
from workers.schema import ROW_COLUMNS
from workers.train import Progress, never

if TYPE_CHECKING:
    import torch

TRAINER = "benchmarks.measuring.stub:train_pack"
"""What `LaunchOptions.trainer` is told."""
EVALUATIONS = 10
"""Rows a run."""
NUMBERS = tuple(column.name for column in ROW_COLUMNS if str(column.type) == "double")


def train_pack(
    runs: Sequence[Run],
    folder: Path,
    device: torch.device,
    *,
    resume: Mapping[str, Any] | None = None,
    pause: Callable[[], bool] = never,
    placement: Placement | None = None,
) -> Generator[Progress]:
    """The signature of `workers.train.train_pack`. A line beside the data folder tells when a process did its first."""
    sign_in(folder)
    rows = [row | {"run_id": run.run_id} for run in runs for row in stub_rows(EVALUATIONS)]
    yield Progress(rows, [stub_end(run, EVALUATIONS) for run in runs], share_done=1.0)


@functools.cache
def sign_in(data_folder: Path) -> None:
    """Leave a file that is as old as this process's first pack; once a process."""
    folder = first_packs(data_folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / str(os.getpid())).write_text(repr(time.time()))


def first_packs(data_folder: Path) -> Path:
    """Where those files are; each holds a time as time.time() gives it."""
    return data_folder.with_name(f"{data_folder.name}-first-packs")


@functools.cache
def _draw() -> np.random.Generator:
    return np.random.default_rng(os.getpid())


def stub_rows(evaluations: int) -> list[dict[str, Any]]:
    """Rows of one run (schema ROWS) but for its id and attempt; every column is filled, every number has all digits."""
    numbers = _draw().random((evaluations, len(NUMBERS))).tolist()
    return [
        {"evaluation": evaluation, "step": 8 * evaluation, "peak_memory_bytes": 500_000_000}
        | dict(zip(NUMBERS, values, strict=True))
        for evaluation, values in enumerate(numbers)
    ]


def stub_end(run: Run, evaluations: int) -> RunEnd:
    """The end that claims them."""
    return RunEnd(
        run_id=run.run_id,
        status="done",
        mask_hash=run.run_id,
        subset_hash=run.run_id,
        noise_rate_realised=run.noise.rate,
        seconds=0.001,
        evaluations=evaluations,
        engine="sequential",
    )
