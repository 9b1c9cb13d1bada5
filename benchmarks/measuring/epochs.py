"""An epoch read to its end: what its images cost, in a process that does nothing else."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.measuring.feeds import Feed, View, open_bare_ffcv, open_data_loader, open_ours

WAYS: dict[str, Callable[..., Feed]] = {
    "ours": open_ours,
    "bare FFCV": open_bare_ffcv,
    "DataLoader": open_data_loader,
}


@dataclass(frozen=True)
class Epoch:
    """What one epoch took, in seconds of wall time and of all CPUs."""

    images: int
    wall: float
    cpu: float

    @property
    def rate(self) -> float:
        return self.images / self.wall

    @property
    def cpu_rate(self) -> float:
        return self.images / self.cpu


@functools.cache
def opened(way: str, source: Path, view: View, batch_size: int, workers: int) -> Feed:
    """A feed; opened once a process."""
    return WAYS[way](source, view, batch_size=batch_size, workers=workers)


def read_epoch(way: str, source: Path, view: View, batch_size: int, workers: int) -> Epoch:
    """Read one epoch to its end."""
    feed, images = opened(way, source, view, batch_size, workers), 0
    started, cpu_before = time.perf_counter(), cpu_seconds()
    for inputs, _ in feed(0):
        assert inputs.shape[1:] == (3, view.resolution, view.resolution)
        images += len(inputs)
    return Epoch(images, time.perf_counter() - started, cpu_seconds() - cpu_before)


def cpu_seconds() -> float:
    """Of this process and of those that it started."""
    this = psutil.Process()
    times = [process.cpu_times() for process in (this, *this.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))
