"""A comparison as tables for people and as JSON for programs."""

from __future__ import annotations

from typing import Any

import polars as pl
from rich.table import Table

from orchestrator.analysis.compare import RULES
from orchestrator.analysis.definitions import METRICS
from orchestrator.comparison import Comparison
from orchestrator.console import LOG, RESULTS


def comparison_document(found: Comparison) -> dict[str, Any]:
    """Rule, differences of the recipes, every cell and the files."""
    return {
        "a": found.names[0],
        "b": found.names[1],
        "rule": RULES[found.rule],
        "recipe_differences": [{"key": key, "a": one, "b": two} for key, one, two in found.recipe],
        "cells": found.table.to_dicts(),
        "files": found.files,
    }


def print_comparison(found: Comparison) -> None:
    """What differs in the recipes, the differences of each metric, cells of one sweep alone, and the files."""
    a, b = found.names
    RESULTS.print(f"[bold]A[/bold] {a}   [bold]B[/bold] {b}   common cells: {RULES[found.rule]}")
    for key, one, two in found.recipe:
        RESULTS.print(f"  {key}: {_say(one)} in A, {_say(two)} in B", markup=False)
    if not found.recipe:
        RESULTS.print("  no difference in data set, architecture, noise, recipe and evaluation")
    for metric in found.table["metric"].unique(maintain_order=True):
        RESULTS.print()
        RESULTS.print(_table(found.table.filter(pl.col("metric") == metric, pl.col("cells") == "both"), metric))
    for kind, name in (("a only", "A"), ("b only", "B")):
        alone = found.table.filter(pl.col("cells") == kind).unique(["noise_rate", "place"]).sort("noise_rate", "place")
        if alone.height:
            cells = ", ".join(f"({row['noise_rate']:g}, {row['ratio']:.3g})" for row in alone.to_dicts())
            RESULTS.print(f"\nOnly {name} has (noise rate, p/n): {cells}", markup=False)
    RESULTS.print()
    for path in found.files:
        RESULTS.print(path, markup=False)
    empty = found.table.filter(pl.col("cells") == "both", pl.col("difference").is_null()).height
    if empty:
        LOG.print(f"{empty} entries have no data: not measured there, or a side has no finished run yet.")


def _table(rows: pl.DataFrame, metric: str) -> Table:
    title = f"{METRICS[metric].label} ({METRICS[metric].unit}): B minus A, 95% interval"
    shown = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="bold")
    for column in ("noise", "p/n", "A", "B", "difference", "interval", "n", "how", ""):
        shown.add_column(column, justify="left" if column in ("how", "") else "right", no_wrap=True)
    for row in rows.sort("noise_rate", "place", descending=[True, False]).to_dicts():
        n = f"{row['n_a']}" if row["n_a"] == row["n_b"] else f"{row['n_a']}, {row['n_b']}"
        interval = "-" if row["low"] is None else f"[{row['low']:+.3f}, {row['high']:+.3f}]"
        measured = row["difference"] is not None
        verdict = "no data" if not measured else "" if row["decided"] else "not decided"
        values = [_number(row["mean_a"]), _number(row["mean_b"]), f"{row['difference']:+.3f}" if measured else "-"]
        shown.add_row(f"{row['noise_rate']:g}", f"{row['ratio']:.3g}", *values, interval, n, row["interval"], verdict)
    return shown


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _say(value: Any) -> str:
    return "none" if value is None else str(value)
