"""How long the missing runs will take: from finished runs of the sweep, else from speeds that were measured on such a
device, else from published ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.arithmetic import guess_seconds
from orchestrator.measured import MeasuredSpeeds
from search_spaces.runs import Run
from search_spaces.shapes import Shape, shape_for
from search_spaces.spec import FlowRecipe, Resources

__all__ = ["Estimate", "estimate", "guess_in_shape", "guess_seconds"]

WORKER_START_SECONDS = 20.0
"""Ray, imports of torch and FFCV, and FFCV's compilation, once a worker (measured)."""


@dataclass(frozen=True)
class Estimate:
    """Seconds of one worker slot that the runs take together, the wall time on `slots`, and where that comes from."""

    slot_seconds: float
    slots: float
    basis: str
    unscaled_seconds: float
    """The same from arithmetic alone: the unit in which workers report their progress."""
    gpu_seconds: float
    """Seconds of whole GPUs that the slots hold meanwhile; 0 without GPUs."""
    of_run: Callable[[Run], float] = field(default=lambda run: 0.0, compare=False, repr=False)
    """Seconds of one of the runs, in its pack."""

    @property
    def wall_seconds(self) -> float:
        return WORKER_START_SECONDS + self.slot_seconds / self.slots if self.slot_seconds else 0.0

    @property
    def gpu_hours(self) -> float:
        return self.gpu_seconds / 3600


def estimate(
    missing: Sequence[Run],
    finished: Sequence[tuple[Run, float]],
    *,
    slots: float,
    resources: Resources,
    speeds: MeasuredSpeeds | None = None,
    pack_sizes: Mapping[str, int] | None = None,
) -> Estimate:
    """Estimate the time of `missing` runs.

    Args:
        missing: runs still to be trained.
        finished: runs of the same sweep with the seconds that they took.
        slots: workers side by side, on average.
        resources: what each run gets.
        speeds: measured under the conditions of these runs.
        pack_sizes: by run id, how many runs share one data stream; those of others are taken to be the largest.
    """
    shapes = [shape_for(run, resources) for run in missing]
    unscaled = [guess_in_shape(run, shape) for run, shape in zip(missing, shapes, strict=True)]
    seconds_of = _seconds_of_a_run(speeds, pack_sizes or {})
    expected = [seconds_of(run, shape) for run, shape in zip(missing, shapes, strict=True)] if speeds else unscaled
    scale, basis = 1.0, _basis(missing, shapes, speeds)
    if finished:
        scale = sum(taken for _, taken in finished)
        scale /= sum(seconds_of(run, shape_for(run, resources)) for run, _ in finished)
        by = f"speeds {basis}" if speeds and missing else "arithmetic"
        basis = f"{len(finished)} finished runs of this sweep, scaled by {by}"
    gpu_seconds = sum(seconds * shape.total_gpus for seconds, shape in zip(expected, shapes, strict=True))
    return Estimate(
        scale * sum(expected),
        slots,
        basis,
        sum(unscaled),
        scale * gpu_seconds,
        of_run=lambda run: scale * seconds_of(run, shape_for(run, resources)),
    )


def guess_in_shape(run: Run, shape: Shape) -> float:
    """Seconds for one run from arithmetic alone; processes count as so many times one."""
    return guess_seconds(run, shape.gpus) / shape.processes


def _seconds_of_a_run(speeds: MeasuredSpeeds | None, pack_sizes: Mapping[str, int]) -> Callable[[Run, Shape], float]:
    if speeds is None:
        return guess_in_shape
    usual = max(pack_sizes.values(), default=1)
    return lambda run, shape: speeds.seconds(run, shape, pack_sizes.get(run.run_id, usual))


def _basis(missing: Sequence[Run], shapes: Sequence[Shape], speeds: MeasuredSpeeds | None) -> str:
    """Where an estimate without finished runs comes from."""
    if not missing:
        return "nothing to run"
    if speeds:
        return speeds.basis(zip(missing, shapes, strict=True))
    hint = "" if isinstance(missing[0].recipe, FlowRecipe) else "; bo-sweep bench-worker measures it"
    if shapes[0].gpus:
        return f"ResNet50 at 2,470 images/s on one A100, scaled by arithmetic; decode and small widths are slower{hint}"
    return f"steps and arithmetic at the speed of one CPU core of the machine that bo-sweep was measured on{hint}"
