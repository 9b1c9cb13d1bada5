"""A metric as a smooth surface over (log p/n, noise rate): a Gaussian process that knows its own doubt.

Errors stand on the scale sign(m) sqrt|m| (`root`), since their spread grows with their size. The model of one run's
value at x, in the standardised scale, is

    y = f(x) + g(x, seed) + noise,

with f the curve that many seeds would average to, and g what one seed adds to all cells near x: runs of a seed share
data, noise mask and order, so their errors are correlated from cell to cell (0.7 to 0.9 between neighbours of the
Gaussian mixture). Without g, ten cells of the same three seeds would count as thirty independent runs. Both have an
anisotropic RBF kernel (Rasmussen & Williams, Gaussian Processes for Machine Learning, 2006, ch. 2 and 5).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from orchestrator.analysis.observations import Floats, Integers, Observations, root

ANY_SEED, OWN_SEED = 1e9, 1e-3
"""Length scales along the axis of seeds: of f, for which all seeds are one, and of g, where none is like another."""
JITTER = 1e-8
"""Added to the diagonal of covariances that are factored, in standardised units."""
MOST_FITTED = 250
"""Runs that hyperparameters are fitted to; with more, as many of them at even distances. All count for the surface."""


@dataclass(frozen=True)
class Surface:
    """The posterior of f given `observations`. Points are [P, 2] as theirs; what comes out is on the scale of `root`.

    `kernel_f`, `kernel_g` (None with one seed only) and `white` are fitted, in standardised units: points less `shift`
    over `scale`, values less `centre` over `spread`.
    """

    observations: Observations
    shift: Floats
    scale: Floats
    centre: float
    spread: float
    kernel_f: Any
    kernel_g: Any
    white: float

    def mean_and_doubt(self, points: Floats) -> tuple[Floats, Floats]:
        """Posterior mean and standard deviation of f, [P] each."""
        x = self._inputs(points)
        cross = self.kernel_f(x, self._x)
        inner = self._whiten(cross)
        variance = self.kernel_f.diag(x) - (inner**2).sum(axis=0)
        mean: Floats = cross @ self._weights
        return mean * self.spread + self.centre, np.sqrt(np.maximum(variance, 0.0)) * self.spread

    def draws(self, points: Floats, count: int, seed: int = 0) -> Floats:
        """Curves from the posterior of f, [P, count]; the same normal draws for any number of points."""
        x = self._inputs(points)
        cross = self.kernel_f(x, self._x)
        inner = self._whiten(cross)
        covariance = self.kernel_f(x) - inner.T @ inner
        values, vectors = np.linalg.eigh(covariance)
        normal = np.random.default_rng(seed).standard_normal((len(points), count))
        moved = vectors @ (np.sqrt(np.maximum(values, 0.0))[:, None] * normal)
        curves: Floats = ((cross @ self._weights)[:, None] + moved) * self.spread + self.centre
        return curves

    def doubt_between_cells(self, points: Floats) -> Floats:
        """The standard deviation of f at `points` that would be left if all measured cells had endless seeds, [P]."""
        from scipy.linalg import solve_triangular

        cells = self._inputs(np.unique(self.observations.points, axis=0))
        x = self._inputs(points)
        factor = np.linalg.cholesky(self.kernel_f(cells) + (self.white + JITTER) * np.eye(len(cells)))
        inner = solve_triangular(factor, self.kernel_f(cells, x), lower=True)
        variance = self.kernel_f.diag(x) - (inner**2).sum(axis=0)
        doubt: Floats = np.sqrt(np.maximum(variance, 0.0)) * self.spread
        return doubt

    def gains(self, at: Floats, points: Floats, seeds: Integers, noise: Floats) -> Floats:
        """By how much one more run, at each of `points` [P, 2] with its seed and noise [P], would lower the variance of
        f at the one point `at` [2]; [P], variance."""
        x, z = self._inputs(at[None, :]), self._inputs(points, seeds)
        inner_x, inner_z = self._whiten(self.kernel_f(x, self._x)), self._whiten(self._of_runs(z, self._x))
        shared = self.kernel_f(x, z)[0] - inner_x[:, 0] @ inner_z
        own = _own_noise(noise, self.kernel_g is not None) / self.spread**2
        spread = own + self.white + JITTER - (inner_z**2).sum(axis=0)
        spread += self.kernel_f.diag(z) + (self.kernel_g.diag(z) if self.kernel_g is not None else 0.0)
        gained: Floats = shared**2 / spread * self.spread**2
        return gained

    def believing(self, point: Floats, seed: int, noise: float) -> Surface:
        """The surface as if a run at `point` [2] had come out as expected: the mean stays, the doubt shrinks (the
        kriging believer of Ginsbourger, Le Riche & Carraro, 2010)."""
        x = self._inputs(point[None, :], np.array([seed]))
        expected = float((self._of_runs(x, self._x) @ self._weights)[0]) * self.spread + self.centre
        return replace(self, observations=self.observations.and_run(point, seed, expected, noise))

    @property
    def usual_noise(self) -> float:
        """Variance over seeds of a cell of which nothing is known yet."""
        return float(np.mean(self.observations.noise))

    def _inputs(self, points: Floats, seeds: Integers | None = None) -> Floats:
        scaled = (points - self.shift) / self.scale
        return np.column_stack([scaled, np.zeros(len(points)) if seeds is None else seeds])

    def _of_runs(self, a: Floats, b: Floats) -> Floats:
        """Covariance of what runs at `a` and `b` give, but for their noise."""
        shared: Floats = self.kernel_f(a, b)
        return shared if self.kernel_g is None else shared + self.kernel_g(a, b)

    @cached_property
    def _x(self) -> Floats:
        return self._inputs(self.observations.points, self.observations.seeds)

    @cached_property
    def _process(self) -> Any:
        """scikit-learn's posterior with the hyperparameters that were fitted."""
        from sklearn.gaussian_process import GaussianProcessRegressor

        kernel = self.kernel_f if self.kernel_g is None else self.kernel_f + self.kernel_g
        alpha = _own_noise(self.observations.noise, self.kernel_g is not None) / self.spread**2 + self.white + JITTER
        process = GaussianProcessRegressor(kernel, alpha=alpha, optimizer=None)
        return process.fit(self._x, (self.observations.values - self.centre) / self.spread)

    @property
    def _weights(self) -> Floats:
        weights: Floats = self._process.alpha_
        return weights

    def _whiten(self, cross: Floats) -> Floats:
        """L^-1 cross', with L L' the covariance of the observations; [N, P] from [P, N]."""
        from scipy.linalg import solve_triangular

        inner: Floats = solve_triangular(self._process.L_, cross.T, lower=True)
        return inner


