"""From the curve of each run to its scores: one row for each run, with every metric.

A number that was not measured is null, never 0.0, and NaN or infinity never enters a mean. Errors are fractions in
[0, 1]; losses are in nats (half squared error under gradient flow); epochs are passes over the data (flow time under
gradient flow).
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from orchestrator.analysis.definitions import INTERPOLATION_ERROR, ROUNDING
from orchestrator.analysis.run_metrics import LAST_OF, NEEDED_MEASURED, summarise_runs

RECIPE = ("optimizer", "learning_rate_base", "batch_size", "epochs", "weight_decay", "augmentation")
TASK = ("dataset", "architecture", "classes", "signal", *RECIPE)
WHERE_KNOWN = ("dataset_version", "recipe")  # the ledger's full recipe (JSON), beside its most telling parts
SIZE = ("width", "samples")
CELL = ("noise_rate", "width", "samples")


MEASURED = (  # columns of the ledger that vary along a run; everything else describes the run
    *("attempt", "evaluation", "step", "epoch"),
    *("train_loss_given", "train_error_given", "train_loss_true", "train_error_true"),
    *("clean_loss", "clean_error", "corrupted_loss_given", "corrupted_error_given", "memorised", "recovered"),
    *("val_loss", "val_error", "test_loss", "test_error", "excess_risk"),
    *("batch_loss", "learning_rate", "images_per_second", "wall_seconds", "peak_memory_bytes"),
)
NEEDED_RUN = (
    "run_id",
    "axis",
    "ratio",
    "noise_model",
    "noise_rate",
    "noise_rate_realised",
    "status",
    "seed",
    *SIZE,
    *TASK,
)
ENDED = ("run_id", "status", "mask_hash", "subset_hash", "noise_rate_realised", "pack_size")
"""Columns of the ledger's ends that describe a run."""


def run_table(evaluations: pl.DataFrame, *, final_evaluations: int = 1) -> pl.DataFrame:
    """`score_runs` of a tidy table, as `Ledger.load` gives it: one row per run and evaluation, each with its run's
    hyperparameters and status.

    A run that never got as far as an evaluation may stand there as one row whose measured columns are null. Rows may
    come in any order. For tables of any size, give `score_runs` the summaries of a scan.

    Raises ValueError as `score_runs`, and on missing columns and a (run, evaluation) that occurs twice.
    """
    need(evaluations, (*NEEDED_RUN, "evaluation", *NEEDED_MEASURED), "evaluations")
    ordered = evaluations.sort("run_id", "evaluation")
    _refuse_repeated(ordered)
    runs = ordered.select(pl.exclude(set(MEASURED))).unique("run_id", keep="last", maintain_order=True)
    rows = ordered.lazy().filter(pl.col("evaluation").is_not_null())
    summaries = summarise_runs(rows, final_evaluations=final_evaluations)
    return _score(runs.join(summaries, on="run_id", how="left", maintain_order="left"), final_evaluations)


def score_runs(
    summaries: pl.DataFrame, runs: pl.DataFrame, ends: pl.DataFrame, *, final_evaluations: int = 1
) -> pl.DataFrame:
    """One row per run that has rows: its hyperparameters, its status, and every metric of METRICS; sorted by run.

    summaries: what `summarise_runs` makes of the ledger's rows, with the same final_evaluations: k. runs: the ledger's
    runs, one row each. ends: of runs that have one, ENDED; "running" is the status of the others.

    Metrics are null unless the status is "done". A "done" run with a NaN in its test error or test loss is
    given as "diverged": argmax over NaN logits yields an error that looks measured. An infinite test loss
    alone (the loss of a max-margin limit) makes only `gap_loss` null.

    `noise_cost` is 0 exactly for a clean run and null while the clean twin is missing, unfinished or
    diverged. `excess_risk` is exact where the ledger has it for this task, else final error minus the best
    mean final error of any clean cell measured so far; `excess_risk_kind` says which ("exact" or "proxy").

    Raises ValueError on missing columns, on a run that occurs twice, and on a finished run with fewer than k
    evaluations.
    """
    need(runs, tuple(name for name in NEEDED_RUN if name not in ENDED), "runs")
    need(ends, ENDED, "ends")
    for table, what in ((summaries, "summaries"), (runs, "runs"), (ends, "ends")):
        if table["run_id"].n_unique() < table.height:
            twice = table.filter(pl.col("run_id").is_duplicated())["run_id"][0]
            raise ValueError(
                f"run {twice} is there more than once among the {what}; each run needs one row: choose which one counts"
            )
    if not runs["run_id"].is_sorted():
        runs = runs.sort("run_id")
    for table in (ends.select(ENDED), summaries):  # the long side stays on the left, where a join does not copy it
        runs = runs.join(table, on="run_id", how="left", maintain_order="left")
    if runs["evaluations"].has_nulls():
        runs = runs.filter(pl.col("evaluations").is_not_null())
    return _score(runs.with_columns(pl.col("status").fill_null("running")), final_evaluations)


