"""Where a metric crosses a threshold: one estimate of the phase boundary per noise rate, with a band over
seeds.

A Gaussian process over (log ratio, noise rate) smooths the cell means; its level set is the boundary. It is
an estimate between measured cells, and is to be drawn as one: dashed, with its band, and never beyond the
measured ratios.
"""

from __future__ import annotations

import warnings

import numpy as np
import polars as pl

GRID_POINTS = 512  # per noise rate; on two decades that is 0.01 in log(ratio), and crossings are interpolated within


FEWEST_CELLS = 4
"""Measured cells below which no boundary is fitted."""


def fit_boundary(
    runs: pl.DataFrame,
    metric: str,
    threshold: float,
    *,
    resamples: int = 100,
    confidence: float = 0.9,
    seed: int = 0,
) -> pl.DataFrame:
    """The ratios p/n between which `metric` exceeds `threshold`, for each measured noise rate.

    runs: one row per run, as `score_runs` gives them: noise_rate, ratio, seed and the metric; rows whose
    metric is null or not finite are left out. metric: a column of `runs`; threshold: in the metric's unit.

    Returns one row per noise rate: noise_rate, cells and seeds (how many were measured), state, metric, threshold,
    confidence, enter, enter_low, enter_high, exit, exit_low, exit_high. A curve need not be monotone: `enter` is the
    ratio where the metric first rises above the threshold, `exit` the one where it last falls below. `state` is "below"
    (never above: both null), "above" (nowhere below: both null) or "crosses" (where enter is null if the smallest
    measured ratio already lies above, and exit is null if the largest still does). low and high bound the central
    `confidence` of bootstrap resamples, null where that bound lies outside the measured ratios, or with one seed only.

    Method: anisotropic RBF plus white noise on sign(m) sqrt|m| of the cell means, both axes standardised.
    Seeds are resampled whole, the same draw for all cells: runs of one seed share data, masks and
    initialisation, so that errors of neighbouring cells are correlated and drawing each cell by itself would
    give a band that is too narrow. The hyperparameters are fitted once; with them fixed the smoother is a
    matrix, and every resample costs one product. The band therefore holds the spread over seeds, not the
    doubt about the Gaussian process itself.

    Raises ValueError on an unknown metric, and on fewer than four measured cells.
    """
    absent = {"noise_rate", "ratio", "seed", metric} - set(runs.columns)
    if absent:
        raise ValueError(
            f"runs lack the columns {', '.join(sorted(absent))}; they have {', '.join(sorted(runs.columns))}"
        )
    if not 0 < confidence < 1 or resamples < 1:
        raise ValueError(
            f"confidence is {confidence} and resamples is {resamples}; confidence must lie in (0, 1), resamples "
            "must be at least 1: 0.9 and 100 are the defaults"
        )
    measured = runs.filter(pl.col(metric).cast(pl.Float64).is_finite())
    by_seed = measured.group_by("noise_rate", "ratio", "seed").agg(pl.col(metric).cast(pl.Float64).mean())
    by_seed = by_seed.sort("seed", "noise_rate", "ratio")  # the draws go by column, so columns need a fixed order
    cells = by_seed.select("noise_rate", "ratio").unique().sort("noise_rate", "ratio")
    if cells.height < FEWEST_CELLS:
        raise ValueError(
            f"{metric} is measured in {cells.height} cells; a boundary needs at least "
            f"{FEWEST_CELLS}: run more ratios or noise rates"
        )
    table = cells.join(
        by_seed.pivot(on="seed", index=["noise_rate", "ratio"], values=metric),
        on=["noise_rate", "ratio"],
        maintain_order="left",
    )
    values = table.drop("noise_rate", "ratio").to_numpy().astype(np.float64)  # [cells, seeds], NaN where not measured
    rates, log_ratios = cells["noise_rate"].to_numpy(), np.log(cells["ratio"].to_numpy())
    has = ~np.isnan(values)
    several_seeds = bool((has.sum(axis=1) > 1).any())

    rows = np.unique(rates)
    grids = [np.linspace(log_ratios[rates == r].min(), log_ratios[rates == r].max(), GRID_POINTS) for r in rows]
    means = np.nanmean(values, axis=1)
    drawn = _resampled_means(values, means, resamples, seed)
    curves = _smooth(np.stack([log_ratios, rates], axis=1), np.column_stack([means, drawn]), rows, grids)
    level = float(_root(np.array(threshold)))

    result = []
    for i, rate in enumerate(rows):
        in_row = rates == rate
        enter, leave = _crossings(grids[i], curves[i], level)
        peak, dip = curves[i][:, 0].max(), curves[i][:, 0].min()
        state = "below" if peak <= level else "above" if dip > level else "crosses"
        row = {
            "noise_rate": float(rate),
            "cells": int(in_row.sum()),
            "seeds": int(has[in_row].sum(axis=1).max()),
            "state": state,
            "metric": metric,
            "threshold": threshold,
            "confidence": confidence,
        }
        for name, logs in (("enter", enter), ("exit", leave)):
            tail = (1 - confidence) / 2
            band = np.quantile(logs[1:], [tail, 1 - tail], method="nearest") if several_seeds else [np.nan, np.nan]
            for suffix, value in (("", logs[0]), ("_low", band[0]), ("_high", band[1])):
                row[name + suffix] = float(np.exp(value)) if np.isfinite(value) else None
        result.append(row)
    bounds = {f"{name}{suffix}": pl.Float64 for name in ("enter", "exit") for suffix in ("", "_low", "_high")}
    return pl.DataFrame(result, schema_overrides=bounds)


