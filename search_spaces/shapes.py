"""What one run gets to train on: a share of a GPU, one GPU, several, or CPU processes. Placement, never identity."""

from __future__ import annotations

import math
from dataclasses import dataclass

from search_spaces.memory import forward_multiply_adds, run_bytes, run_multiply_adds
from search_spaces.resources import Resources
from search_spaces.runs import Run
from search_spaces.spec import FlowRecipe

GPU_MULTIPLY_ADDS = 4.11e9 * 3 * 2470
"""Multiply-adds a second: ResNet50 (4.11 G forward, three times that in training) at 2,470 images/s on one A100."""
MEMORY_SHARE = 0.9
"""Of a GPU's memory, what models may fill."""
SHARES = ((0.25, 2e-3), (0.5, 4e-3))
"""Shares of a GPU for runs whose step takes less than so many seconds of a whole one: their kernels leave it idle."""


@dataclass(frozen=True, order=True)
class Shape:
    """The processes that train a pack together, and what each of them holds."""

    processes: int
    cpus: float
    gpus: float

    @property
    def total_cpus(self) -> float:
        return self.processes * self.cpus

    @property
    def total_gpus(self) -> float:
        return self.processes * self.gpus

    def __str__(self) -> str:
        held = f"{self.gpus:g} GPU" if self.gpus else ""
        held = " and ".join(filter(None, [held, f"{self.cpus:g} CPU{'s' if self.cpus != 1 else ''}"]))
        return held if self.processes == 1 else f"{self.processes} processes of {held}"


def shape_for(run: Run, resources: Resources) -> Shape:
    """The shape that a run is trained in: as the space says or, where it says "auto", by memory and time.

    "auto" takes a share of a GPU for runs too small to fill one; else as few GPUs as hold the run and end it within
    `longest_run_hours`, in powers of two up to `most_gpus_per_run`, since one GPU a run uses them best.
    """
    gpus = resources.gpus_per_worker
    if isinstance(gpus, str):
        gpus = _fitting_gpus(run, resources)
        if gpus <= 1:
            return Shape(1, max(1.0, math.floor(resources.cpus_per_worker * gpus)), gpus)
    if gpus > 1:
        return Shape(int(gpus), resources.cpus_per_worker, 1.0)
    return Shape(resources.processes_per_worker, resources.cpus_per_worker, gpus)


def gpu_hours_alone(run: Run) -> float:
    """Hours that a run takes on one GPU, by arithmetic from a published speed."""
    return run_multiply_adds(run) / GPU_MULTIPLY_ADDS / 3600


def _fitting_gpus(run: Run, resources: Resources) -> float:
    if isinstance(run.recipe, FlowRecipe):
        return 0.0
    memory = MEMORY_SHARE * resources.gpu_memory_gb * 1e9
    step = 3 * forward_multiply_adds(run.dataset, run.architecture, run.width) * _at_once(run) / GPU_MULTIPLY_ADDS
    gpus, hours = 1, gpu_hours_alone(run)
    for share, seconds in SHARES:
        if step < seconds and run_bytes(run) <= share * memory and hours / share <= resources.longest_run_hours:
            return share
    while 2 * gpus <= min(resources.most_gpus_per_run, _at_once(run)) and (
        run_bytes(run, gpus) > memory or hours / gpus > resources.longest_run_hours
    ):
        gpus *= 2
    return float(gpus)


def _at_once(run: Run) -> int:
    assert not isinstance(run.recipe, FlowRecipe)
    return run.recipe.micro_batch or run.recipe.batch_size


def why_several(run: Run, shape: Shape, resources: Resources) -> str:
    """Why a run gets several GPUs, in a few words; nothing where it does not, or where the space says so."""
    if resources.gpus_per_worker != "auto" or shape.total_gpus <= 1:
        return ""
    if run_bytes(run) > MEMORY_SHARE * resources.gpu_memory_gb * 1e9:
        return f"{shape.total_gpus:g} GPUs, as one does not hold its {run_bytes(run) / 1e9:.1f} GB"
    hours = gpu_hours_alone(run)
    return f"{shape.total_gpus:g} GPUs, as it takes {hours:,.0f} h on one, over {resources.longest_run_hours:g}"
