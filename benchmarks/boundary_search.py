"""Finding a phase boundary: `launch --refine` against regular grids, by the number of runs.

The Gaussian mixture at n = 200, R = 10: where the final test error of least squares, trained to infinity, is 0.1, at
six noise rates from 0.05 to 0.3 and p/n from 1.25 to 32. Every repetition has its own seeds; its runs are the exact
flow in this process. A grid is read in two ways: off the same surface as the search, which smooths over all cells, and
row by row, on straight lines between the means of its cells, as one reads a heat map. The truth is the boundary of the
mean error of 200 other seeds at this n, which differs from the closed form (n to infinity) by a few per cent. An error
is the mean over noise rates of the distance in log p/n. The search starts from a coarse grid of 24 runs, which count.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.measuring.figures import Figure, Goal
from orchestrator.analysis.observations import root
from orchestrator.analysis.surface import crossings
from orchestrator.refine.proposer import Key, fit_outcomes, propose
from orchestrator.refine.target import Target
from search_spaces.catalog import load_space
from search_spaces.runs import Run, expand, with_cells
from search_spaces.spec import SearchSpace
from workers.flow import gradient_flow
from workers.mixture import sample_mixture, signs
from workers.randomness import uniform
from workers.theory import clean_error

SAMPLES, SIGNAL, LEVEL = 200, 10.0, 0.1
RATES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3)
LOW, HIGH = 1.25, 32.0
COARSE = ("ratios=[1.25, 4, 12, 32]", "noise.rates=[0.05, 0.15, 0.3]", "seeds=2")
GRIDS = ((4, 2), (6, 2), (4, 4), (6, 4), (8, 4), (6, 8), (8, 8), (12, 8), (8, 16), (12, 16))
"""Ratios and seeds of the regular grids, each at all RATES."""
LOOKS = (48, 72, 96, 144, 192)
"""Runs after which the search is judged."""
REPETITIONS, TRUTH_SEEDS, FIRST_TRUTH_SEED = 20, 200, 1_000_000
QUICK_REPETITIONS, QUICK_TRUTH_SEEDS = 2, 5
GOAL_ERROR, GOAL_SHARE = 0.05, 0.25
READINGS = {"grid": "off the surface", "rows": "row by row"}
"""How the boundary is read off a grid."""
SEEDS_OF_A_REPETITION = 1000


def measure(quick: bool) -> Iterator[Figure]:
    """Errors by the number of runs, then the share of a grid's runs that the search needs for its own error."""
    looks, grids = (LOOKS[:1], GRIDS[:2]) if quick else (LOOKS, GRIDS)
    repetitions = range(1, 1 + (QUICK_REPETITIONS if quick else REPETITIONS))
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=spawn) as processes:
        seeds = range(FIRST_TRUTH_SEED, FIRST_TRUTH_SEED + (QUICK_TRUTH_SEEDS if quick else TRUTH_SEEDS))
        truth = boundary_of(np.mean(list(processes.map(true_errors, seeds)), axis=0))
        repeat = functools.partial(repetition, truth=truth, looks=looks, grids=grids)
        searched, regular = zip(*processes.map(repeat, repetitions), strict=True)
    by_search = [
        Figure(f"search, {look} runs: error in log p/n", errors, details={"method": "search", "runs": look})
        for look, errors in zip(looks, zip(*searched, strict=True), strict=True)
    ]
    yield from (replace(figure, goal=_within(figure)) for figure in by_search)
    for place, (method, reading) in enumerate(READINGS.items()):
        by_grid = []
        for (ratios, replicas), errors in zip(grids, zip(*regular, strict=True), strict=True):
            runs = len(RATES) * ratios * replicas
            what = f"grid of {ratios} ratios, {replicas} seeds, {runs} runs, {reading}: error in log p/n"
            values = tuple(both[place] for both in errors)
            by_grid.append(Figure(what, values, details={"method": method, "runs": runs}))
        yield from by_grid
        yield from _shares(by_search, by_grid, reading)