def _root(value: np.ndarray) -> np.ndarray:
    """The spread of an error grows with its size, and the root evens it out. Signed, as costs may be negative."""
    root: np.ndarray = np.sign(value) * np.sqrt(np.abs(value))
    return root


def _resampled_means(values: np.ndarray, means: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Cell means [cells, resamples] over seeds drawn with replacement; a cell none of whose seeds is drawn
    keeps its mean."""
    seeds = values.shape[1]
    draws = np.random.default_rng(seed).multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples).T
    weight = (~np.isnan(values)).astype(np.float64) @ draws
    total = np.nan_to_num(values) @ draws
    return np.where(weight > 0, total / np.maximum(weight, 1), means[:, None])


def _smooth(points: np.ndarray, means: np.ndarray, rows: np.ndarray, grids: list[np.ndarray]) -> list[np.ndarray]:
    """Posterior means on each row's grid, [grid, columns], for every column of `means` [cells, columns].

    The kernel is fitted to the first column. The posterior mean is linear in the data, so one matrix serves
    all columns.
    """
    from scipy.linalg import cho_factor, cho_solve
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    shift, scale = points.mean(axis=0), points.std(axis=0)
    scale[scale == 0] = 1.0
    data = _root(means)
    centre, spread = data[:, 0].mean(), data[:, 0].std() or 1.0
    inputs, targets = (points - shift) / scale, (data - centre) / spread
    kernel = ConstantKernel(1.0, (1e-2, 1e2)) * RBF((0.5, 0.5), (5e-2, 1e2)) + WhiteKernel(1e-2, (1e-6, 1.0))
    process = GaussianProcessRegressor(kernel)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", ConvergenceWarning
        )  # a scale at its bound is an answer: that axis does not matter
        process.fit(inputs, targets[:, 0])
    smooth = process.kernel_.k1  # without the white noise, which is no part of the curve
    weights = cho_solve(cho_factor(process.kernel_(inputs) + 1e-10 * np.eye(len(inputs))), targets)
    curves = []
    for rate, grid in zip(rows, grids, strict=True):
        at = (np.stack([grid, np.full(len(grid), rate)], axis=1) - shift) / scale
        curves.append(smooth(at, inputs) @ weights * spread + centre)
    return curves


def _crossings(grid: np.ndarray, curves: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Where each column of `curves` [grid, columns] enters and leaves the region above `level`, in units of
    the grid.

    Minus infinity: left of the grid; plus infinity: right of it. A curve that is never above enters at plus
    infinity and leaves at minus infinity, so that quantiles over resamples order themselves.
    """
    above = curves > level
    first = above.argmax(axis=0)
    last = len(grid) - 1 - above[::-1].argmax(axis=0)
    columns = np.arange(curves.shape[1])

    def between(left: np.ndarray) -> np.ndarray:
        right = np.minimum(left + 1, len(grid) - 1)
        low, high = curves[left, columns], curves[right, columns]
        share = np.where(high != low, (level - low) / np.where(high != low, high - low, 1.0), 0.0)
        crossing: np.ndarray = grid[left] + share * (grid[right] - grid[left])
        return crossing

    never = ~above.any(axis=0)
    enter = np.where(first == 0, -np.inf, between(np.maximum(first - 1, 0)))
    leave = np.where(last == len(grid) - 1, np.inf, between(last))
    return np.where(never, np.inf, enter), np.where(never, -np.inf, leave)
