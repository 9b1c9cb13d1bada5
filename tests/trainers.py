"""Trainers that go wrong in chosen ways, with the signature of workers.train.train_pack."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from search_spaces.runs import Run
from workers.placement import Placement
from workers.train import train_pack


def kills_its_process(runs: Sequence[Run], folder: Path, device: Any, **options: Any) -> Generator[Any]:
    """A segmentation fault, as in native code, in every run with label noise 0.4."""
    if any(run.noise.rate == 0.4 for run in runs):
        print("about to crash", file=sys.stderr, flush=True)
        faulthandler.enable()
        os.kill(os.getpid(), signal.SIGSEGV)
    yield from train_pack(runs, folder, device, **options)


def runs_out_of_memory(runs: Sequence[Run], folder: Path, device: Any, **options: Any) -> Generator[Any]:
    """More than one run at a time does not fit, which shows in the middle of training."""
    for number, progress in enumerate(train_pack(runs, folder, device, **options)):
        yield progress
        if len(runs) > 1 and number == 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")


def fails_in_the_second_process(
    runs: Sequence[Run], folder: Path, device: Any, *, placement: Placement, **options: Any
) -> Generator[Any]:
    """One process of a group runs out of memory in every run with label noise 0.4, in the middle of training."""
    for number, progress in enumerate(train_pack(runs, folder, device, placement=placement, **options)):
        yield progress
        if placement.group.rank == 1 and number == 1 and any(run.noise.rate == 0.4 for run in runs):
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
