"""Slices of a sweep along its axis: mean errors, where networks begin to fit, and paired contrasts of noise rates.

Tables only; which of them a sweep can show, and how they are drawn, is decided elsewhere.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import polars as pl

from orchestrator.analysis.definitions import CENSORED, EMC_ERROR, INTERPOLATION_ERROR, ROUNDING
from orchestrator.analysis.scores import CELL, SIZE, finite
from orchestrator.analysis.seed_means import CONFIDENCE, seed_means

FIT_LEVELS = {"interpolation": INTERPOLATION_ERROR, "emc": EMC_ERROR}
"""Train errors on the given labels at which a network counts as fitted: strictly, and in the sense of EMC."""
COUNTS = ("n_planned", "n_diverged")


def axis_size(axis: str) -> str:
    """The column that varies along an axis."""
    return "width" if axis == "width" else "samples"


def along_axis(
    cells: pl.DataFrame, runs: pl.DataFrame, metrics: Sequence[str], *, confidence: float = CONFIDENCE
) -> pl.DataFrame:
    """The means of `metrics` in every planned cell, by noise rate and ratio: one row for each cell and metric.

    cells: what `cell_table` gives. runs: what `score_runs` gives; runs outside of those cells are left out. Columns:
    CELL, parameters, ratio, metric, mean, low, high (null where fewer than two seeds), n (seeds in the mean, 0 and a
    null mean where none), n_planned, n_diverged. Times to fit are null unless all finished seeds got there: the mean of
    the others would look fast just where few do.
    """
    means = seed_means(_done(runs), CELL, metrics, confidence=confidence)
    parameters = runs.group_by("width").agg(pl.col("parameters").first())
    grid = cells.select(*CELL, "ratio", *COUNTS, finished="n").join(pl.DataFrame({"metric": metrics}), how="cross")
    table = grid.join(means, on=[*CELL, "metric"], how="left").join(parameters, on="width", how="left")
    some = pl.col("metric").is_in(CENSORED) & (pl.col("n") < pl.col("finished"))
    table = table.with_columns(pl.when(~some).then(pl.col(name)).alias(name) for name in ("mean", "low", "high"))
    return (
        table.with_columns(pl.col("n").fill_null(0))
        .select(*CELL, "parameters", "ratio", "metric", "mean", "low", "high", "n", *COUNTS)
        .sort("metric", "noise_rate", "ratio")
    )


def fit_thresholds(errors: pl.DataFrame, axis: str) -> pl.DataFrame:
    """Where networks begin to fit the given labels along the axis: a row for each noise rate and level of FIT_LEVELS.

    errors: rows of `along_axis` with metric "train_error_last". On axis width it is the smallest measured p whose mean
    final train error is at most the level; on axis samples the largest measured n: the effective model complexity of
    Nakkiran et al. 2020 (arXiv 1912.02292), definition 1, with eps = 0.1, as far as a grid can tell.

    Columns: noise_rate, level (name), train_error (the level), fitted, unfitted (width or samples: the threshold lies
    between the two; null where the measured cells end), ratio_fitted, ratio_unfitted, parameters, n (seeds at fitted),
    measured (cells), state: "bracketed", "all fit", "none fits" or "not measured"; returns, how many measured cells
    beyond the threshold do not fit again: where above 0, train error is not monotone and the threshold only the first.
    """
    size = axis_size(axis)
    known = errors.filter(pl.col("mean").is_not_null()).sort(size, descending=axis == "samples")
    rows = []
    for rate in errors["noise_rate"].unique().sort():
        steps = known.filter(pl.col("noise_rate") == rate).to_dicts()  # from the hardest to fit to the easiest
        for name, level in FIT_LEVELS.items():
            fits = [step["mean"] <= level + ROUNDING for step in steps]
            first = fits.index(True) if any(fits) else None
            at = steps[first] if first is not None else None
            before = steps[-1] if first is None and steps else steps[first - 1] if first else None
            state = "bracketed" if at and before else "all fit" if at else "none fits" if steps else "not measured"
            rows.append(
                {
                    "noise_rate": rate,
                    "level": name,
                    "train_error": level,
                    "fitted": at[size] if at else None,
                    "unfitted": before[size] if before else None,
                    "ratio_fitted": at["ratio"] if at else None,
                    "ratio_unfitted": before["ratio"] if before else None,
                    "parameters": at["parameters"] if at else None,
                    "n": at["n"] if at else 0,
                    "measured": len(steps),
                    "state": state,
                    "returns": fits[first:].count(False) if first is not None else 0,
                }
            )
    types: dict[str, type[pl.DataType]] = dict.fromkeys(("fitted", "unfitted", "parameters"), pl.Int64)
    types |= dict.fromkeys(("ratio_fitted", "ratio_unfitted"), pl.Float64)
    return pl.DataFrame(rows, schema_overrides=types)


def contrasts(
    cells: pl.DataFrame, runs: pl.DataFrame, *, metric: str = "err_last", confidence: float = CONFIDENCE
) -> pl.DataFrame:
    """Paired differences of a metric between noise rates, in every planned width and number of samples.

    Each rate is held against the next lower one ("neighbour") and against rate 0 ("clean", where that is planned),
    seed by seed: runs of one seed, width and n share subset, initialisation and order, and their masks are nested
    (common random numbers), so that most of the spread over seeds cancels. A pair counts where both runs are done and
    their subsets have the same hash.

    Columns: against ("neighbour" or "clean"), noise_rate, from_rate, SIZE, ratio, metric, mean (of metric at noise_rate
    minus metric at from_rate), low, high, n (pairs), unpaired (finished runs at noise_rate without a partner).
    """
    rates = cells["noise_rate"].unique().sort().to_list()
    steps = [("neighbour", high, low) for low, high in itertools.pairwise(rates)]
    steps += [("clean", rate, 0.0) for rate in rates if rate > 0 and 0.0 in rates]
    known = _done(runs).filter(finite(pl.col(metric)).is_not_null()).select(*CELL, "seed", "subset_hash", metric)
    parts = []
    for against, rate, from_rate in steps:
        base = known.filter(pl.col("noise_rate") == from_rate).drop("noise_rate")
        pairs = known.filter(pl.col("noise_rate") == rate).join(
            base, on=[*SIZE, "seed", "subset_hash"], how="left", suffix="_from", nulls_equal=True
        )
        pairs = pairs.with_columns((pl.col(metric) - pl.col(f"{metric}_from")).alias(metric))
        means = seed_means(pairs, SIZE, [metric], confidence=confidence)
        alone = pairs.group_by(SIZE).agg(unpaired=pl.col(metric).is_null().sum().cast(pl.UInt32))
        here = cells.filter(pl.col("noise_rate") == rate).select(*SIZE, "ratio")
        table = here.join(means.drop("metric"), on=SIZE, how="left").join(alone, on=SIZE, how="left")
        parts.append(
            table.with_columns(pl.col("n", "unpaired").fill_null(0)).select(
                pl.lit(against).alias("against"),
                pl.lit(rate).alias("noise_rate"),
                pl.lit(from_rate).alias("from_rate"),
                *SIZE,
                "ratio",
                pl.lit(metric).alias("metric"),
                *("mean", "low", "high", "n", "unpaired"),
            )
        )
    return pl.concat(parts).sort("against", "noise_rate", "ratio")


def telling_sizes(thresholds: pl.DataFrame, sizes: Sequence[int], axis: str) -> list[tuple[int, str]]:
    """The few widths (or sample counts) that learning curves are shown at: (value, why), ascending in p/n.

    The smallest p/n, the first that interpolates the highest noise rate (else the first that fits it in the sense of
    EMC, else the middle one), and the largest p/n; each once.
    """
    ordered = sorted(sizes, reverse=axis == "samples")
    highest = thresholds.filter(pl.col("noise_rate") == thresholds["noise_rate"].max())
    found = dict(highest.select("level", "fitted").iter_rows())
    middle = next(
        (
            (found[level], text)
            for level, text in (("interpolation", "first to interpolate"), ("emc", "first at train error 0.1"))
            if found.get(level) is not None
        ),
        (ordered[len(ordered) // 2], "middle"),
    )
    chosen = {middle[0]: middle[1], ordered[0]: "smallest p/n", ordered[-1]: "largest p/n"}
    if len(ordered) == 1:
        chosen = {ordered[0]: "the only one"}
    if middle[0] in (ordered[0], ordered[-1]) and middle[1] != "middle" and len(ordered) > 1:
        chosen[middle[0]] += f", {middle[1]}"
    return [(size, chosen[size]) for size in ordered if size in chosen]


def _done(runs: pl.DataFrame) -> pl.DataFrame:
    return runs.filter(pl.col("status") == "done")
