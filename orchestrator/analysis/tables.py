"""The run and cell tables for the terminal and for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.analysis.cells import on_grid
from orchestrator.analysis.definitions import INTERPOLATION_ERROR, METRICS
from orchestrator.ledger_schema import ENDS, RUNS
from orchestrator.storage import open_storage

if TYPE_CHECKING:
    from rich.table import Table


ENTRY_WIDTH = 16
"""Characters of an entry with its standard error, and the space around it."""


def cell_lines(cells: pl.DataFrame, metric: str = "err_last", *, width: int = 200) -> Table:
    """One metric as a table for the terminal: a row for each noise rate (highest first), a column for each p/n.

    Entries are "mean ± standard error", the mean alone where one seed gives no error or `width` (characters) is too
    little for both, "-" where nothing is measured, and "diverged" where every planned run did. Points of the grid that
    were not planned are empty, and cells beside the grid are left out. Raises ValueError on an unknown metric.
    """
    from rich.table import Table

    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; choose from {', '.join(METRICS)}")
    cells = on_grid(cells)
    ratios = cells["ratio"].unique().sort().to_list()
    rates = cells["noise_rate"].unique().sort(descending=True).to_list()
    short = len(ratios) * ENTRY_WIDTH + 6 > width
    entries = {(row["noise_rate"], row["ratio"]): _entry(row, metric, short) for row in cells.to_dicts()}
    what = "mean over seeds" if short else "mean ± standard error over seeds"
    title = f"{METRICS[metric].label} ({METRICS[metric].unit}) by noise rate and p/n, {what}"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="bold")
    table.add_column("noise", justify="right", no_wrap=True)
    for ratio in ratios:
        table.add_column(f"{ratio:.3g}", justify="right", no_wrap=True)
    for rate in rates:
        table.add_row(f"{rate:g}", *(entries.get((rate, ratio), "") for ratio in ratios))
    return table


def _entry(row: dict[str, Any], metric: str, short: bool) -> str:
    mean, error = row[f"{metric}_mean"], row[f"{metric}_se"]
    if mean is None:
        return "diverged" if row["phase"] == "diverged" else "-"
    return f"{mean:.3f}" if error is None or short else f"{mean:.3f} ± {error:.3f}"


def write_tables(runs: pl.DataFrame, cells: pl.DataFrame, folder: Path) -> list[Path]:
    """Write runs.parquet, cells.parquet and cells.csv into `folder`, the phase folder of a sweep; gives their paths.

    Each is whole or not there. Units and descriptions stand in the metadata of the Parquet columns. In the CSV a number
    that was not measured is an empty field.
    """
    storage = open_storage(folder)
    contents = {
        "runs.parquet": _as_parquet(runs),
        "cells.parquet": _as_parquet(cells),
        "cells.csv": cells.write_csv().encode(),
    }
    for name, content in contents.items():
        storage.write(name, content)
    return [folder / name for name in contents]


def _as_parquet(frame: pl.DataFrame) -> pa.Buffer:
    table = frame.to_arrow()
    fields = [field.with_metadata(describe_column(field.name)) for field in table.schema]
    sink = pa.BufferOutputStream()
    pq.write_table(table.cast(pa.schema(fields)), sink, compression="zstd")
    return sink.getvalue()


FRACTION = "fraction in [0, 1]"
COLUMNS = {  # of the run and cell tables, beside those of the ledger and the metrics
    "status": ("", "done, diverged, failed, lost or running; metrics of done runs only"),
    "evaluations": ("", "rows that the ledger holds of the run"),
    "epoch_best": ("epochs", "first epoch with the lowest test error"),
    "excess_risk_kind": ("", "exact, or proxy: measured from the best clean cell"),
    "in_grid": ("", "whether a heat map has a row and a column for the cell"),
    "n": ("runs", "finished seeds"),
    "n_planned": ("runs", "planned seeds, with those of earlier launches"),
    "n_diverged": ("runs", "left out of the means"),
    "n_failed": ("runs", ""),
    "n_unfinished": ("runs", ""),
    "interval": (FRACTION, "probability with which low and high hold the true mean; analysis/intervals.py"),
    "gap_floor": (FRACTION, "mean gap of the clean cell of the same width and samples"),
    "phase": ("", f"underfit is a train error above {INTERPOLATION_ERROR:g}; analysis/cells.py has the rule"),
    "tau": (FRACTION, "largest gap of a benign cell"),
    "tau_cost": (FRACTION, "largest noise cost of a benign cell"),
    "confidence": (FRACTION, "share of bootstrap resamples that decides on a phase"),
}
OVER_SEEDS = {
    "mean": "mean over finished seeds",
    "se": "standard error of the mean over seeds",
    "low": "lower end of the confidence interval of the mean",
    "high": "upper end of the confidence interval of the mean",
}


def describe_column(name: str) -> dict[str, str]:
    """Unit and description of a column of the run or cell table; what is not known is left out."""
    metric, _, of = name.rpartition("_")
    if name in METRICS:
        unit, text = METRICS[name].unit, METRICS[name].definition
    elif metric in METRICS and of in OVER_SEEDS:
        unit, text = METRICS[metric].unit, f"{METRICS[metric].label}: {OVER_SEEDS[of]}"
    elif metric in METRICS and of == "n":
        unit, text = "runs", f"{METRICS[metric].label}: seeds that have it"
    elif name.startswith("p_"):
        unit, text = FRACTION, f"share of bootstrap resamples of the seeds in which the cell is {name[2:]}"
    elif name in COLUMNS:
        unit, text = COLUMNS[name]
    else:
        schema = RUNS if name in RUNS.names else ENDS if name in ENDS.names else None
        known = (schema.field(name).metadata or {}) if schema is not None else {}
        unit, text = (known.get(key, b"").decode() for key in (b"unit", b"description"))
    return {key: value for key, value in (("unit", unit), ("description", text)) if value}
