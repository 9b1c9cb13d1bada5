"""What stands below the figures of slices: what was run, what is measured, over how many seeds, and the caveats."""

from __future__ import annotations

import polars as pl

from orchestrator.analysis.definitions import METRICS
from orchestrator.phase_diagram import describe
from search_spaces.spec import Recipe, SearchSpace


def caption(space: SearchSpace, *parts: str) -> str:
    """One paragraph: what was run, then the parts that are not empty."""
    return " ".join(part for part in (describe(space), *parts) if part)


def seeds(counts: pl.Series, *, what: str = "seeds a cell") -> str:
    """Over how many seeds means and intervals are."""
    known = counts.filter(counts > 0)
    if known.is_empty():
        return "Nothing is measured yet."
    low, high = min(known.to_list()), max(known.to_list())
    number = f"n = {low}" if low == high else f"n = {low} to {high}"
    if high == 1:
        return f"One seed ({number}), so no interval."
    return f"Means over {number} {what}; bands: {interval_words(known)}."


def interval_words(counts: pl.Series) -> str:
    """How the intervals of `mean_interval` are made for so many seeds."""
    from orchestrator.analysis.intervals import FEWEST_TO_RESAMPLE, MOST_TO_RESAMPLE

    resampled = counts.filter(counts > 1).is_between(FEWEST_TO_RESAMPLE, MOST_TO_RESAMPLE)
    ways = (("Student's t", not resampled.all()), ("studentised bootstrap", resampled.any()))
    how = " or ".join(name for name, used in ways if used)
    if " or " in how:
        how += f", from {FEWEST_TO_RESAMPLE} to {MOST_TO_RESAMPLE} seeds"
    return f"95% intervals of the mean over seeds ({how}), cut at the frame where they leave it"


def lost(cells: pl.DataFrame, beside: int = 0) -> str:
    """Runs that are in no mean, and why, and how many cells beside the grid are not shown; empty without any."""
    planned = cells["n_planned"].sum()
    names = {"n_diverged": "diverged", "n_failed": "failed", "n_unfinished": "not finished"}
    counts = [f"{cells[name].sum()} {word}" for name, word in names.items() if cells[name].sum()]
    parts = [f"Not shown: cells at noise rates beside the grid ({beside})."] if beside else []
    if counts:
        parts.append(
            f"Of {planned} planned runs {', '.join(counts)}: these are in no mean, and a cell without any run is a gap."
        )
    return " ".join(parts)


def early_stop(space: SearchSpace, curves: pl.DataFrame | None = None) -> str:
    """What early stops, or values that seeds lack, do to a figure; empty where there are none."""
    may_stop = isinstance(space.recipe, Recipe) and space.recipe.early_stop is not None
    if not may_stop and curves is not None and (curves["n"] < curves["finished"]).any():
        return "A mean has a gap where one of its seeds has no finite value."
    if not may_stop:
        return ""
    if curves is None:
        return "Runs that the recipe stopped early count with their own last evaluation."
    stopped = curves.filter(pl.col("n") < pl.col("finished")).select("noise_rate", "width", "samples").n_unique()
    cells = curves.select("noise_rate", "width", "samples").n_unique()
    return (
        f"The recipe stops runs early: a mean ends where the first of its seeds ends ({stopped} of {cells} cells end "
        "before their longest run), as the mean of the others would jump."
    )


def limit(space: SearchSpace, curves: pl.DataFrame) -> str:
    """Where the limit of gradient flow stands."""
    return "\N{INFINITY}: the limit of the flow." if curves["epoch"].is_infinite().any() else ""


def definition(metric: str) -> str:
    """The sentence that defines a metric of runs."""
    return METRICS[metric].definition
