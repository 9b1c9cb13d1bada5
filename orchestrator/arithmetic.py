"""How long runs take by arithmetic alone: multiply-adds and steps at published or measured speeds."""

from __future__ import annotations

from search_spaces.memory import forward_multiply_adds, run_multiply_adds, training_steps
from search_spaces.runs import Run
from search_spaces.shapes import GPU_MULTIPLY_ADDS
from search_spaces.spec import FlowRecipe

CPU_MULTIPLY_ADDS = 2.5e10
"""Multiply-adds a second of one CPU core on small convolutions (measured on digits-grid)."""
CPU_STEP_SECONDS = 3e-3
"""Cost of an optimiser step of a small ResNet on one CPU core that does not depend on its width (measured)."""
FLOW_RUN_SECONDS = 0.03
"""A gradient-flow run in a pack, beside its decomposition (measured)."""


def guess_seconds(run: Run, gpus: float) -> float:
    """Seconds for one run from arithmetic and the speeds above.

    A share of a GPU counts as that share of its speed, several as so many times one; without GPUs, on one CPU core.
    """
    multiply_adds = run_multiply_adds(run)
    if gpus:
        return multiply_adds / (GPU_MULTIPLY_ADDS * gpus)
    if isinstance(run.recipe, FlowRecipe):
        return FLOW_RUN_SECONDS + multiply_adds / CPU_MULTIPLY_ADDS
    return training_steps(run) * CPU_STEP_SECONDS + multiply_adds / CPU_MULTIPLY_ADDS


def width_cost(run: Run, width: int, *, on_gpu: bool) -> float:
    """Seconds that a training sample of `run` would take at `width`, by which two widths can be compared.

    Raises:
        AssertionError: a run without minibatches.
    """
    assert not isinstance(run.recipe, FlowRecipe)
    forward = forward_multiply_adds(run.dataset, run.architecture, width)
    if on_gpu:
        return 3 * forward / GPU_MULTIPLY_ADDS
    return CPU_STEP_SECONDS / run.recipe.batch_size + 3 * forward / CPU_MULTIPLY_ADDS
