"""Slices as a small table for people and as JSON for programs."""

from __future__ import annotations

from typing import Any

import polars as pl
from rich.table import Table

from orchestrator.console import LOG, RESULTS
from orchestrator.slices.draw import Slices
from orchestrator.slices.kinds import KINDS

CURVES = ("epoch", "width-epoch", "learning", "overfit")
"""Kinds whose main table is long; JSON names its file and gives the small ones."""


def slices_document(drawn: Slices) -> dict[str, Any]:
    """Kinds with their files and small tables, and why the others are not there."""
    kinds = {}
    for kind, files in drawn.files.items():
        tables = {
            name or "table": table.to_dicts()
            for name, table in drawn.tables[kind].items()
            if name or kind not in CURVES
        }
        kinds[kind] = {"shows": KINDS[kind].shows, "files": files, "tables": tables}
    return {"sweep": drawn.space.name, "kinds": kinds, "impossible": drawn.impossible}


def print_slices(drawn: Slices) -> None:
    """The main numbers on stdout, and where everything is."""
    for kind in ("model", "sample"):
        if kind in drawn.tables:
            RESULTS.print(_descent_table(drawn.tables[kind][""], drawn.tables[kind]["thresholds"], kind))
            RESULTS.print()
    if "overfit" in drawn.tables:
        RESULTS.print(_gain_table(drawn.tables["overfit"]["gains"]))
        RESULTS.print()
    for files in drawn.files.values():
        for path in files:
            RESULTS.print(path, markup=False)
    for kind, why in drawn.impossible.items():
        LOG.print(f"not drawn: {kind}: {why}", markup=False)


def _descent_table(table: pl.DataFrame, thresholds: pl.DataFrame, kind: str) -> Table:
    size = "ratio" if kind == "model" else "samples"
    name, last_name = ("p/n", "largest p/n") if kind == "model" else ("n", "largest n")
    shown = _table(f"Where labels are fitted, and the highest final test error, by noise rate (against {name})")
    for column in ("noise", "train error 0.1", "train error 0.01", "highest error", f"at {name}", f"at {last_name}"):
        shown.add_column(column, justify="right", no_wrap=True)
    fitted = "ratio_fitted" if kind == "model" else "fitted"
    for rate in table["noise_rate"].unique().sort(descending=True):
        errors = table.filter(pl.col("noise_rate") == rate, pl.col("metric") == "err_last").sort(size)
        known = errors.filter(pl.col("mean").is_not_null()).sort("mean", descending=True)
        at = {row["level"]: row[fitted] for row in thresholds.filter(pl.col("noise_rate") == rate).to_dicts()}
        peak = known.row(0, named=True) if known.height else None
        shown.add_row(
            f"{rate:g}",
            *(_number(at.get(level)) for level in ("emc", "interpolation")),
            _interval(peak),
            _number(peak[size] if peak else None),
            _interval(errors.row(-1, named=True)),
        )
    return shown


def _gain_table(gains: pl.DataFrame) -> Table:
    shown = _table("Gain of an oracle's early stopping (last minus best), at the largest p/n")
    for column in ("noise", "of", "best", "last", "gain", "n"):
        shown.add_column(column, justify="right", no_wrap=True)
    for row in gains.sort("noise_rate", "metric", descending=True).to_dicts():
        best, last = f"{row['best']:.3f}", f"{row['last']:.3f}"
        shown.add_row(f"{row['noise_rate']:g}", row["metric"], best, last, _interval(row), str(row["n"]))
    return shown


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="bold")


def _interval(row: dict[str, Any] | None) -> str:
    if row is None or row["mean"] is None:
        return "-"
    return f"{row['mean']:.3f}" if row["low"] is None else f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
