"""Means over seeds with their intervals, in long form: one row for each group and metric."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from orchestrator.analysis.intervals import mean_interval

CONFIDENCE = 0.95
"""Of the intervals of slices and comparisons."""


def seed_means(
    values: pl.DataFrame, by: Sequence[str], metrics: Sequence[str], *, confidence: float | None = CONFIDENCE
) -> pl.DataFrame:
    """One row for each group of `by` and metric in which something was measured, sorted by metric, then by group.

    values: columns `by`, `metrics` and seed, one row for each seed of a group. A null, NaN or infinite value is not
    measured: it has no part in the mean, and n says so.

    Columns: `by`, metric, mean, low, high (bounds of `mean_interval`; null below two seeds, and without a `confidence`,
    which is faster), n (UInt32).
    """
    known = values.select(*by, "seed", *(pl.col(name).cast(pl.Float64) for name in metrics))
    long = known.unpivot(on=metrics, index=[*by, "seed"], variable_name="metric")
    long = long.filter(pl.col("value").is_finite()).sort("metric", *by)
    groups = long.group_by("metric", *by, maintain_order=True).agg(
        mean=pl.col("value").mean(), n=pl.len().cast(pl.UInt32)
    )
    low, high = _intervals(long["value"].to_numpy(), groups["n"].to_numpy().astype(np.intp), confidence)
    bounds = pl.DataFrame({"low": low, "high": high}, schema={"low": pl.Float64, "high": pl.Float64})
    return pl.concat([groups, bounds.fill_nan(None)], how="horizontal").select(
        *by, "metric", "mean", "low", "high", "n"
    )


def _intervals(values: np.ndarray, counts: np.ndarray, confidence: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of each group's mean, NaN below two seeds; groups of `counts` values lie one after another."""
    starts = np.cumsum(counts) - counts
    low, high = np.full(len(counts), np.nan), np.full(len(counts), np.nan)
    if confidence is None:
        return low, high
    for n in np.unique(counts[counts > 1]):
        chosen = np.flatnonzero(counts == n)
        table = values[starts[chosen] + np.arange(n)[:, None]]
        low[chosen], high[chosen] = mean_interval(table, interval=confidence)
    return low, high
