"""Runs as points of a surface over (log p/n, noise rate): what the Gaussian process of surface.py is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

PRIOR_SEEDS = 4
"""Weight of the spread in all cells, in degrees of freedom, when that of one is estimated from few seeds."""
MERGED_SEED = -1
"""Of means over seeds, which share what their seeds share."""


def root(value: npt.ArrayLike) -> Floats:
    """sign(v) sqrt|v|: the scale of the surface. Signed, as costs may be negative."""
    value = np.asarray(value, np.float64)
    rooted: Floats = np.sign(value) * np.sqrt(np.abs(value))
    return rooted


@dataclass(frozen=True)
class Observations:
    """Runs as the surface takes them; every array has a row a run.

    Attributes:
        points: [N, 2], log of p/n and noise rate.
        seeds: [N].
        values: [N], on the scale of `root`. Their mean over the seeds of a cell is the root of the cell's mean.
        noise: [N], variance over seeds at that point, on the same scale, estimated from its own cell and all others.
    """

    points: Floats
    seeds: Integers
    values: Floats
    noise: Floats

    @classmethod
    def of(
        cls, log_ratios: Sequence[float], rates: Sequence[float], seeds: Sequence[int], metric: Sequence[float]
    ) -> Observations:
        """From runs in any order, each (cell, seed) once; `metric` in its own unit, finite."""
        order = sorted(range(len(seeds)), key=lambda i: (rates[i], log_ratios[i], seeds[i]))
        points = np.array([(log_ratios[i], rates[i]) for i in order], np.float64).reshape(-1, 2)
        values = np.array([metric[i] for i in order], np.float64)
        cell = np.unique(points, axis=0, return_inverse=True)[1].reshape(-1)
        count = np.bincount(cell)
        mean = np.bincount(cell, values) / count
        rooted = root(values)
        deviations = rooted - (np.bincount(cell, rooted) / count)[cell]
        squares = np.bincount(cell, deviations**2)
        pooled = squares.sum() / max(1, (count - 1).sum())
        variance = (PRIOR_SEEDS * pooled + squares) / (PRIOR_SEEDS + count - 1)
        return cls(points, np.array([seeds[i] for i in order], np.int64), root(mean)[cell] + deviations, variance[cell])

    def thinned(self, most: int, level: float) -> Observations:
        """These with at most `most` rows, if there are cells enough to save on: of cells far from the level (on the
        scale of `root`) the mean over seeds stands for its runs. Time grows with the cube of the rows."""
        over = len(self.values) - most
        if over <= 0:
            return self
        cells, cell = np.unique(self.points, axis=0, return_inverse=True)
        cell = cell.reshape(-1)
        count = np.bincount(cell)
        means = np.bincount(cell, self.values) / count
        order = np.argsort(-np.abs(means - level), kind="stable")
        saved = np.cumsum(count[order] - 1)
        merged = order[: int(np.searchsorted(saved, over)) + 1]
        kept = ~np.isin(cell, merged)
        noise = np.bincount(cell, self.noise) / count
        return Observations(
            np.vstack([self.points[kept], cells[merged]]),
            np.append(self.seeds[kept], np.full(len(merged), MERGED_SEED)),
            np.append(self.values[kept], means[merged]),
            np.append(self.noise[kept], noise[merged] / count[merged]),
        )

    @property
    def has_several_seeds(self) -> bool:
        return len(np.unique(self.seeds)) > 1

    def and_run(self, point: Floats, seed: int, value: float, noise: float) -> Observations:
        """These, and one run more."""
        return Observations(
            np.vstack([self.points, point]),
            np.append(self.seeds, seed),
            np.append(self.values, value),
            np.append(self.noise, noise),
        )
