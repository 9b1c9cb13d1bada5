"""The headline: what was found and what is missing, in plain sentences."""

from __future__ import annotations

from collections import Counter

import polars as pl

from orchestrator.analysis.definitions import DECIDED_PHASES
from orchestrator.report.contents import Contents

AXIS_NAMES = {"width": "widths", "samples": "training-set sizes"}


def headline(contents: Contents) -> list[str]:
    """Sentences on how much was measured, which phases were found, and what is missing."""
    return [_measured(contents), _phases(contents), _missing(contents)]


def _measured(contents: Contents) -> str:
    cells = contents.cells
    measured, finished = cells.filter(pl.col("n") > 0).height, int(cells["n"].sum())
    rates, sizes = cells["noise_rate"].n_unique(), cells.select("width", "samples").n_unique()
    grid = f"{_many(rates, 'noise rate')} and {_many(sizes, AXIS_NAMES[contents.space.axis].rstrip('s'))}"
    return f"{measured} of {_many(cells.height, 'cell')} measured, over {grid}, from {_many(finished, 'finished run')}."


def _phases(contents: Contents) -> str:
    counts = Counter(contents.cells["phase"].to_list())
    found = [f"{name} in {counts[name]}" for name in (*DECIDED_PHASES, "undecided") if counts[name]]
    if not found:
        return "No phase is known yet."
    absent = [name for name in DECIDED_PHASES if not counts[name]]
    rest = f"; no cell is {_or(absent)}" if absent else ""
    return f"Overfitting is {_and(found)}{rest}." if "underfit" not in counts else f"Phases: {_and(found)}{rest}."


def _missing(contents: Contents) -> str:
    cells = contents.cells
    empty = cells.filter(pl.col("n") == 0).height
    parts = [f"{_many(empty, 'cell')} without a finished run"] if empty else []
    for column, word in (("n_diverged", "diverged"), ("n_failed", "failed"), ("n_unfinished", "not finished")):
        number = int(cells[column].sum())
        if number:
            parts.append(f"{_many(number, 'run')} {word}")
    return f"Missing: {_and(parts)}." if parts else "Nothing is missing: every planned run finished."


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _and(parts: list[str]) -> str:
    return _joined(parts, "and")


def _or(parts: list[str]) -> str:
    return _joined(parts, "or")


def _joined(parts: list[str], word: str) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {word} {parts[-1]}"
