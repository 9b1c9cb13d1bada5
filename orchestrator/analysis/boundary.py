"""Where a metric crosses a threshold: the phase boundary over noise rates, with a band over seeds.

A Gaussian process over (log ratio, noise rate) smooths the cell means; its level set is the boundary. It is
an estimate between measured cells, and is to be drawn as one: dashed, with its band, and never beyond the
measured ratios and rates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from orchestrator.analysis.blas import one_blas_thread
from orchestrator.analysis.observations import root
from orchestrator.analysis.surface import crossings, smooth

GRID_POINTS = 512  # per noise rate; on two decades that is 0.01 in log(ratio), and crossings are interpolated within
FEWEST_CELLS = 4
"""Measured cells below which no boundary is fitted."""
CURVE_RATES = 61
"""Noise rates of a curve, evenly between the lowest and the highest measured one; the measured ones are added."""


@one_blas_thread()
def fit_boundary(
    runs: pl.DataFrame,
    metric: str,
    threshold: float,
    *,
    rates: Sequence[float] | None = None,
    resamples: int = 100,
    confidence: float = 0.9,
    seed: int = 0,
) -> pl.DataFrame:
    """The ratios p/n between which `metric` exceeds `threshold`, for each of `rates`.

    runs: one row per run, as `score_runs` gives them: noise_rate, ratio, seed and the metric; rows whose
    metric is null or not finite are left out. metric: a column of `runs`; threshold: in the metric's unit. rates: noise
    rates within the measured ones, in any order; None for the measured ones themselves.

    Returns one row per noise rate, ascending: noise_rate, cells and seeds (how many were measured at that rate: 0
    between the measured ones), measured_low and measured_high (the ratios measured around that rate), state, metric,
    threshold, confidence, enter, enter_low, enter_high, exit, exit_low, exit_high. A curve need not be monotone:
    `enter` is the ratio where the metric first rises above the threshold, `exit` the one where it last falls below.
    `state` is "below" (never above: both null), "above" (nowhere below: both null), "crosses" (where enter is null if
    the smallest measured ratio already lies above, and exit is null if the largest still does) or "unmeasured" (no
    ratio is measured around that rate). low and high bound the central `confidence` of bootstrap resamples, null where
    that bound lies outside the measured ratios, or with one seed only.

    A ratio counts as measured around a noise rate where cells lie on all sides: one at a ratio as small and one as
    large, both among the cells at this rate or below it and among those at this rate or above it. On a grid these are
    the ratios of the grid; a cell beside the grid, at a rate of its own, takes nothing away.

    Method: anisotropic RBF plus white noise on sign(m) sqrt|m| of the cell means, both axes standardised.
    Seeds are resampled whole, the same draw for all cells: runs of one seed share data, masks and
    initialisation, so that errors of neighbouring cells are correlated and drawing each cell by itself would
    give a band that is too narrow. The hyperparameters are fitted once; with them fixed the smoother is a
    matrix, and every resample costs one product. The band therefore holds the spread over seeds, not the
    doubt about the Gaussian process itself.

    Raises ValueError on an unknown metric, on fewer than four measured cells, and on rates beyond the measured ones.
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
    cells, values = _by_seed(runs, metric)
    if cells.height < FEWEST_CELLS:
        raise ValueError(
            f"{metric} is measured in {cells.height} cells; a boundary needs at least "
            f"{FEWEST_CELLS}: run more ratios or noise rates"
        )
    measured_rates, log_ratios = cells["noise_rate"].to_numpy(), np.log(cells["ratio"].to_numpy())
    rows = np.unique(measured_rates if rates is None else np.asarray(rates, np.float64))
    lowest, highest = measured_rates.min(), measured_rates.max()
    if rows.size == 0 or rows[0] < lowest or rows[-1] > highest:
        raise ValueError(
            f"rates are {', '.join(f'{rate:g}' for rate in rows) or 'none'}; {metric} is measured between noise rates "
            f"{lowest:g} and {highest:g}: ask for rates within"
        )

    grids = [np.linspace(*_measured_around(rate, measured_rates, log_ratios), GRID_POINTS) for rate in rows]
    known = [i for i, grid in enumerate(grids) if np.isfinite(grid).all()]
    has = ~np.isnan(values)
    several_seeds = bool((has.sum(axis=1) > 1).any())
    means = np.nanmean(values, axis=1)
    drawn = _resampled_means(values, means, resamples, seed)
    points, data = np.stack([log_ratios, measured_rates], axis=1), np.column_stack([means, drawn])
    smoothed = dict(zip(known, smooth(points, data, rows[known], [grids[i] for i in known]), strict=True))
    level = float(root(threshold))

    result = []
    for i, (rate, grid) in enumerate(zip(rows, grids, strict=True)):
        curve = smoothed.get(i, np.full((GRID_POINTS, 1 + resamples), np.nan))
        here = measured_rates == rate
        row = {
            "noise_rate": float(rate),
            "cells": int(here.sum()),
            "seeds": int(has[here].sum(axis=1).max(initial=0)),
            "measured_low": _as_ratio(grid[0]),
            "measured_high": _as_ratio(grid[-1]),
            "state": _state(curve[:, 0], level),
            "metric": metric,
            "threshold": threshold,
            "confidence": confidence,
        }
        edges = crossings(grid, curve, level) if i in smoothed else (curve[0], curve[0])
        for name, logs in zip(("enter", "exit"), edges, strict=True):
            tail = (1 - confidence) / 2
            band = np.quantile(logs[1:], [tail, 1 - tail], method="nearest") if several_seeds else [np.nan, np.nan]
            for suffix, value in (("", logs[0]), ("_low", band[0]), ("_high", band[1])):
                row[name + suffix] = _as_ratio(value)
        result.append(row)
    bounds = {f"{name}{suffix}": pl.Float64 for name in ("enter", "exit") for suffix in ("", "_low", "_high")}
    return pl.DataFrame(result, schema_overrides=bounds | {"measured_low": pl.Float64, "measured_high": pl.Float64})


