"""What every figure has to admit below itself: definitions, seeds, caveats, and what is not there."""

from __future__ import annotations

import numpy as np
import polars as pl

from orchestrator.analysis.cells import on_grid
from orchestrator.analysis.definitions import CATASTROPHIC_SHARE, INTERPOLATION_ERROR, METRICS
from orchestrator.analysis.intervals import FEWEST_TO_RESAMPLE, MOST_TO_RESAMPLE
from orchestrator.analysis.theory_lines import CLOSED_FORMS, TRAINED


def metric_caption(cells: pl.DataFrame, metric: str) -> str:
    """Definition, seeds, intervals and caveats of one metric, as they stand under its heat map."""
    grid = on_grid(cells)
    caveat = _gap_caveat(grid) if metric.startswith("gap_") or metric == "err_best" else ""
    parts = [METRICS[metric].definition, _kind(grid, metric), _seeds(grid, f"{metric}_n"), _intervals(grid, metric)]
    return _join([*parts, caveat, _empty(grid), _unmeasured(grid, metric), _beside(cells)])


def phase_caption(cells: pl.DataFrame) -> str:
    """The rule behind the phases, seeds and caveats, as they stand under a phase map."""
    grid = on_grid(cells)
    return _join([_phase_rule(grid), _seeds(grid, "n"), _gap_caveat(grid), _empty(grid), _beside(cells)])


def overview_caption(cells: pl.DataFrame, metrics: tuple[str, ...]) -> str:
    """The definitions of panels (a), (b), ... and of the phases in the last one, then seeds, intervals and caveats."""
    letters, grid = "abcdefgh", on_grid(cells)
    panels = [
        f"({letters[i]}) {METRICS[metric].definition} {_intervals(grid, metric)}" for i, metric in enumerate(metrics)
    ]
    rule = f"({letters[len(metrics)]}) {_phase_rule(grid)}"
    return _join([*panels, rule, _seeds(grid, "n"), _gap_caveat(grid), _empty(grid), _beside(cells)])


def boundary_caption(
    cells: pl.DataFrame, boundary: pl.DataFrame | None, theory: pl.DataFrame | None, metric: str
) -> str:
    """How the marks and curves of a boundary figure came about, with seeds, intervals and caveats."""
    parts = [METRICS[metric].definition, _kind(cells, metric), _seeds(cells, f"{metric}_n"), _intervals(cells, metric)]
    parts.append(
        "Every filled mark is a measured cell at its own noise rate and p/n; nothing is coloured between them."
    )
    if boundary is None:
        parts.append("Too few cells are measured for an estimate of the boundary.")
    else:
        parts.append(_estimate(boundary))
    if theory is not None:
        parts.append(_closed_forms(theory))
    if metric.startswith("gap_") or metric == "err_best":
        parts.append(_gap_caveat(cells))
    return _join([*parts, _lost(cells), _unmeasured(cells, metric)])


def _estimate(boundary: pl.DataFrame) -> str:
    level, confidence = boundary.select("threshold", "confidence").row(0)
    found = boundary.select(pl.any_horizontal(pl.col("enter", "exit").is_not_null()).any()).item()
    method = (
        f"The level {level:g} of a Gaussian process on the cell means; bands hold {confidence:.0%} of bootstrap "
        "resamples of the seeds, not the doubt about the smoothing. Nothing is drawn beyond the measured cells."
    )
    return method if found else f"No crossing of the level {level:g} lies between the measured cells."


def _closed_forms(theory: pl.DataFrame) -> str:
    drawn = theory["line"].unique().to_list()
    absent = [name for name in CLOSED_FORMS if name not in drawn]
    guides = [name for name in CLOSED_FORMS if name in drawn and name != TRAINED]
    parts = ["Closed forms hold for n to infinity."]
    if guides:
        parts.append(f"Guides ({', '.join(guides)}) are other classifiers than the {TRAINED} limit that was run.")
    if absent:
        parts.append(f"No crossing in this range: {', '.join(absent)}.")
    return " ".join(parts)