def _shares(by_search: Sequence[Figure], by_grid: Sequence[Figure], reading: str) -> Iterator[Figure]:
    """The share of a grid's runs that the search needs: for the same median error, and until all repetitions are
    within the goal."""
    for figure in by_search:
        needed = runs_needed(figure.spread.median, by_grid)
        if figure.spread.median > GOAL_ERROR:
            continue
        runs, most = figure.details["runs"], max(one.details["runs"] for one in by_grid)
        what = f"search, {runs} runs: share of what a grid, {reading}, needs for its error, "
        what += f"{needed}" if needed else f"more than {most}"
        yield Figure(what, (runs / (needed or most),), goal=Goal(GOAL_SHARE, is_least=False))

    surely = [min((one.details["runs"] for one in way if is_sure(one)), default=None) for way in (by_search, by_grid)]
    if surely[0] and surely[1]:
        what = f"runs until every repetition is within {GOAL_ERROR}: search {surely[0]}, grid, {reading}, {surely[1]}"
        yield Figure(f"{what}; share", (surely[0] / surely[1],), goal=Goal(GOAL_SHARE, is_least=False))


def is_sure(figure: Figure) -> bool:
    """Whether no repetition is off by more than the goal."""
    return figure.spread.maximum <= GOAL_ERROR


def _within(figure: Figure) -> Goal | None:
    return Goal(GOAL_ERROR, is_least=False) if figure.details["runs"] >= LOOKS[1] else None


def runs_needed(error: float, grids: Sequence[Figure]) -> int | None:
    """Runs of the smallest grid whose median error is not above `error`: a choice that nobody can make beforehand."""
    return min((one.details["runs"] for one in grids if one.spread.median <= error), default=None)


@dataclass(frozen=True)
class Mixture:
    """Runs of one repetition, whose seeds are its own."""

    first_seed: int

    def error(self, rate: float, width: int, seed: int) -> float:
        """Final test error of a run."""
        return _errors(self.first_seed + seed, width)[round(rate * SAMPLES)]

    def outcomes(self, runs: Sequence[Run]) -> dict[Key, float | None]:
        return {(*run.cell, run.seed): self.error(run.noise.rate, run.width, run.seed) for run in runs}


