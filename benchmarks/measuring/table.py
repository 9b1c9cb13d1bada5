"""The last thing that `make bench` prints, and the same as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from benchmarks.measuring.figures import Figure, Goal
from orchestrator.console import RESULTS

JSON_SCHEMA_VERSION = 1


def print_table(machine: Mapping[str, Any], found: Mapping[str, Sequence[Figure]], quick: bool) -> None:
    """Print all figures by subject, and whether the median meets the goal."""
    described = f"{machine['cpus']} CPUs ({machine['architecture']}), torch {machine['torch']}, Ray {machine['ray']}"
    table = Table(title="A quick look: one short round, proves nothing" if quick else described, title_justify="left")
    table.add_column("Figure", ratio=1, overflow="fold")
    for name in ("n", "min", "median", "max", "goal", ""):
        table.add_column(name, justify="right" if name not in ("goal", "") else "left", no_wrap=True)
    for title, figures in found.items():
        table.add_section()
        table.add_row(f"[bold]{title}[/bold]")
        for figure in figures:
            table.add_row(*figure_cells(figure))
    RESULTS.print(table)


def figure_cells(figure: Figure) -> list[str]:
    """The cells of one figure's line."""
    spread = figure.spread
    numbers = [shown(value, figure.unit) for value in (spread.minimum, spread.median, spread.maximum)]
    verdict = "" if figure.goal is None else "met" if figure.goal.is_met(spread.median) else "missed"
    return [figure.what, str(spread.n), *numbers, goal_text(figure.goal, figure.unit), verdict]


def shown(value: float, unit: str) -> str:
    """Three digits, or all before the point, with the unit."""
    number = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{number}{' ' + unit if unit else ''}"


def goal_text(goal: Goal | None, unit: str) -> str:
    return "" if goal is None else f"{'>=' if goal.is_least else '<='} {shown(goal.value, unit)}"


def document(machine: Mapping[str, Any], found: Mapping[str, Sequence[Figure]], quick: bool) -> dict[str, Any]:
    """All figures with their raw values; times in seconds."""
    return {
        "schema_version": JSON_SCHEMA_VERSION,
        "quick": quick,
        "machine": dict(machine),
        "figures": [
            {
                "subject": title,
                "what": figure.what,
                "unit": figure.unit or "ratio",
                **asdict(figure.spread),
                "values": list(figure.values),
                "goal": goal_text(figure.goal, figure.unit) or None,
                "met": figure.goal.is_met(figure.spread.median) if figure.goal else None,
                "details": dict(figure.details),
            }
            for title, figures in found.items()
            for figure in figures
        ],
    }
