"""Learning curves: means over seeds at every evaluation, and what stopping early would have gained.

A number that was not measured is null. Epochs are passes over the data, or flow time under gradient flow, whose limit
stands at +infinity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from orchestrator.analysis.definitions import ROUNDING
from orchestrator.analysis.scores import CELL, finite
from orchestrator.analysis.seed_means import CONFIDENCE, seed_means

if TYPE_CHECKING:
    from orchestrator.ledger import Ledger

OF_RUN = ("run_id", *CELL, "ratio", "seed")
OF_CELL = (*CELL, "ratio")


def read_curves(ledger: Ledger, runs: pl.DataFrame, measured: Sequence[str]) -> pl.DataFrame:
    """The evaluations of the finished runs among `runs`: OF_RUN, evaluation, epoch and `measured`, by cell and seed.

    runs: what `score_runs` gives; only those with status "done" count. measured: columns of the epoch rows; no others
    are read.

    Raises:
        DamagedPartsError: naming every damaged file.
    """
    from orchestrator.parts import consistently

    needed = ["run_id", "evaluation", "epoch", *measured]
    rows = consistently(lambda: ledger.snapshot(needed).rows().select(needed).collect(engine="streaming"))
    done = runs.filter(pl.col("status") == "done").select(OF_RUN)
    return rows.join(done, on="run_id", how="inner").sort(*CELL, "seed", "evaluation")


def mean_curves(curves: pl.DataFrame, metrics: Sequence[str], *, confidence: float | None = CONFIDENCE) -> pl.DataFrame:
    """One row for each cell, evaluation and metric: OF_CELL, evaluation, epoch, metric, mean, low, high, n, finished.

    curves: what `read_curves` gives. n: seeds with a finite value there; finished: seeds of the cell. The mean and its
    interval are null wherever n is below finished: once the first seed stops early, the mean of the others would jump
    by who is left and not by what is learned. A metric without any value in a cell (recovered at noise rate 0) has no
    rows there. Without a `confidence` there are no intervals, which is faster.

    Raises:
        ValueError: seeds of one cell were evaluated at different epochs, so that they have no common curve.
    """
    at = [*OF_CELL, "evaluation"]
    seeds = curves.group_by(OF_CELL).agg(finished=pl.col("seed").n_unique())
    epochs = curves.group_by(at).agg(epoch=pl.col("epoch").min(), latest=pl.col("epoch").max())
    apart = epochs.filter(pl.col("latest") > pl.col("epoch") + ROUNDING)
    if apart.height:
        row = apart.sort(at).row(0, named=True)
        raise ValueError(
            f"seeds at noise rate {row['noise_rate']:g}, width {row['width']}, samples {row['samples']} have "
            f"evaluation {row['evaluation']} at epochs {row['epoch']:g} to {row['latest']:g}; a mean curve needs the "
            "same epochs: launch them with one recipe and one evaluation"
        )
    means = seed_means(curves, at, metrics, confidence=confidence)
    grid = epochs.drop("latest").join(means.select(*OF_CELL, "metric").unique(), on=OF_CELL)
    table = grid.join(means, on=[*at, "metric"], how="left").join(seeds, on=OF_CELL)
    whole = pl.col("n") == pl.col("finished")
    return (
        table.with_columns(pl.col("n").fill_null(0))
        .with_columns(pl.when(whole).then(pl.col(name)).alias(name) for name in ("mean", "low", "high"))
        .select(*at, "epoch", "metric", "mean", "low", "high", "n", "finished")
        .sort(*CELL, "metric", "evaluation")
    )


def stopping_gains(
    curves: pl.DataFrame, metrics: Sequence[str], *, final_evaluations: int = 1, confidence: float = CONFIDENCE
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What an oracle's early stopping gains over training to the end, for each run, and its mean for each cell.

    curves: what `read_curves` gives, with `metrics` among its columns. Last is the mean of the final
    `final_evaluations` values, best the lowest finite value; gain = last - best, null where last is not finite.

    Returns (by run: OF_RUN, metric, best, epoch_best (the first epoch with it), last, gain; by cell: OF_CELL, metric,
    then mean, low, high and n of the gain, and best and last, the means over the same seeds).
    """
    ordered = curves.sort("run_id", "evaluation")
    runs, cells = [], []
    for metric in metrics:
        value = finite(pl.col(metric).cast(pl.Float64))
        lowest = value.arg_min()
        by_run = ordered.group_by(OF_RUN, maintain_order=True).agg(
            metric=pl.lit(metric),
            best=value.get(lowest, null_on_oob=True),
            epoch_best=pl.col("epoch").get(lowest, null_on_oob=True),
            last=pl.when(pl.len() >= final_evaluations).then(pl.col(metric).tail(final_evaluations).mean()),
        )
        by_run = by_run.with_columns(gain=finite(pl.col("last") - pl.col("best")))
        counted = by_run.filter(pl.col("gain").is_not_null())
        means = seed_means(
            counted.select(*OF_CELL, "seed", pl.col("gain").alias(metric)), OF_CELL, [metric], confidence=confidence
        )
        ends = counted.group_by(OF_CELL).agg(pl.col("best", "last").mean())
        runs.append(by_run)
        cells.append(means.join(ends, on=OF_CELL, how="left"))
    return pl.concat(runs), pl.concat(cells)
