"""From runs to cells: means over seeds, and the phase that the evidence decides for.

`cell_table` makes one row for every *planned* (noise rate, width, samples), so that a hole in the data is a row that
says "missing", not a row that is not there. A number that was not measured is null, never 0.0.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from orchestrator.analysis.definitions import (
    CATASTROPHIC_SHARE,
    CENSORED,
    DECIDED_PHASES,
    INTERPOLATION_ERROR,
    INTERVAL,
    METRICS,
    ROUNDING,
)
from orchestrator.analysis.intervals import FEWEST_TO_RESAMPLE, MOST_TO_RESAMPLE, mean_interval, student_interval
from orchestrator.analysis.scores import CELL, NEEDED_RUN, SIZE, finite, is_clean, need, task_columns, varying

PLANNED = ("run_id", *CELL, "ratio", "seed", "axis", "classes")
ASSUMED = {"status": pl.lit(None, dtype=pl.String), "in_grid": pl.lit(True)}
"""What a plan says where it lacks the column."""


def cell_table(
    runs: pl.DataFrame,
    planned: pl.DataFrame,
    *,
    tau: float = 0.02,
    tau_cost: float = 0.05,
    confidence: float = 0.9,
    interval: float = INTERVAL,
    bootstrap: int = 1000,
    seed: int = 0,
) -> pl.DataFrame:
    """One row for every planned cell (noise_rate, width, samples), sorted by noise rate and ratio.

    runs: what `run_table` gives. planned: one row per planned run, with run_id, noise_rate, width, samples,
    ratio, seed, axis, classes, and maybe status: the ledger's word on runs that have no row in `runs`, such as one that
    failed before its first evaluation, and in_grid: false for cells beside the rows and columns of a heat map. The two
    tables are matched by run_id; runs outside the plan are left out.

    Columns: ratio, axis, classes, in_grid; n (finished seeds), n_planned, n_diverged, n_failed, n_unfinished;
    `<metric>_mean`, `<metric>_se` (standard error over seeds), `<metric>_low` and `<metric>_high` (confidence interval
    of the mean: `mean_interval` says how; not clipped) and `<metric>_n` for each of METRICS, se, low and high null
    below two seeds; interval, the probability that low and high promise; gap_floor (mean gap of the clean cell of the
    same width and samples: what the oracle minimum alone makes of it); p_underfit, p_benign, p_tempered,
    p_catastrophic; phase, one of definitions.PHASES; tau, tau_cost and confidence, so that the table says by which
    rule. A noise cost is paired by seed with the clean twin, and a gap within its run: their intervals are of paired
    differences.

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
    need(planned, PLANNED, "planned")
    need(runs, ("run_id", "status", "excess_risk_kind", *NEEDED_RUN, *METRICS), "runs")
    if not 0.5 < confidence <= 1:
        raise ValueError(f"confidence is {confidence}; it must lie in (0.5, 1]: 0.9 is the default")
    if bootstrap < 1:
        raise ValueError(f"bootstrap is {bootstrap}; it must be at least 1: 1000 is the default")
    _refuse_pooling(runs, planned)

    results = runs.select("run_id", "status", "excess_risk_kind", *(pl.col(name).cast(pl.Float64) for name in METRICS))
    told = [pl.col(name) if name in planned.columns else value.alias(name) for name, value in ASSUMED.items()]
    plan = planned.select(*PLANNED, *told).rename({"status": "ended"})
    joined = plan.sort(*CELL, "seed").join(results, on="run_id", how="left", maintain_order="left")
    joined = joined.with_columns(status=pl.coalesce("status", "ended"))
    cells = joined.group_by(CELL, maintain_order=True).agg(*_over_seeds())
    counted = pl.col("n") + pl.col("n_diverged") + pl.col("n_failed")
    cells = cells.with_columns(n_unfinished=pl.col("n_planned") - counted)
    cells = cells.with_columns(_intervals(joined, cells, interval, seed))
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
        .with_columns(interval=pl.lit(interval))
        .sort("noise_rate", "ratio")
    )


