"""The run and cell tables for the terminal and for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.analysis.definitions import METRICS
from orchestrator.storage import open_storage

if TYPE_CHECKING:
    from rich.table import Table


ENTRY_WIDTH = 16
"""Characters of an entry with its standard error, and the space around it."""


def cell_lines(cells: pl.DataFrame, metric: str = "err_last", *, width: int = 200) -> Table:
    """One metric as a table for the terminal: a row for each noise rate (highest first), a column for each p/n.

    Entries are "mean ± standard error", the mean alone where one seed gives no error or `width` (characters) is too
    little for both, "-" where nothing is measured, and "diverged" where every planned run did. Points of the grid that
    were not planned are empty. Raises ValueError on an unknown metric.
    """
    from rich.table import Table

    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; choose from {', '.join(METRICS)}")
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

    Each is whole or not there. In the CSV a number that was not measured is an empty field.
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
    sink = pa.BufferOutputStream()
    pq.write_table(frame.to_arrow(), sink, compression="zstd")
    return sink.getvalue()
