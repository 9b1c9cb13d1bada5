"""When a run trains and is evaluated: step counts, evaluation steps and flow times, from the recipe alone."""

from __future__ import annotations

import functools
import math

from search_spaces.spec import Evaluation, FlowRecipe, Recipe


def steps_per_epoch(samples: int, batch_size: int) -> int:
    """Optimiser steps of one pass over `samples` examples; the last batch may be short."""
    return math.ceil(samples / batch_size)


def _log_spaced(low: float, high: float, points: int) -> list[float]:
    ratio = math.log(high / low)
    return [low * math.exp(ratio * i / (points - 1)) for i in range(points)]


def evaluation_steps(recipe: Recipe, evaluation: Evaluation, samples: int) -> tuple[int, ...]:
    """Steps after which a run is evaluated, increasing, 1-based; the last step is always among them."""
    per_epoch = steps_per_epoch(samples, recipe.batch_size)
    total = per_epoch * recipe.epochs
    if evaluation.spacing == "log":
        return tuple(sorted({max(1, round(step)) for step in _log_spaced(1, total, evaluation.points)} | {total}))
    inside = evaluation.first_epoch_points
    early = {max(1, round(step)) for step in _log_spaced(1, per_epoch, inside + 1)[:-1]} if inside > 0 else set()
    return tuple(sorted(early | {per_epoch * epoch for epoch in range(1, recipe.epochs + 1)}))


def flow_times(recipe: FlowRecipe, evaluation: Evaluation) -> tuple[float, ...]:
    """Times at which the gradient flow is evaluated: log-spaced, then infinity."""
    return (*_log_spaced(recipe.first_time, recipe.last_time, evaluation.points), math.inf)


@functools.lru_cache(maxsize=4096)
def count_evaluations(recipe: Recipe | FlowRecipe, evaluation: Evaluation, samples: int) -> int:
    """Rows that a finished run has in the ledger."""
    if isinstance(recipe, FlowRecipe):
        return len(flow_times(recipe, evaluation))
    return len(evaluation_steps(recipe, evaluation, samples))


def least_evaluations(recipe: Recipe | FlowRecipe, evaluation: Evaluation, samples: int) -> int:
    """Rows that a finished run has at least: all, unless its recipe may stop it early."""
    planned = count_evaluations(recipe, evaluation, samples)
    if isinstance(recipe, FlowRecipe) or recipe.early_stop is None:
        return planned
    return min(planned, recipe.early_stop.evaluations)