def on_grid(cells: pl.DataFrame) -> pl.DataFrame:
    """The cells that make up rows and columns: those that a heat map shows."""
    return cells.filter("in_grid")


def _over_seeds() -> list[pl.Expr]:
    finished = (pl.col("status") == "done") & pl.col("err_last").is_not_null()
    columns = [
        pl.col("ratio", "axis", "classes").first(),
        pl.col("in_grid").any(),
        finished.sum().cast(pl.Int32).alias("n"),
        pl.len().cast(pl.Int32).alias("n_planned"),
        (pl.col("status") == "diverged").sum().cast(pl.Int32).alias("n_diverged"),
        (pl.col("status") == "failed").sum().cast(pl.Int32).alias("n_failed"),
        pl.col("excess_risk_kind").drop_nulls().first(),
    ]
    for name in METRICS:
        value = finite(pl.col(name))
        mean, error = value.mean(), value.std() / value.count().sqrt()
        if name in CENSORED:
            mean, error = (pl.when(value.count() == finished.sum()).then(each) for each in (mean, error))
        columns += [
            mean.alias(f"{name}_mean"),
            error.alias(f"{name}_se"),
            *(pl.lit(None, dtype=pl.Float64).alias(f"{name}_{end}") for end in ("low", "high")),
            value.count().cast(pl.Int32).alias(f"{name}_n"),
        ]
    return columns


def _intervals(joined: pl.DataFrame, cells: pl.DataFrame, interval: float, seed: int) -> list[pl.Series]:
    """`<metric>_low` and `<metric>_high` of every cell, null where its mean or its standard error is.

    It is what `mean_interval` gives, but only cells with few enough seeds to resample need their seeds once more. Rows
    of `joined` lie cell after cell, as `joined` and `cells` share their order.
    """
    means, errors, counts = (
        cells.select(pl.col(f"{name}_{what}").cast(pl.Float64) for name in METRICS).to_numpy().T
        for what in ("mean", "se", "n")
    )
    bounds = np.stack(student_interval(means, errors, counts, interval=interval))  # [2, metrics, cells]
    resampled = (counts >= FEWEST_TO_RESAMPLE) & (counts <= MOST_TO_RESAMPLE)
    chosen = np.flatnonzero(resampled.any(axis=0))
    if len(chosen):
        values = _seeds_of(joined, cells["n_planned"].to_numpy(), chosen)
        found = np.stack(mean_interval(values.reshape(len(values), -1), interval=interval, seed=seed))
        found = found.reshape(2, len(METRICS), len(chosen))
        bounds[:, :, chosen] = np.where(resampled[:, chosen], found, bounds[:, :, chosen])
    bounds = np.where(np.isnan(errors), np.nan, bounds)
    return [
        pl.Series(f"{name}_{end}", bounds[side, i]).fill_nan(None)
        for i, name in enumerate(METRICS)
        for side, end in enumerate(("low", "high"))
    ]


def _seeds_of(joined: pl.DataFrame, sizes: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The metrics of the seeds of some cells, float64 [seeds, metrics, chosen], NaN where there are none."""
    starts = (np.cumsum(sizes) - sizes)[chosen]
    rows = starts + np.arange(sizes[chosen].max())[:, None]  # [seeds, chosen]
    values = joined.select(*METRICS).to_numpy()[np.minimum(rows, joined.height - 1)]
    values[rows >= starts + sizes[chosen]] = np.nan
    return np.moveaxis(values, 2, 1)


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
    task = ("axis", *task_columns(runs))
    differing = {"axis", "classes", *varying(runs, task)}
    for name in (name for name in task if name in differing):
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
    mislabelled = runs.filter((pl.col("noise_rate") == 0) & ~is_clean())
    if mislabelled.height:
        row = mislabelled.row(0, named=True)
        raise ValueError(
            f"run {row['run_id']} has noise rate 0 and realised noise rate {row['noise_rate_realised']}; the row of "
            "noise rate 0 must be clean: give the label file's rate as its noise rate"
        )
