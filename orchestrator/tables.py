"""The run and cell tables for the terminal and for other programs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from orchestrator.definitions import METRICS

if TYPE_CHECKING:
    from rich.table import Table


def cell_lines(cells: pl.DataFrame, metric: str = "err_last") -> Table:
    """One metric as a table for the terminal: a row for each noise rate (highest first), a column for each p/n.

    Entries are "mean ± standard error", the mean alone where one seed gives no error, "-" where nothing is measured,
    and "diverged" where every planned run did. Points of the grid that were not planned are empty.
    Raises ValueError on an unknown metric.
    """
    from rich.table import Table

    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; choose from {', '.join(METRICS)}")
    ratios = cells["ratio"].unique().sort().to_list()
    rates = cells["noise_rate"].unique().sort(descending=True).to_list()
    entries = {(row["noise_rate"], row["ratio"]): _entry(row, metric) for row in cells.to_dicts()}
    table = Table(title=f"{METRICS[metric].label} ({METRICS[metric].unit}), mean ± standard error over seeds")
    table.add_column("noise rate \\ p/n", justify="right")
    for ratio in ratios:
        table.add_column(f"{ratio:.3g}", justify="right")
    for rate in rates:
        table.add_row(f"{rate:g}", *(entries.get((rate, ratio), "") for ratio in ratios))
    return table


def _entry(row: dict[str, Any], metric: str) -> str:
    mean, error = row[f"{metric}_mean"], row[f"{metric}_se"]
    if mean is None:
        return "diverged" if row["phase"] == "diverged" else "-"
    return f"{mean:.3f}" if error is None else f"{mean:.3f} ± {error:.3f}"


def write_tables(runs: pl.DataFrame, cells: pl.DataFrame, folder: Path) -> list[Path]:
    """Write runs.parquet, cells.parquet and cells.csv into `folder`, the phase folder of a sweep; gives their paths.

    Each is written beside its name and renamed, so that a reader never sees half a file. Parquet with zstd; in the CSV
    a number that was not measured is an empty field.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    return [
        _write(place / "runs.parquet", lambda path: runs.write_parquet(path, compression="zstd")),
        _write(place / "cells.parquet", lambda path: cells.write_parquet(path, compression="zstd")),
        _write(place / "cells.csv", lambda path: cells.write_csv(path)),
    ]


def _write(path: Path, write: Callable[[Path], None]) -> Path:
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path
