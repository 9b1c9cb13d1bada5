"""Two sweeps on their common cells: the difference of each metric, paired by seed where the runs allow it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import polars as pl

from orchestrator.analysis.definitions import CENSORED
from orchestrator.analysis.intervals import mean_interval
from orchestrator.analysis.scores import CELL
from orchestrator.analysis.seed_means import CONFIDENCE

Rule = Literal["size", "ratio"]
RULES: dict[str, str] = {
    "size": "same noise rate, width and number of samples",
    "ratio": "same noise rate and realised p/n",
}
DATA = ("dataset", "dataset_version")
ROUNDING = 1e-12
"""Relative distance below which two computed ratios are the same number."""


def match_cells(a: pl.DataFrame, b: pl.DataFrame, rule: Rule, *, tolerance: float = 0.0) -> pl.DataFrame:
    """Cells of both sweeps side by side: noise_rate, width_a, samples_a, ratio_a, width_b, samples_b, ratio_b, ratio
    (that of A, where A has the cell) and place (1, 2, ...: cells of one place are the same but for their noise rate).

    a, b: what `cell_table` gives. One row for each common cell, and one for each that only one of them plans, with
    nulls on the other side; sorted by noise rate and ratio. Under "ratio", `tolerance` is the largest relative distance
    of two p/n that still count as one, and each cell has the nearest partner.

    Raises:
        ValueError: under "ratio", several cells of one sweep claim the same cell of the other.
    """
    left, right = (
        cells.select(*CELL, "ratio").unique().rename({name: f"{name}_{side}" for name in ("width", "samples", "ratio")})
        for cells, side in ((a, "a"), (b, "b"))
    )
    if rule == "size":
        keys = left.with_columns(width=pl.col("width_a"), samples=pl.col("samples_a"))
        other = right.with_columns(width=pl.col("width_b"), samples=pl.col("samples_b"))
        joined = keys.join(other, on=list(CELL), how="full", coalesce=True).drop("width", "samples")
    else:
        joined = _by_ratio(left, right, max(tolerance, ROUNDING))
    both = {name: pl.coalesce(f"{name}_a", f"{name}_b") for name in ("ratio", "width", "samples")}
    same = [both["ratio"].round_sig_figs(12), *((both["width"], both["samples"]) if rule == "size" else ())]
    return (
        joined.select("noise_rate", *(f"{name}_{side}" for side in "ab" for name in ("width", "samples", "ratio")))
        .with_columns(ratio=both["ratio"], place=pl.struct(same).rank("dense"))
        .sort("noise_rate", "place")
    )


def _by_ratio(left: pl.DataFrame, right: pl.DataFrame, tolerance: float) -> pl.DataFrame:
    apart = (pl.col("ratio_b") / pl.col("ratio_a") - 1).abs()
    near = left.join(right, on="noise_rate").with_columns(apart=apart).filter(pl.col("apart") <= tolerance)
    cell = ["noise_rate", "width_a", "samples_a"]
    pairs = near.sort("apart").unique(cell, keep="first", maintain_order=True)
    claimed = pairs.filter(pl.struct("noise_rate", "width_b", "samples_b").is_duplicated())
    if claimed.height:
        row = claimed.sort("noise_rate", "ratio_b").row(0, named=True)
        raise ValueError(
            f"several cells of the first sweep are within {tolerance:g} of p/n {row['ratio_b']:.4g} of the second, at "
            f"noise rate {row['noise_rate']:g}; a cell has one partner: choose a smaller tolerance"
        )
    alone_a = left.join(pairs, on=cell, how="anti")
    alone_b = right.join(pairs, on=["noise_rate", "width_b", "samples_b"], how="anti")
    return pl.concat([pairs.drop("apart"), alone_a, alone_b], how="diagonal")


def differences(
    matched: pl.DataFrame,
    runs_a: pl.DataFrame,
    runs_b: pl.DataFrame,
    metrics: Sequence[str],
    *,
    same_noise: bool,
    same_data: bool = True,
    confidence: float = CONFIDENCE,
) -> pl.DataFrame:
    """B minus A for each metric in each common cell of `matched`, with the interval of the mean difference.

    runs_a, runs_b: what `score_runs` gives; runs that are done count. same_noise: whether both sweeps corrupt labels by
    the same model (a hash of a mask says which examples are corrupted, and not what their labels became). same_data:
    whether both take their data set with the same options, such as its signal.

    interval is "paired" where at least two seeds finished in both sweeps, and all seeds in both have the same data set,
    mask and subset: then common random numbers make the pair, the mean is over pairs, and the interval that of
    `mean_interval`. Else "Welch": all seeds of either side, and the interval of Welch's t (Welch 1947, Biometrika 34).
    "none" where a side has fewer than two seeds: a difference of means without an interval.

    Columns: those of `matched`, metric, mean_a, mean_b (over the seeds that count), difference (B - A), low, high, n_a,
    n_b, interval, decided (whether the interval excludes 0; false without one). All null where a side has no finished
    run with a value; times to fit count only where all finished seeds got there.
    """
    from scipy import stats

    sides = {"a": _by_cell(runs_a), "b": _by_cell(runs_b)}
    rows = []
    for cell in matched.filter(pl.col("width_a").is_not_null(), pl.col("width_b").is_not_null()).to_dicts():
        seeds = [
            sides[side].get((cell["noise_rate"], cell[f"width_{side}"], cell[f"samples_{side}"]), {}) for side in "ab"
        ]
        for metric in metrics:
            values_a, values_b = (_values(side, metric) for side in seeds)
            row = {**cell, "metric": metric, "n_a": len(values_a), "n_b": len(values_b), "interval": "none"}
            common = sorted(set(values_a) & set(values_b))
            paired = (same_data and len(common) > 1) and all(
                _share(seeds[0][seed], seeds[1][seed], noisy=cell["noise_rate"] > 0, same_noise=same_noise)
                for seed in common
            )
            if paired:
                row |= {"n_a": len(common), "n_b": len(common), "interval": "paired"}
                values_a, values_b = ({seed: side[seed] for seed in common} for side in (values_a, values_b))
            if values_a and values_b:
                one, two = np.array(list(values_a.values())), np.array(list(values_b.values()))
                row |= {"mean_a": one.mean(), "mean_b": two.mean(), "difference": two.mean() - one.mean()}
                if paired:
                    low, high = mean_interval((two - one)[:, None], interval=confidence)
                    row |= {"low": float(low[0]), "high": float(high[0])}
                elif min(len(one), len(two)) > 1:
                    half = _welch(one, two, confidence, stats)
                    row |= {"interval": "Welch", "low": row["difference"] - half, "high": row["difference"] + half}
            rows.append(row)
    floats = ("mean_a", "mean_b", "difference", "low", "high")
    added: dict[str, Any] = {"metric": pl.String, **dict.fromkeys(floats, pl.Float64)}
    added |= {"n_a": pl.UInt32, "n_b": pl.UInt32, "interval": pl.String}
    schema = {**matched.schema, **added}
    table = pl.DataFrame(rows, schema=schema)
    excludes = (pl.col("low") > 0) | (pl.col("high") < 0)
    return table.with_columns(decided=excludes.fill_null(False))


def _by_cell(runs: pl.DataFrame) -> dict[tuple[float, int, int], dict[int, dict[str, object]]]:
    """Finished runs by cell and seed."""
    found: dict[tuple[float, int, int], dict[int, dict[str, object]]] = {}
    for run in runs.filter(pl.col("status") == "done").sort("seed").to_dicts():
        found.setdefault((run["noise_rate"], run["width"], run["samples"]), {})[run["seed"]] = run
    return found


def _values(seeds: dict[int, dict[str, object]], metric: str) -> dict[int, float]:
    known = {seed: run[metric] for seed, run in seeds.items()}
    values = {seed: float(value) for seed, value in known.items() if value is not None and np.isfinite(value)}  # type: ignore[call-overload, arg-type]
    return {} if metric in CENSORED and len(values) < len(known) else values


def _share(a: dict[str, object], b: dict[str, object], *, noisy: bool, same_noise: bool) -> bool:
    """Whether two runs of one seed were given the same examples with the same labels."""
    hashes = ("subset_hash", "mask_hash")
    known = all(run[name] is not None for run in (a, b) for name in hashes)
    return known and all(a[name] == b[name] for name in (*DATA, *hashes)) and (same_noise or not noisy)


def _welch(one: np.ndarray, two: np.ndarray, confidence: float, stats: object) -> float:
    """Half the width of Welch's interval of a difference of means; 0 where neither side varies."""
    parts = np.array([side.var(ddof=1) / len(side) for side in (one, two)])
    if parts.sum() == 0:
        return 0.0
    freedom = parts.sum() ** 2 / (parts**2 / [len(one) - 1, len(two) - 1]).sum()
    return float(stats.t.ppf((1 + confidence) / 2, freedom) * np.sqrt(parts.sum()))  # type: ignore[attr-defined]
