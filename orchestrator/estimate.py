"""How long the missing runs will take: from finished runs of the sweep, else from published or measured speeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from search_spaces.memory import run_multiply_adds, training_steps
from search_spaces.runs import Run
from search_spaces.spec import FlowRecipe

GPU_MULTIPLY_ADDS = 4.11e9 * 3 * 2470
"""Multiply-adds a second: ResNet50 (4.11 G forward, three times that in training) at 2,470 images/s on one A100."""
CPU_MULTIPLY_ADDS = 2.5e10
"""Multiply-adds a second of one CPU core on small convolutions (measured on digits-grid)."""
CPU_STEP_SECONDS = 3e-3
"""Cost of an optimiser step of a small ResNet on one CPU core that does not depend on its width (measured)."""
FLOW_RUN_SECONDS = 0.03
"""A gradient-flow run in a pack, beside its decomposition (measured)."""
WORKER_START_SECONDS = 20.0
"""Ray, imports of torch and FFCV, and FFCV's compilation, once a worker (measured)."""


@dataclass(frozen=True)
class Estimate:
    """Seconds of one worker slot that the runs take together, the wall time on `slots`, and where that comes from."""

    slot_seconds: float
    slots: int
    basis: str
    unscaled_seconds: float
    """The same from arithmetic alone: the unit in which workers report their progress."""

    @property
    def wall_seconds(self) -> float:
        return WORKER_START_SECONDS + self.slot_seconds / self.slots if self.slot_seconds else 0.0


def estimate(missing: Sequence[Run], finished: Sequence[tuple[Run, float]], *, slots: int, gpus: float) -> Estimate:
    """Estimate the time of `missing` runs.

    Args:
        missing: runs still to be trained.
        finished: runs of the same sweep with the seconds that they took.
        slots: workers side by side.
        gpus: GPUs (or the share of one) that each worker has.
    """
    expected = sum(guess_seconds(run, gpus) for run in missing)
    if not finished:
        return Estimate(expected, slots, _published_basis(gpus, missing), expected)
    guessed = sum(guess_seconds(run, gpus) for run, _ in finished)
    scale = sum(seconds for _, seconds in finished) / guessed
    basis = f"{len(finished)} finished runs of this sweep, scaled by arithmetic"
    return Estimate(scale * expected, slots, basis, expected)


def guess_seconds(run: Run, gpus: float) -> float:
    """Seconds for one run from arithmetic and the speeds above; a share of a GPU counts as that share of its speed."""
    multiply_adds = run_multiply_adds(run)
    if gpus:
        return multiply_adds / (GPU_MULTIPLY_ADDS * min(1.0, gpus))
    if isinstance(run.recipe, FlowRecipe):
        return FLOW_RUN_SECONDS + multiply_adds / CPU_MULTIPLY_ADDS
    return training_steps(run) * CPU_STEP_SECONDS + multiply_adds / CPU_MULTIPLY_ADDS


def _published_basis(gpus: float, missing: Sequence[Run]) -> str:
    if not missing:
        return "nothing to run"
    if gpus:
        return "ResNet50 at 2,470 images/s on one A100, scaled by arithmetic; decode and small widths are slower"
    return "steps and arithmetic at the speed of one CPU core of the machine that bo-sweep was measured on"