def _score(runs: pl.DataFrame, final_evaluations: int) -> pl.DataFrame:
    """What `score_runs` says, of runs with their summaries; nulls there where a run has no rows."""
    runs = runs.with_columns(pl.col("evaluations").fill_null(0), pl.col("broken").fill_null(False))
    short = runs.filter((pl.col("status") == "done") & (pl.col("evaluations") < final_evaluations))
    if short.height:
        raise ValueError(
            f"run {short['run_id'][0]} has {short['evaluations'][0]} evaluations and final_evaluations is "
            f"{final_evaluations}; choose final_evaluations <= {min(short['evaluations'].to_list())}"
        )

    runs = runs.with_columns(
        status=pl.when((pl.col("status") == "done") & pl.col("broken"))
        .then(pl.lit("diverged"))
        .otherwise(pl.col("status"))
    )
    done = pl.col("status") == "done"
    runs = runs.with_columns(pl.when(done).then(finite(pl.col(name))).alias(name) for name in _LAST).with_columns(
        *(pl.when(done).then(pl.col(name)).alias(name) for name in _FIRST),
        gap_err=pl.col("err_last") - pl.col("err_best"),
        gap_loss=pl.col("loss_last") - pl.col("loss_best"),
        gap_valsel=pl.col("err_last") - pl.col("err_valsel"),
        interpolates=pl.col("train_error_last") <= INTERPOLATION_ERROR + ROUNDING,
    )
    return _against_clean(runs).drop("broken", "loss_last", "loss_best", "exact")


_LAST = (*LAST_OF, "err_best", "loss_best", "err_valsel")
_FIRST = (  # times: the flow's limit is at +infinity, and that is a value
    "epoch_best",
    "interpolation_epoch",
    "emc_epoch",
)


def _against_clean(runs: pl.DataFrame) -> pl.DataFrame:
    """Noise cost and excess risk: what a run is measured against is another run."""
    clean = is_clean()
    task = varying(runs, task_columns(runs)) or ["dataset"]  # what all runs share need not be looked at for each
    size = varying(runs, SIZE)
    clean_error = pl.when(clean).then(pl.col("err_last"))
    runs = runs.with_columns(
        twin=clean_error.mean().over(*task, *size, "seed"),
        clean_cell=clean_error.mean().over(*task, *size),
        has_exact=pl.col("exact").is_not_null().any().over(task),
    ).with_columns(best_clean_cell=pl.col("clean_cell").min().over(task))
    error = pl.col("err_last")
    cost = pl.when(clean & error.is_not_null()).then(0.0).otherwise(error - pl.col("twin"))
    risk = pl.when(pl.col("has_exact")).then(pl.col("exact")).otherwise(error - pl.col("best_clean_cell"))
    kind = pl.when(pl.col("has_exact")).then(pl.lit("exact")).otherwise(pl.lit("proxy"))
    return (
        runs.with_columns(noise_cost=cost, excess_risk=risk)
        .with_columns(excess_risk_kind=pl.when(pl.col("excess_risk").is_not_null()).then(kind))
        .drop("twin", "clean_cell", "has_exact", "best_clean_cell")
    )


def task_columns(runs: pl.DataFrame) -> tuple[str, ...]:
    return (*TASK, *(name for name in WHERE_KNOWN if name in runs.columns))


def varying(runs: pl.DataFrame, names: Sequence[str]) -> list[str]:
    """Those of the columns that hold more than one value."""
    same = runs.select(pl.col(names).eq_missing(pl.col(names).first()).all()).row(0)
    return [name for name, is_same in zip(names, same, strict=True) if not is_same]


def is_clean() -> pl.Expr:
    # A label file may leave the nominal rate at 0: the realised rate has the last word on who is a clean
    # twin.
    return (pl.col("noise_rate") == 0) & (pl.col("noise_rate_realised").fill_null(0.0) == 0)


def _refuse_repeated(ordered: pl.DataFrame) -> None:
    same = (pl.col("run_id") == pl.col("run_id").shift()) & (pl.col("evaluation") == pl.col("evaluation").shift())
    repeated = ordered.lazy().filter(same).select("run_id", "evaluation").head(1).collect()
    if repeated.height:
        run_id, evaluation = repeated.row(0)
        raise ValueError(
            f"run {run_id} has evaluation {evaluation} more than once; the analysis needs one row for each: "
            "read the ledger through its load(), which keeps the latest attempt"
        )


def need(table: pl.DataFrame, names: Sequence[str], what: str) -> None:
    absent = sorted(set(names) - set(table.columns))
    if absent:
        raise ValueError(f"{what} lacks the columns {', '.join(absent)}; it has {', '.join(sorted(table.columns))}")


def finite(value: pl.Expr) -> pl.Expr:
    return pl.when(value.cast(pl.Float64).is_finite()).then(value)