SHARED_NOISE = 0.5
"""Share of the spread over seeds that counts as each run's own where g may take the rest."""


def _own_noise(noise: Floats, has_shared: bool) -> Floats:
    return noise * (1 - SHARED_NOISE) if has_shared else noise


def fit_surface(observations: Observations) -> Surface:
    """Fit the hyperparameters by maximum likelihood; deterministic, and the same for any order of runs.

    Raises ValueError on fewer than two runs.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    if len(observations.values) < 2:
        raise ValueError(f"a surface needs at least two runs; there are {len(observations.values)}")
    shift, scale, centre, spread = _standards(observations.points, observations.values)
    several = observations.has_several_seeds
    kernel = ConstantKernel(1.0, (1e-2, 1e2)) * RBF(
        (0.5, 0.5, ANY_SEED), ((5e-2, 1e2), (5e-2, 1e2), (ANY_SEED, ANY_SEED))
    )
    usual = float(np.mean(observations.noise)) / spread**2
    if several:
        kernel += ConstantKernel(max(SHARED_NOISE * usual, 2e-6), (1e-6, 1.0)) * RBF(
            (2.0, 2.0, OWN_SEED), ((0.2, 1e2), (0.2, 1e2), (OWN_SEED, OWN_SEED))
        )
    kernel += WhiteKernel(1e-3, (1e-6, 1.0))
    chosen = np.unique(np.linspace(0, len(observations.values) - 1, MOST_FITTED).astype(int))
    inputs = np.column_stack([(observations.points - shift) / scale, observations.seeds])
    alpha = _own_noise(observations.noise, several) / spread**2 + JITTER
    process = GaussianProcessRegressor(kernel, alpha=alpha[chosen])
    with warnings.catch_warnings():  # a scale at its bound is an answer: that axis does not matter
        warnings.simplefilter("ignore", ConvergenceWarning)
        process.fit(inputs[chosen], ((observations.values - centre) / spread)[chosen])
    parts = process.kernel_.k1
    return Surface(
        observations,
        shift,
        scale,
        centre,
        spread,
        kernel_f=parts.k1 if several else parts,
        kernel_g=parts.k2 if several else None,
        white=float(process.kernel_.k2.noise_level),
    )


def smooth(points: Floats, means: Floats, rows: Floats, grids: Sequence[Floats]) -> list[Floats]:
    """Posterior means on each row's grid, [grid, columns], for every column of cell means [cells, columns].

    points: [cells, 2], log of p/n and noise rate. rows: a noise rate each, with its grid of log p/n. For resamples over
    seeds, which have the same cells: the kernel, one RBF and white noise, is fitted to the first column, and with it
    fixed the posterior mean is linear in the data.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    data = root(means)
    shift, scale, centre, spread = _standards(points, data[:, 0])
    inputs, targets = (points - shift) / scale, (data - centre) / spread
    kernel = ConstantKernel(1.0, (1e-2, 1e2)) * RBF((0.5, 0.5), (5e-2, 1e2)) + WhiteKernel(1e-2, (1e-6, 1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = GaussianProcessRegressor(kernel).fit(inputs, targets[:, 0])
    process = GaussianProcessRegressor(fitted.kernel_, optimizer=None).fit(inputs, targets)
    curves = []
    for rate, grid in zip(rows, grids, strict=True):
        at = (np.column_stack([grid, np.full(len(grid), rate)]) - shift) / scale
        curves.append(process.predict(at).reshape(len(grid), -1) * spread + centre)
    return curves


def _standards(points: Floats, values: Floats) -> tuple[Floats, Floats, float, float]:
    """Shift and scale of the axes, centre and spread of the values; a spread of zero counts as one."""
    scale = points.std(axis=0)
    return points.mean(axis=0), np.where(scale == 0, 1.0, scale), float(values.mean()), float(values.std()) or 1.0


def crossings(grid: Floats, curves: Floats, level: float) -> tuple[Floats, Floats]:
    """Where each column of `curves` [grid, columns] enters and leaves the region above `level`, in units of the grid.

    Minus infinity: left of the grid; plus infinity: right of it. A curve that is never above enters at plus infinity
    and leaves at minus infinity, so that quantiles over columns order themselves.
    """
    above = curves > level
    first = above.argmax(axis=0)
    last = len(grid) - 1 - above[::-1].argmax(axis=0)
    columns = np.arange(curves.shape[1])

    def between(left: npt.NDArray[np.intp]) -> Floats:
        right = np.minimum(left + 1, len(grid) - 1)
        low, high = curves[left, columns], curves[right, columns]
        share = np.where(high != low, (level - low) / np.where(high != low, high - low, 1.0), 0.0)
        crossing: Floats = grid[left] + share * (grid[right] - grid[left])
        return crossing

    never = ~above.any(axis=0)
    enter = np.where(first == 0, -np.inf, between(np.maximum(first - 1, 0)))
    leave = np.where(last == len(grid) - 1, np.inf, between(last))
    return np.where(never, np.inf, enter), np.where(never, -np.inf, leave)
