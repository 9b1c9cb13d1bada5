"""What the checks and measurements come to, as lines of one table."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """One line: what, in numbers or words, against which goal, and whether it is met (None: there is no goal)."""

    what: str
    found: str
    goal: str = ""
    met: bool | None = None
    n: int = 1

    @property
    def verdict(self) -> str:
        return {True: "met", False: "MISSED", None: ""}[self.met]


def speed(what: str, values: Sequence[float], unit: str = "images/s") -> Line:
    """Images/s of every round."""
    return Line(what, f"{_spread(values, '{:,.0f}')} {unit}", n=len(values))


def ratio(what: str, above: Sequence[float], below: Sequence[float], least: float | None = None) -> Line:
    """Ratios within each round; the goal binds their median."""
    values = [one / other for one, other in zip(above, below, strict=True)]
    if least is None:
        return Line(what, _spread(values, "{:.3f}"), n=len(values))
    return Line(what, _spread(values, "{:.3f}"), f">= {least:g}", statistics.median(values) >= least, len(values))


def lacking(what: str, package: str = "ffcv") -> Line:
    """In place of what needs a package."""
    return Line(what, f"{package} is not installed here", n=0)


def markdown(title: str, lines: Sequence[Line]) -> str:
    """The table, with its columns aligned so that it can be read as it is."""
    rows = [("what", "n", "median (min to max), or result", "goal", ""), *(_cells(line) for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join([title, "", *text, ""])


def _cells(line: Line) -> tuple[str, ...]:
    return line.what, str(line.n), line.found, line.goal, line.verdict


def _spread(values: Sequence[float], form: str) -> str:
    low, middle, high = (form.format(value) for value in (min(values), statistics.median(values), max(values)))
    return f"{middle} ({low} to {high})"
