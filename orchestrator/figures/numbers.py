"""The numbers of a figure, as they stand in the CSV beside it: what is drawn, a row for each mark, and nothing else.

All figures share the columns NUMBERS. `layer` says what a row is: "cell"; "enter" or "exit", the estimated boundary at
one noise rate, with its band; "closed form", a point of a line. A number that is not there is an empty field.
"""

from __future__ import annotations

import polars as pl

from orchestrator.analysis.definitions import DECIDED_PHASES

NUMBERS = {
    "panel": pl.String,
    "layer": pl.String,
    "line": pl.String,
    "noise_rate": pl.Float64,
    "ratio": pl.Float64,
    "ratio_low": pl.Float64,
    "ratio_high": pl.Float64,
    "state": pl.String,
    "value": pl.Float64,
    "n": pl.Int32,
    "n_diverged": pl.Int32,
}


def metric_numbers(cells: pl.DataFrame, metric: str) -> pl.DataFrame:
    """The cells of one metric; state is "measured", "missing" or "diverged", as they are drawn."""
    measured = (pl.col("n") > 0) & pl.col(f"{metric}_mean").is_not_null()
    empty = pl.when(pl.col("phase") == "diverged").then(pl.lit("diverged")).otherwise(pl.lit("missing"))
    return _rows(
        cells,
        panel=pl.lit(metric),
        layer=pl.lit("cell"),
        state=pl.when(measured).then(pl.lit("measured")).otherwise(empty),
        value=pl.when(measured).then(pl.col(f"{metric}_mean")),
        n=pl.col(f"{metric}_n"),
        n_diverged=pl.col("n_diverged"),
    )


def phase_numbers(cells: pl.DataFrame) -> pl.DataFrame:
    """The cells of a phase map: the phase stands in `state`, its share of resamples in `value`."""
    share = pl.coalesce(pl.when(pl.col("phase") == name).then(pl.col(f"p_{name}")) for name in DECIDED_PHASES)
    columns = {"state": pl.col("phase"), "value": share, "n": pl.col("n"), "n_diverged": pl.col("n_diverged")}
    return _rows(cells, panel=pl.lit("phase"), layer=pl.lit("cell"), **columns)


def boundary_numbers(boundary: pl.DataFrame | None) -> pl.DataFrame:
    """The estimates that are drawn, with their bands."""
    if boundary is None:
        return pl.DataFrame(schema=NUMBERS)
    ends = []
    for name in ("enter", "exit"):
        drawn = boundary.filter(pl.col(name).is_not_null())
        band = {f"ratio_{side}": pl.col(f"{name}_{side}") for side in ("low", "high")}
        ends.append(
            _rows(
                drawn,
                panel=pl.col("metric"),
                layer=pl.lit(name),
                line=pl.lit("estimated"),
                ratio=pl.col(name),
                value=pl.col("threshold"),
                **band,
            )
        )
    return pl.concat(ends)


def theory_numbers(theory: pl.DataFrame | None, metric: str, level: float | None = None) -> pl.DataFrame:
    """The points of the closed forms."""
    if theory is None:
        return pl.DataFrame(schema=NUMBERS)
    line = pl.col("line") if "line" in theory.columns else pl.lit("min-norm")
    return _rows(theory, panel=pl.lit(metric), layer=pl.lit("closed form"), line=line, value=pl.lit(level))


def _rows(table: pl.DataFrame, **columns: pl.Expr) -> pl.DataFrame:
    given = {"noise_rate": pl.col("noise_rate"), "ratio": pl.col("ratio")} | columns
    return table.select(given.get(name, pl.lit(None)).cast(kind).alias(name) for name, kind in NUMBERS.items())
