"""The next batch of cells as a pure function of the space and of the runs that have ended."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from orchestrator.analysis.blas import one_blas_thread
from orchestrator.analysis.observations import Observations, root
from orchestrator.analysis.surface import Surface, fit_surface
from orchestrator.refine.acquisition import Planned, choose_batch
from orchestrator.refine.band import LIKELY, Row, boundary_rows
from orchestrator.refine.candidates import Candidates, candidates_of, log_ratio
from orchestrator.refine.target import Target
from search_spaces.cells import Cell, Point
from search_spaces.runs import count_beside, expand
from search_spaces.spec import SearchSpace

Key = tuple[float, int, int, int]
"""Noise rate, width, samples, seed of a run."""
Outcomes = Mapping[Key, float | None]
"""The metric of every run that has ended; None for one that failed, diverged or has no such metric."""
State = Literal["searching", "found", "outside", "spent", "exhausted"]

FEWEST_CELLS = 4
SEEDS_OF_A_CELL = 2
"""Of a new cell; more come where they are what is in doubt."""
LEAST_BATCH, MOST_BATCH, BATCHES_OF_A_GRID = 8, 64, 8
"""A batch has an eighth of the grid's runs, from 8 to 64: it must not depend on how many workers there are."""
MOST_OBSERVATIONS = 800
"""Rows of the surface; with more runs, cells far from the level count by their means."""
MOST_SEEDS, MOST_SEEDS_OF_GRID = 32, 4
"""Of a cell: the larger of this number and so many times the grid's."""
ROWS = 9
"""Noise rates, beside those of the grid, at which the width of the band is judged."""


@dataclass(frozen=True)
class Proposal:
    """What is known of the boundary, and what to train next.

    Attributes:
        state: "searching" while there are `cells`; else why there are none: the boundary is "found" (its band is
            narrow enough), "outside" the measured ratios at all rates, the budget is "spent", or the candidates are
            "exhausted".
        rows: the boundary at some noise rates.
        cells: points with the seeds to add; the points may be those of the grid.
        runs_left: of the budget, before these cells.
    """

    state: State
    rows: Sequence[Row]
    cells: tuple[Cell, ...]
    runs_left: int

    @property
    def half_width(self) -> float | None:
        """The widest band in log p/n where a boundary lies inside the measured ratios; None where none does."""
        widths = [row.half_width for row in self.rows if row.inside]
        return max(widths) if widths else None


def propose(space: SearchSpace, outcomes: Outcomes, target: Target) -> Proposal:
    """Judge the boundary, and place a batch if it is not yet found. The same for any order of `outcomes`.

    Runs that are planned and have no outcome count as if they came out as expected, so that neither those in training
    nor those that failed are proposed again.

    Raises:
        ValueError: fewer than four cells have the metric.
    """
    with one_blas_thread():
        return _propose(space, outcomes, target)


def fit_outcomes(space: SearchSpace, outcomes: Outcomes, level: float) -> Surface:
    """The surface of the runs that have a finite outcome; `level`, in the metric's unit, is where it must be good.

    Raises:
        ValueError: fewer than four cells have one.
    """
    measured = {key: value for key, value in outcomes.items() if value is not None and math.isfinite(value)}
    cells = {key[:3] for key in measured}
    if len(cells) < FEWEST_CELLS:
        raise ValueError(
            f"{len(cells)} cells of the grid are measured; a boundary needs at least {FEWEST_CELLS}: widen the grid, "
            "or see bo-sweep status --failures for what went wrong"
        )
    logs = {size: log_ratio(space, *size) for size in {(width, samples) for _, width, samples in cells}}
    keys = sorted(measured)
    observations = Observations.of(
        [logs[width, samples] for _, width, samples, _ in keys],
        [rate for rate, _, _, _ in keys],
        [seed for _, _, _, seed in keys],
        [measured[key] for key in keys],
    )
    return fit_surface(observations.thinned(MOST_OBSERVATIONS, float(root(level))))