def curve_rates(runs: pl.DataFrame, metric: str) -> list[float]:
    """The noise rates of a boundary drawn as a curve: CURVE_RATES over the measured range, and the measured ones."""
    measured = runs.filter(pl.col(metric).cast(pl.Float64).is_finite())["noise_rate"].unique().to_numpy()
    dense = np.linspace(measured.min(), measured.max(), CURVE_RATES) if len(measured) else measured
    return [float(rate) for rate in np.union1d(dense, measured)]


def drawn_bands(boundary: pl.DataFrame) -> pl.DataFrame:
    """`boundary` with the ends of its bands as they are drawn: enter_from, enter_to, exit_from and exit_to, null where
    no bound is known.

    A bound beyond the measured ratios is drawn up to them. The upper bound of `enter` and the lower one of `exit` are
    also missing where, in so many resamples, the metric never rises above the threshold: the region between the two may
    vanish, and the band covers it up to the other estimate.
    """
    from_to = {
        "enter": ("enter_low", "measured_low", "enter_high", "exit", "measured_high"),
        "exit": ("exit_low", "enter", "measured_low", "exit_high", "measured_high"),
    }
    columns = []
    for name, chain in from_to.items():
        known = pl.any_horizontal(pl.col(f"{name}_low", f"{name}_high").is_not_null()) & pl.col(name).is_not_null()
        upper = chain.index(f"{name}_high")
        columns += [
            pl.when(known).then(pl.coalesce(chain[:upper])).alias(f"{name}_from"),
            pl.when(known).then(pl.coalesce(chain[upper:])).alias(f"{name}_to"),
        ]
    return boundary.with_columns(columns)


def _by_seed(runs: pl.DataFrame, metric: str) -> tuple[pl.DataFrame, np.ndarray]:
    """The measured cells (noise_rate, ratio), sorted, and their values, float64 [cells, seeds], NaN where there are
    none."""
    measured = runs.filter(pl.col(metric).cast(pl.Float64).is_finite())
    by_seed = measured.group_by("noise_rate", "ratio", "seed").agg(pl.col(metric).cast(pl.Float64).mean())
    by_seed = by_seed.sort("seed", "noise_rate", "ratio")  # the draws go by column, so columns need a fixed order
    cells = by_seed.select("noise_rate", "ratio").unique().sort("noise_rate", "ratio")
    table = cells.join(
        by_seed.pivot(on="seed", index=["noise_rate", "ratio"], values=metric),
        on=["noise_rate", "ratio"],
        maintain_order="left",
    )
    return cells, table.drop("noise_rate", "ratio").to_numpy().astype(np.float64)


def _measured_around(rate: float, rates: np.ndarray, log_ratios: np.ndarray) -> tuple[float, float]:
    """The lowest and highest log(ratio) that are measured around a noise rate; NaN where there are none.

    A point belongs to the orthogonal convex hull of the cells where each of its four closed quadrants holds a cell.
    """
    below, above = log_ratios[rates <= rate], log_ratios[rates >= rate]
    low, high = max(below.min(), above.min()), min(below.max(), above.max())
    return (float(low), float(high)) if low <= high else (float("nan"), float("nan"))


def _state(curve: np.ndarray, level: float) -> str:
    if np.isnan(curve[0]):
        return "unmeasured"
    return "below" if curve.max() <= level else "above" if curve.min() > level else "crosses"


def _as_ratio(log_ratio: float) -> float | None:
    return float(np.exp(log_ratio)) if np.isfinite(log_ratio) else None


def _resampled_means(values: np.ndarray, means: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Cell means [cells, resamples] over seeds drawn with replacement; a cell none of whose seeds is drawn
    keeps its mean."""
    seeds = values.shape[1]
    draws = np.random.default_rng(seed).multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples).T
    weight = (~np.isnan(values)).astype(np.float64) @ draws
    total = np.nan_to_num(values) @ draws
    return np.where(weight > 0, total / np.maximum(weight, 1), means[:, None])