@functools.lru_cache(maxsize=8)
def _inputs(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors of the widest model, classes as +-1, and the order in which examples are flipped."""
    vectors, labels = sample_mixture(SAMPLES, round(HIGH * SAMPLES), signal=SIGNAL, seed=seed)
    return vectors, signs(labels), np.argsort(uniform("noise", seed, np.arange(SAMPLES)))


@functools.lru_cache(maxsize=20_000)
def _errors(seed: int, width: int) -> tuple[float, ...]:
    """Final test error with 0, 1, 2 ... flipped labels, up to the largest rate: they share one decomposition."""
    vectors, classes, order = _inputs(seed)
    flips = round(max(RATES) * SAMPLES) + 1
    targets = np.repeat(classes[:, None], flips, axis=1)
    for count in range(flips):
        targets[order[:count], count] *= -1
    flow = gradient_flow(vectors[:, :width], targets, np.array([np.inf]))
    return tuple(clean_error(flow.signal_weight[0], flow.squared_norm[0], SIGNAL).tolist())


TRUTH_WIDTHS = np.unique(np.geomspace(LOW * SAMPLES, HIGH * SAMPLES, 30).round().astype(int))


def true_errors(seed: int) -> np.ndarray:
    """Errors of one seed, [TRUTH_WIDTHS, RATES]."""
    with threadpool_limits(1):
        return np.array([[Mixture(seed).error(rate, int(width), 0) for rate in RATES] for width in TRUTH_WIDTHS])


def boundary_of(errors: np.ndarray) -> np.ndarray:
    """Log p/n where the mean error [TRUTH_WIDTHS, RATES] falls below LEVEL, for each of RATES."""
    return crossings(np.log(TRUTH_WIDTHS / SAMPLES), root(errors), float(root(LEVEL)))[1]


def repetition(
    number: int, *, truth: np.ndarray, looks: Sequence[int], grids: Sequence[tuple[int, int]]
) -> tuple[list[float], list[tuple[float, float]]]:
    """Errors of the search after each number of runs, and of each grid in each of READINGS; by the seeds of one
    repetition."""
    mixture = Mixture(number * SEEDS_OF_A_REPETITION)
    with threadpool_limits(1):  # matrices are small: threads would only wait for each other
        return search_errors(mixture, truth, looks), [grid_errors(mixture, truth, *grid) for grid in grids]


def grid_space(ratios: int, seeds: int) -> SearchSpace:
    """A regular grid: all RATES, log-spaced ratios."""
    widths = np.geomspace(LOW * SAMPLES, HIGH * SAMPLES, ratios).round().astype(int).tolist()
    return _space(f"widths={widths}", "ratios=null", f"noise.rates={list(RATES)}", f"seeds={seeds}")


def _space(*overrides: str) -> SearchSpace:
    return load_space("gmm-grid", (f"samples={SAMPLES}", f"dataset.signal={SIGNAL}", *overrides))


def located(space: SearchSpace, outcomes: Mapping[Key, float | None]) -> np.ndarray:
    """Log p/n where the surface of these runs falls below LEVEL, for each of RATES; an end of the range otherwise."""
    surface = fit_outcomes(space, outcomes, LEVEL)
    grid = np.linspace(np.log(LOW), np.log(HIGH), 1000)
    found = []
    for rate in RATES:
        mean, _ = surface.mean_and_doubt(np.column_stack([grid, np.full(len(grid), rate)]))
        found.append(float(crossings(grid, mean[:, None], float(root(LEVEL)))[1][0]))
    return np.clip(found, grid[0], grid[-1])


def search_errors(mixture: Mixture, truth: np.ndarray, looks: Sequence[int]) -> list[float]:
    """The error of the search after each number of runs."""
    space = _space(*COARSE)
    coarse = len(expand(space))
    errors = []
    for look in looks:
        target = Target("err_last", LEVEL, precision=1e-3, budget=look - coarse)
        while True:
            outcomes = mixture.outcomes(expand(space))
            proposal = propose(space, outcomes, target)
            if not proposal.cells:
                break
            space = with_cells(space, proposal.cells)
        errors.append(float(np.abs(located(space, outcomes) - truth).mean()))
    return errors


def grid_errors(mixture: Mixture, truth: np.ndarray, ratios: int, seeds: int) -> tuple[float, float]:
    """The error of a regular grid in each of READINGS."""
    space = grid_space(ratios, seeds)
    outcomes = mixture.outcomes(expand(space))
    surface, rows = (
        float(np.abs(found - truth).mean()) for found in (located(space, outcomes), row_by_row(space, outcomes))
    )
    return surface, rows


def row_by_row(space: SearchSpace, outcomes: Mapping[Key, float | None]) -> np.ndarray:
    """Log p/n where straight lines between the cell means fall below LEVEL for the last time, for each of RATES; an end
    of the range otherwise."""
    widths = np.array(space.widths)
    means = np.array([[_mean(outcomes, rate, int(width), space.seeds) for rate in RATES] for width in widths])
    logs = np.log(widths / SAMPLES)
    return np.clip(crossings(logs, root(means), float(root(LEVEL)))[1], logs[0], logs[-1])


def _mean(outcomes: Mapping[Key, float | None], rate: float, width: int, seeds: Sequence[int]) -> float:
    return float(np.mean([outcomes[rate, width, SAMPLES, seed] for seed in seeds]))  # type: ignore[arg-type]
