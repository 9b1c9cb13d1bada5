"""From evaluations to runs to cells: the numbers behind every phase diagram.

Three tables, each made from the one before:

- evaluations, as the ledger gives them: one row per run and evaluation;
- runs (`score_runs`; of what run_metrics.py makes of their curves): one row per run, with the metrics of METRICS;
- cells (`cell_table`): one row per *planned* (noise rate, width, samples), with means over seeds and a phase.

Two rules hold throughout. A number that was not measured is null, never 0.0, and NaN or infinity never enters
a mean. Every planned cell has a row, so a hole in the data is a row that says "missing", not a row that is
not there.

Errors are fractions in [0, 1]; losses are in nats (half squared error under gradient flow); epochs are passes
over the data (flow time under gradient flow).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from orchestrator.definitions import (
    CATASTROPHIC_SHARE,
    CENSORED,
    DECIDED_PHASES,
    INTERPOLATION_ERROR,
    METRICS,
    ROUNDING,
)
from orchestrator.run_metrics import LAST_OF, NEEDED_MEASURED, summarise_runs

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
PLANNED = ("run_id", *CELL, "ratio", "seed", "axis", "classes")
NO_STATUS = pl.lit(None, dtype=pl.String).alias("ended")
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
    _need(evaluations, (*NEEDED_RUN, "evaluation", *NEEDED_MEASURED), "evaluations")
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
    _need(runs, tuple(name for name in NEEDED_RUN if name not in ENDED), "runs")
    _need(ends, ENDED, "ends")
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
    runs = runs.with_columns(pl.when(done).then(_finite(pl.col(name))).alias(name) for name in _LAST).with_columns(
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
    clean = _is_clean()
    task = _varying(runs, _task(runs)) or ["dataset"]  # what all runs share need not be looked at for each
    size = _varying(runs, SIZE)
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


def _task(runs: pl.DataFrame) -> tuple[str, ...]:
    return (*TASK, *(name for name in WHERE_KNOWN if name in runs.columns))


def _varying(runs: pl.DataFrame, names: Sequence[str]) -> list[str]:
    """Those of the columns that hold more than one value."""
    same = runs.select(pl.col(names).eq_missing(pl.col(names).first()).all()).row(0)
    return [name for name, is_same in zip(names, same, strict=True) if not is_same]


def _is_clean() -> pl.Expr:
    # A label file may leave the nominal rate at 0: the realised rate has the last word on who is a clean
    # twin.
    return (pl.col("noise_rate") == 0) & (pl.col("noise_rate_realised").fill_null(0.0) == 0)


def cell_table(
    runs: pl.DataFrame,
    planned: pl.DataFrame,
    *,
    tau: float = 0.02,
    tau_cost: float = 0.05,
    confidence: float = 0.9,
    bootstrap: int = 1000,
    seed: int = 0,
) -> pl.DataFrame:
    """One row for every planned cell (noise_rate, width, samples), sorted by noise rate and ratio.

    runs: what `run_table` gives. planned: one row per planned run, with run_id, noise_rate, width, samples,
    ratio, seed, axis, classes, and maybe status: the ledger's word on runs that have no row in `runs`, such as one that
    failed before its first evaluation. The two are matched by run_id; runs outside the plan are left out.

    Columns: ratio, axis, classes; n (finished seeds), n_planned, n_diverged, n_failed, n_unfinished;
    `<metric>_mean`, `<metric>_se` (standard error over seeds, null below two) and `<metric>_n` for each of
    METRICS; gap_floor (mean gap of the clean cell of the same width and samples: what the oracle minimum
    alone makes of it); p_underfit, p_benign, p_tempered, p_catastrophic; phase, one of definitions.PHASES; tau,
    tau_cost and confidence, so that the table says by which rule.

    The phase of a resample of the cell's seeds follows from its means, in this order: train error > 0.01:
    underfit; final error >= 0.9 (1 - 1/C): catastrophic; gap <= tau and noise cost <= tau_cost: benign; gap >
    tau or cost > tau_cost: tempered. Where the clean twin is missing and the gap does not decide, a resample
    has no phase, so the four shares may add up to less than 1. A phase is called when its share reaches
    `confidence` and n >= 2; from one seed every share is 0 or 1 and says nothing about other seeds, so the
    cell is "undecided". A cell without a finished run is "missing", or "diverged" when every planned run of
    it diverged. Shares describe the finished seeds; n_diverged says how many did not survive to be counted.

    Raises ValueError when the runs do not belong in one diagram, naming what differs: axis, dataset,
    architecture, recipe, noise model; or when both width and samples vary.
    """
    _need(planned, PLANNED, "planned")
    _need(runs, ("run_id", "status", "excess_risk_kind", *NEEDED_RUN, *METRICS), "runs")
    if not 0.5 < confidence <= 1:
        raise ValueError(f"confidence is {confidence}; it must lie in (0.5, 1]: 0.9 is the default")
    if bootstrap < 1:
        raise ValueError(f"bootstrap is {bootstrap}; it must be at least 1: 1000 is the default")
    _refuse_pooling(runs, planned)

    results = runs.select("run_id", "status", "excess_risk_kind", *(pl.col(name).cast(pl.Float64) for name in METRICS))
    plan = planned.select(*PLANNED, pl.col("status").alias("ended") if "status" in planned.columns else NO_STATUS)
    joined = plan.sort(*CELL, "seed").join(results, on="run_id", how="left", maintain_order="left")
    joined = joined.with_columns(status=pl.coalesce("status", "ended"))
    cells = joined.group_by(CELL, maintain_order=True).agg(*_over_seeds())
    counted = pl.col("n") + pl.col("n_diverged") + pl.col("n_failed")
    cells = cells.with_columns(n_unfinished=pl.col("n_planned") - counted)
    floor = cells.filter(pl.col("noise_rate") == 0).select(*SIZE, gap_floor="gap_err_mean")
    cells = cells.join(floor, on=SIZE, how="left", maintain_order="left")

    shares = _phase_shares(joined, cells, tau=tau, tau_cost=tau_cost, bootstrap=bootstrap, seed=seed)
    likeliest = shares.argmax(axis=1)
    decided = (shares.max(axis=1) >= confidence - ROUNDING) & (cells["n"].to_numpy() >= 2)
    names = [DECIDED_PHASES[i] if yes else "undecided" for i, yes in zip(likeliest, decided, strict=True)]
    measured = pl.col("n") > 0
    all_diverged = pl.col("n_diverged") == pl.col("n_planned")
    return (
        cells.with_columns(pl.Series(f"p_{name}", shares[:, i]) for i, name in enumerate(DECIDED_PHASES))
        .with_columns(pl.when(measured).then(pl.col(f"p_{name}")).alias(f"p_{name}") for name in DECIDED_PHASES)
        .with_columns(pl.Series("phase", names, dtype=pl.String))
        .with_columns(
            phase=pl.when(measured)
            .then(pl.col("phase"))
            .when(all_diverged)
            .then(pl.lit("diverged"))
            .otherwise(pl.lit("missing"))
        )
        .with_columns(tau=pl.lit(tau), tau_cost=pl.lit(tau_cost), confidence=pl.lit(confidence))
        .sort("noise_rate", "ratio")
    )


def _over_seeds() -> list[pl.Expr]:
    finished = (pl.col("status") == "done") & pl.col("err_last").is_not_null()
    columns = [
        pl.col("ratio", "axis", "classes").first(),
        finished.sum().cast(pl.Int32).alias("n"),
        pl.len().cast(pl.Int32).alias("n_planned"),
        (pl.col("status") == "diverged").sum().cast(pl.Int32).alias("n_diverged"),
        (pl.col("status") == "failed").sum().cast(pl.Int32).alias("n_failed"),
        pl.col("excess_risk_kind").drop_nulls().first(),
    ]
    for name in METRICS:
        value = _finite(pl.col(name))
        mean, error = value.mean(), value.std() / value.count().sqrt()
        if name in CENSORED:
            mean, error = (pl.when(value.count() == finished.sum()).then(each) for each in (mean, error))
        columns += [
            mean.alias(f"{name}_mean"),
            error.alias(f"{name}_se"),
            value.count().cast(pl.Int32).alias(f"{name}_n"),
        ]
    return columns


def _phase_shares(
    joined: pl.DataFrame, cells: pl.DataFrame, *, tau: float, tau_cost: float, bootstrap: int, seed: int
) -> np.ndarray:
    """Shares of bootstrap resamples in each decided phase, float64 [cells, 4]; zeros where nothing is
    finished.

    Cells with the same number of seeds share their draws: one matrix product serves them all, and a cell's
    shares do not depend on which other cells are in the table.
    """
    finished = joined.filter((pl.col("status") == "done") & pl.col("err_last").is_not_null())
    values = finished.select("train_error_last", "err_last", "gap_err", "noise_cost").to_numpy()
    counts = cells["n"].to_numpy()  # finished rows lie cell after cell, as `joined` and `cells` share their order
    starts = np.cumsum(counts) - counts
    guess = CATASTROPHIC_SHARE * (1 - 1 / cells["classes"].to_numpy())
    shares = np.zeros((cells.height, len(DECIDED_PHASES)))
    for n in np.unique(counts[counts > 0]):
        chosen = np.flatnonzero(counts == n)
        seeds = values[starts[chosen][None, None, :] + np.arange(n)[:, None, None], np.arange(4)[None, :, None]]
        draws = np.random.default_rng([seed, int(n)]).multinomial(n, np.full(n, 1 / n), size=bootstrap)
        draws = draws.astype(np.float64)  # counts: exact as floats, and NumPy multiplies those many times faster
        flat = seeds.reshape(n, -1)  # [n, 4 x chosen]
        undefined = np.isnan(flat)
        means = draws @ np.where(undefined, 0.0, flat)
        np.divide(means, n, out=means)
        if undefined.any():  # a drawn seed without the number leaves the resample without it
            means[draws @ undefined.astype(np.float64) > 0] = np.nan
        train, error, gap, cost = np.moveaxis(means.reshape(bootstrap, 4, len(chosen)), 1, 0)
        shares[chosen] = _classify(train, error, gap, cost, guess[chosen], tau, tau_cost)
    return shares


def _classify(
    train: np.ndarray,
    error: np.ndarray,
    gap: np.ndarray,
    cost: np.ndarray,
    guess: np.ndarray,
    tau: float,
    tau_cost: float,
) -> np.ndarray:
    """Share of each decided phase over resamples; [bootstrap, cells] in, [cells, 4] out. NaN compares false,
    so undecided."""
    underfit = train > INTERPOLATION_ERROR + ROUNDING
    fits = train <= INTERPOLATION_ERROR + ROUNDING
    catastrophic = fits & (error >= guess - ROUNDING)
    rest = fits & ~catastrophic
    benign = rest & (gap <= tau + ROUNDING) & (cost <= tau_cost + ROUNDING)
    tempered = rest & ((gap > tau + ROUNDING) | (cost > tau_cost + ROUNDING))
    return np.stack([phase.mean(axis=0) for phase in (underfit, benign, tempered, catastrophic)], axis=1)


def _refuse_pooling(runs: pl.DataFrame, planned: pl.DataFrame) -> None:
    """A diagram shows one task along one axis; anything else would average things that differ for another
    reason."""
    problems = []
    task = ("axis", *_task(runs))
    varying = {"axis", "classes", *_varying(runs, task)}
    for name in (name for name in task if name in varying):
        kinds = runs[name].unique().sort().to_list()
        if name in ("axis", "classes"):
            kinds = sorted({*kinds, *planned[name].unique().to_list()})
        if len(kinds) > 1:
            problems.append(f"{name}: {', '.join(map(str, kinds))}")
    models = runs["noise_model"].filter(runs["noise_rate"] > 0).unique().sort().to_list()
    if len(models) > 1:
        problems.append(f"noise_model: {', '.join(map(str, models))}")
    for axis, fixed in (("width", "samples"), ("samples", "width")):
        held = planned[fixed].filter(planned["axis"] == axis).unique().sort().to_list()
        if len(held) > 1:
            problems.append(f"{fixed} (axis is {axis}): {', '.join(map(str, held))}")
    if problems:
        raise ValueError(
            f"these runs do not belong in one phase diagram; they differ in {'; '.join(problems)}. "
            "Select one value of each and draw one diagram for each selection"
        )
    if planned.select(*CELL, "seed").n_unique() < planned.height:
        row = planned.filter(pl.struct(*CELL, "seed").is_duplicated()).row(0, named=True)
        raise ValueError(
            f"seed {row['seed']} is planned more than once for noise rate {row['noise_rate']}, width {row['width']}, "
            f"samples {row['samples']}; a seed counts once in a cell: select one noise model and one recipe"
        )
    mislabelled = runs.filter((pl.col("noise_rate") == 0) & ~_is_clean())
    if mislabelled.height:
        row = mislabelled.row(0, named=True)
        raise ValueError(
            f"run {row['run_id']} has noise rate 0 and realised noise rate {row['noise_rate_realised']}; the row of "
            "noise rate 0 must be clean: give the label file's rate as its noise rate"
        )


def _refuse_repeated(ordered: pl.DataFrame) -> None:
    same = (pl.col("run_id") == pl.col("run_id").shift()) & (pl.col("evaluation") == pl.col("evaluation").shift())
    repeated = ordered.lazy().filter(same).select("run_id", "evaluation").head(1).collect()
    if repeated.height:
        run_id, evaluation = repeated.row(0)
        raise ValueError(
            f"run {run_id} has evaluation {evaluation} more than once; the analysis needs one row for each: "
            "read the ledger through its load(), which keeps the latest attempt"
        )


def _need(table: pl.DataFrame, names: Sequence[str], what: str) -> None:
    absent = sorted(set(names) - set(table.columns))
    if absent:
        raise ValueError(f"{what} lacks the columns {', '.join(absent)}; it has {', '.join(sorted(table.columns))}")


def _finite(value: pl.Expr) -> pl.Expr:
    return pl.when(value.cast(pl.Float64).is_finite()).then(value)