def _propose(space: SearchSpace, outcomes: Outcomes, target: Target) -> Proposal:
    keys = [(*run.cell, run.seed) for run in expand(space)]
    surface = fit_outcomes(space, {key: outcomes.get(key) for key in keys}, target.level)
    measured = {key for key in keys if _is_measured(outcomes.get(key))}
    for rate, width, samples, seed in sorted(set(keys) - measured):
        position = np.array([log_ratio(space, width, samples), rate])
        surface = surface.believing(position, seed, surface.usual_noise)

    candidates = candidates_of(space, target.precision)
    level = float(root(target.level))
    rows = boundary_rows(surface, _row_rates(space, candidates, target), candidates.log_range, level)
    left = target.budget - count_beside(space)
    knows_spread = surface.observations.has_several_seeds
    over = _verdict(rows, target.precision, left, knows_spread)
    if over:
        return Proposal(over, rows, (), left)
    grid = len(keys) - count_beside(space)
    planned = Planned(
        seeds=_seeds_by_point(keys),
        growing={key[:3] for key in measured},
        first=_first_seeds(space.seeds),
        most_seeds=max(MOST_SEEDS, MOST_SEEDS_OF_GRID * len(space.seeds)),
        twins=target.metric == "noise_cost",
    )
    added = choose_batch(
        surface,
        candidates,
        _wanted(candidates, rows, target, knows_spread),
        level,
        planned,
        batch_runs=min(MOST_BATCH, max(LEAST_BATCH, grid // BATCHES_OF_A_GRID)),
        runs_left=left,
        grid_seeds=space.seeds,
    )
    cells = tuple(
        Cell(noise_rate=rate, width=width, samples=samples, seeds=tuple(seeds))
        for (rate, width, samples), seeds in added.items()
    )
    return Proposal("searching" if cells else "exhausted", rows, cells, left)


def _is_measured(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _seeds_by_point(keys: Sequence[Key]) -> dict[Point, list[int]]:
    seeds: dict[Point, list[int]] = {}
    for *point, seed in keys:
        seeds.setdefault(tuple(point), []).append(seed)  # type: ignore[arg-type]
    return seeds


def _row_rates(space: SearchSpace, candidates: Candidates, target: Target) -> np.ndarray:
    """The grid's rates and some between them, but for 0 where the metric is 0 there whatever the network does."""
    some = candidates.rates[np.linspace(0, len(candidates.rates) - 1, ROWS).round().astype(int)]
    rates = np.union1d(some, space.noise.rates)
    return rates[rates > 0] if target.metric == "noise_cost" else rates


def _first_seeds(seeds: tuple[int, ...]) -> tuple[int, ...]:
    """Of a new cell: those of the grid first. Two at least, as the spread over seeds is not known from one."""
    others = (seed for seed in range(SEEDS_OF_A_CELL + len(seeds)) if seed not in seeds)
    return tuple(itertools.islice(itertools.chain(seeds, others), SEEDS_OF_A_CELL))


def _verdict(rows: Sequence[Row], precision: float, left: int, knows_spread: bool) -> State | None:
    inside = [edge for row in rows for edge in row.inside.values()]
    if inside and knows_spread and max(edge.half_width for edge in inside) <= precision:
        return "found"
    if not inside and not any(row.is_possible for row in rows):
        return "outside"
    return "spent" if left <= 0 else None


def _wanted(candidates: Candidates, rows: Sequence[Row], target: Target, knows_spread: bool) -> np.ndarray:
    """Candidates next to rates where the band is too wide; if there are none, where a boundary may yet be."""
    wide = [row.half_width > target.precision or (not knows_spread and bool(row.inside)) for row in rows]
    if not any(wide):
        wide = [row.is_possible for row in rows]
    distance = np.abs(candidates.positions[:, 1][:, None] - np.array([row.noise_rate for row in rows])[None, :])
    wanted: np.ndarray = np.array(wide)[distance.argmin(axis=1)]
    return wanted & (candidates.positions[:, 1] > 0) if target.metric == "noise_cost" else wanted


def side(row: Row) -> str:
    """Where a row without a boundary inside lies, in a word."""
    return "above" if row.above >= LIKELY else "below"
