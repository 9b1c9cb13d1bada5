"""Which runs come next: cells in doubt about their side of the level, and seeds where seeds are what is in doubt.

The straddle heuristic (Bryan et al., "Active learning for identifying function threshold boundaries", NIPS 2005) scores
a point with kappa sd - |mean - level|. A batch is chosen one by one, each pick conditioned on those before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from orchestrator.analysis.observations import Floats
from orchestrator.analysis.surface import Surface
from orchestrator.refine.candidates import Candidates
from search_spaces.cells import Point

KAPPA = 1.96
NEARLY = 0.1
"""Scores that differ by less than this share of the doubt count as equal; then a size that the batch has already wins,
as runs of one size and seed are trained together."""
SEED_SHARE = 0.5
"""Seeds are added where the doubt that endless seeds would leave is less than this share of the variance."""
WORTH = 0.5
"""A further seed of a measured cell is taken where it lowers the variance by this share of what a new cell would."""
SHORTLIST = 400
"""Candidates that are looked at again after every pick: those with the highest scores at first."""


@dataclass
class Planned:
    """Seeds of every point of the sweep, and which points may get more."""

    seeds: dict[Point, list[int]]
    growing: set[Point]
    """Points with at least one finished run."""
    first: tuple[int, ...]
    """Seeds of a new cell."""
    most_seeds: int
    twins: bool
    """Whether every run needs its clean twin."""
    added: dict[Point, list[int]] = field(default_factory=dict)
    """What the batch adds."""

    @property
    def count(self) -> int:
        """Runs of the batch."""
        return sum(map(len, self.added.values()))

    def next_seed(self, point: Point, preferred: Iterable[int]) -> int:
        """A seed that the point has not: of the grid, or else the smallest number."""
        has = set(self.seeds.get(point, []))
        smallest = next(number for number in range(len(has) + 1) if number not in has)
        return next((seed for seed in preferred if seed not in has), smallest)

    def missing(self, point: Point, seed: int) -> list[tuple[Point, int]]:
        """The runs that a run at this point asks for: itself and, where it is not there, its twin."""
        wanted = [point, (0.0, *point[1:])] if self.twins and point[0] > 0 else [point]
        return [(each, seed) for each in wanted if seed not in self.seeds.get(each, [])]

    def add(self, runs: Iterable[tuple[Point, int]]) -> None:
        for point, seed in runs:
            self.seeds.setdefault(point, []).append(seed)
            self.added.setdefault(point, []).append(seed)


def choose_batch(
    surface: Surface,
    candidates: Candidates,
    wanted: np.ndarray,
    level: float,
    planned: Planned,
    *,
    batch_runs: int,
    runs_left: int,
    grid_seeds: tuple[int, ...],
) -> Mapping[Point, list[int]]:
    """New runs as seeds by point: about `batch_runs`, and never more than `runs_left`. Empty where nothing is left.

    Args:
        surface: conditioned on all runs that are planned.
        candidates: where cells may be.
        wanted: bool[P], those of the candidates that matter now.
        level: on the scale of the surface.
        planned: what there is; the batch is added to it.
        grid_seeds: of the space.
    """
    alive = np.flatnonzero(wanted)
    if not len(alive):
        return planned.added
    at = {point: place for place, point in enumerate(candidates.points)}
    score, _ = _straddle(surface, candidates.positions[alive], level)
    alive = alive[np.argsort(-score, kind="stable")[:SHORTLIST]]
    while len(alive) and planned.count < min(batch_runs, runs_left):
        score, doubt = _straddle(surface, candidates.positions[alive], level)
        best = _pick(score, doubt, [candidates.points[place] for place in alive], planned)
        place = int(alive[best])
        runs = _runs_for(surface, place, float(doubt[best]), candidates, at, planned, grid_seeds)
        affordable = _affordable(runs, planned, min(runs_left, max(batch_runs, planned.count + 1)) - planned.count)
        if not affordable:
            if runs and planned.count:
                break  # it begins the next batch
            alive = np.delete(alive, best)
            continue
        planned.add(affordable)
        for point, seed in affordable:
            position = candidates.positions[at[point]]
            surface = surface.believing(position, seed, _noise(surface, position))
    return planned.added


def _straddle(surface: Surface, positions: Floats, level: float) -> tuple[Floats, Floats]:
    mean, doubt = surface.mean_and_doubt(positions)
    return KAPPA * doubt - np.abs(mean - level), doubt


def _pick(score: Floats, doubt: Floats, points: list[Point], planned: Planned) -> int:
    """The best, or one that is nearly as good and has the size of a cell in the batch."""
    best = int(score.argmax())
    sizes = {point[1:] for point in planned.added}
    close = [i for i in np.flatnonzero(score >= score[best] - NEARLY * doubt[best]) if points[i][1:] in sizes]
    return int(max(close, key=lambda i: score[i])) if close else best


def _runs_for(
    surface: Surface,
    place: int,
    doubt: float,
    candidates: Candidates,
    at: Mapping[Point, int],
    planned: Planned,
    grid_seeds: tuple[int, ...],
) -> list[tuple[Point, int]]:
    """What to train for the candidate at `place`: itself as a new cell, or a seed more of a cell that tells of it."""
    point, position = candidates.points[place], candidates.positions[place]
    is_new = point not in planned.seeds
    between = float(surface.doubt_between_cells(position[None, :])[0])
    if is_new and between**2 >= SEED_SHARE * doubt**2:
        return [(point, seed) for seed in planned.first]
    growing = sorted(each for each in planned.growing if len(planned.seeds[each]) < planned.most_seeds and each in at)
    offers = [(each, planned.next_seed(each, grid_seeds)) for each in growing]
    if is_new:
        offers.append((point, max((seed for _, seed in offers), default=planned.first[0])))
    if not offers:
        return []
    positions = candidates.positions[[at[each] for each, _ in offers]]
    noise = np.array([_noise(surface, each) for each in positions])
    gains = surface.gains(position, positions, np.array([seed for _, seed in offers]), noise)
    if is_new and (not growing or gains[:-1].max() < WORTH * gains[-1]):
        return [(point, seed) for seed in planned.first]
    return [offers[int(gains[: len(growing)].argmax())]]


def _noise(surface: Surface, position: Floats) -> float:
    """Variance over seeds at a cell: its own, or the usual one where nothing is measured."""
    same = (surface.observations.points == position).all(axis=1)
    return float(surface.observations.noise[same][0]) if same.any() else surface.usual_noise


def _affordable(runs: list[tuple[Point, int]], planned: Planned, room: int) -> list[tuple[Point, int]]:
    """The first runs, each with its twin, that `room` is enough for."""
    taken: dict[tuple[Point, int], None] = {}
    for point, seed in runs:
        more = dict.fromkeys(planned.missing(point, seed))
        if len(taken | more) > room:
            break
        taken |= more
    return list(taken)