def _phase_rule(cells: pl.DataFrame) -> str:
    tau, tau_cost, confidence = cells.select("tau", "tau_cost", "confidence").row(0)
    return (
        f"Phase: underfit, train error above {INTERPOLATION_ERROR:g}; catastrophic, final error at least "
        f"{CATASTROPHIC_SHARE:.0%} of a uniform guess; benign, gap at most {tau:g} and noise cost at most "
        f"{tau_cost:g}; tempered, otherwise; undecided, where no phase holds in {confidence:.0%} of bootstrap "
        "resamples of the seeds, or with one seed."
    )


def _join(parts: list[str]) -> str:
    return " ".join(part for part in parts if part)


def _kind(cells: pl.DataFrame, metric: str) -> str:
    kinds = cells["excess_risk_kind"].drop_nulls().unique().sort().to_list() if metric == "excess_risk" else []
    return f"Here: {' and '.join(kinds)}." if kinds else ""


def _seeds(cells: pl.DataFrame, column: str) -> str:
    counts = cells.filter(pl.col(column) > 0)[column].to_list()
    if not counts:
        return "Not measured in any run." if (cells["n"] > 0).any() else "No run has finished."
    if max(counts) == 1:
        return "One seed a cell (n = 1), so no spread over seeds."
    number = f"n = {min(counts)}" if min(counts) == max(counts) else f"n = {min(counts)} to {max(counts)}"
    return f"Means over {number} seeds a cell."


def _intervals(cells: pl.DataFrame, metric: str) -> str:
    """How wide the confidence intervals of the means are, and how they were made."""
    known = cells.filter(pl.col(f"{metric}_low").is_not_null())
    if known.is_empty():
        return ""
    reach = np.sort((known[f"{metric}_high"] - known[f"{metric}_low"]).to_numpy() / 2)
    resampled = known[f"{metric}_n"].is_between(FEWEST_TO_RESAMPLE, MOST_TO_RESAMPLE)
    ways = [
        name for name, used in (("Student t", not resampled.all()), ("studentised bootstrap", resampled.any())) if used
    ]
    return (
        f"{known['interval'][0]:.0%} intervals ({', '.join(ways)}): half width {np.median(reach):.2g} in the median "
        f"cell, at most {reach[-1]:.2g}."
    )


def _beside(cells: pl.DataFrame) -> str:
    beside = cells.filter(~pl.col("in_grid") & (pl.col("n") > 0)).height
    if not beside:
        return ""
    what = "1 measured cell lies" if beside == 1 else f"{beside} measured cells lie"
    return f"{what} beside this grid: see the boundary figure and the tables."


def _gap_caveat(cells: pl.DataFrame) -> str:
    floors = cells.filter(pl.col("noise_rate") == 0)["gap_err_mean"].drop_nulls().to_list()
    floor = (
        f"up to {max(floors):.3f} at noise rate 0, its floor" if floors else "its floor at noise rate 0 is not measured"
    )
    return (
        f"The gap is biased upward by test-set noise in the oracle's minimum ({floor}), and it also closes when the "
        "best error gets worse: final error and noise cost come first."
    )


def _empty(cells: pl.DataFrame) -> str:
    """Nothing while every planned run finished; else what the hatching and the marks stand for."""
    empty = cells.filter(pl.col("n") == 0).height
    hatched = f"Hatched: no finished run ({empty} of {cells.height} planned cells)." if empty else ""
    return _join([hatched, _lost(cells, mark="\N{DAGGER} ")])


def _unmeasured(cells: pl.DataFrame, metric: str) -> str:
    """How many cells have finished runs without a value of this metric."""
    without = cells.filter((pl.col("n") > 0) & pl.col(f"{metric}_mean").is_null()).height
    return f"No value: {without} cells whose finished runs do not give this metric." if without else ""


def _lost(cells: pl.DataFrame, mark: str = "") -> str:
    """The runs that are not in the means."""
    planned, parts = sum(cells["n_planned"]), []
    lost, failed, unfinished = (sum(cells[name]) for name in ("n_diverged", "n_failed", "n_unfinished"))
    if lost:
        parts.append(f"{mark}Diverged runs ({lost} of {planned}) are left out of the means.")
    if failed:
        parts.append(f"Failed: {failed} of {planned} planned runs.")
    if unfinished:
        parts.append(f"Not finished: {unfinished} of {planned} planned runs.")
    return " ".join(parts)
