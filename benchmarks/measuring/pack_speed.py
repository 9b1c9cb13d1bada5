"""How fast one single-threaded process trains packs: what is counted lies between a pack's first and last evaluation.

So everything that a run goes through is in it, in its proportions, but what a pack does once: opening its data,
building and (for the tool's own choice) measuring its networks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from benchmarks.measuring.vmapped import train_vmapped
from search_spaces.runs import Run
from workers.fusion import choose
from workers.placement import Placement
from workers.train import train_pack

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Arrangement:
    """How so many models are trained at once: by the engine that the tool chooses, so many in one network (1: one after
    another on the shared batches), or by vmap."""

    models: int
    fused: int | Literal["chosen", "vmap"] = 1

    @property
    def title(self) -> str:
        if self.models == 1:
            return "one model a process"
        how = {"chosen": "", "vmap": ", vmap", 1: ", one after another"}.get(self.fused, f", fused by {self.fused}")
        return f"packs of {self.models}{how}"


@dataclass(frozen=True)
class Trained:
    """Samples x models that a process trained, its evaluations of them included, and the seconds that it took."""

    samples: float
    wall: float
    cpu: float

    @property
    def rate(self) -> float:
        return self.samples / self.wall

    @property
    def cpu_rate(self) -> float:
        return self.samples / self.cpu


def train_for(arrangement: Arrangement, runs: Sequence[Run], folder: Path, seconds: float) -> Trained:
    """Train the same pack again and again, for so many counted seconds at least; in a contestant."""
    torch.set_num_threads(1)
    samples = wall = cpu = 0.0
    while not samples or wall < seconds:
        with closing(_reached(arrangement, runs[: arrangement.models], folder)) as reached:  # type: ignore[type-var]
            first = last = next(reached)
            started, cpu_before = time.perf_counter(), time.process_time()
            for epoch in reached:
                last = epoch
            wall += time.perf_counter() - started
            cpu += time.process_time() - cpu_before
        samples += arrangement.models * runs[0].samples * (last - first)
    return Trained(samples, wall, cpu)


def _reached(arrangement: Arrangement, runs: Sequence[Run], folder: Path) -> Iterator[float]:
    """The epoch of each evaluation."""
    if arrangement.fused == "vmap":
        yield from train_vmapped(runs, folder)
        return
    for progress in train_pack(runs, folder, CPU, placement=_placement(arrangement)):
        yield progress.rows[0]["epoch"]


def _placement(arrangement: Arrangement) -> Placement:
    if arrangement.fused == "chosen":
        return Placement(engine=None, usual_pack=arrangement.models)
    if arrangement.fused == 1:
        return Placement(engine="sequential")
    assert arrangement.fused != "vmap"
    return Placement(engine="fused", fused=arrangement.fused)


def choice(models: int, runs: Sequence[Run], folder: Path) -> int:
    """What the tool takes for packs of so many: networks in one; 1 for one after another. In a contestant."""
    torch.set_num_threads(1)
    _, fused = choose(runs[0], models, CPU, _placement(Arrangement(models, "chosen")), folder)
    return fused
