"""What every figure has to admit below itself: definitions, seeds, caveats, and what is not there."""

from __future__ import annotations

import polars as pl

from orchestrator.analysis.definitions import CATASTROPHIC_SHARE, INTERPOLATION_ERROR, METRICS


def metric_caption(cells: pl.DataFrame, metric: str) -> str:
    """Definition, seeds and caveats of one metric, as they stand under its figure."""
    parts = [METRICS[metric].definition, _kind(cells, metric), _seeds(cells, f"{metric}_n")]
    if metric.startswith("gap_") or metric == "err_best":
        parts.append(_gap_caveat(cells))
    return _join([*parts, _empty(cells)])


def phase_caption(cells: pl.DataFrame) -> str:
    """The rule behind the phases, seeds and caveats, as they stand under a phase map."""
    return _join([_phase_rule(cells), _seeds(cells, "n"), _gap_caveat(cells), _empty(cells)])


def overview_caption(cells: pl.DataFrame, metrics: tuple[str, ...]) -> str:
    """The definitions of panels (a), (b), ... and of the phases in the last one, then seeds and caveats."""
    letters = "abcdefgh"
    panels = [f"({letters[i]}) {METRICS[metric].definition}" for i, metric in enumerate(metrics)]
    return _join(
        [
            *panels,
            f"({letters[len(metrics)]}) {_phase_rule(cells)}",
            _seeds(cells, "n"),
            _gap_caveat(cells),
            _empty(cells),
        ]
    )


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
        return "No run has finished."
    if max(counts) == 1:
        return "One seed a cell (n = 1), so no spread over seeds."
    number = f"n = {min(counts)}" if min(counts) == max(counts) else f"n = {min(counts)} to {max(counts)}"
    return f"Means over {number} seeds a cell."


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
    empty, planned = cells.filter(pl.col("n") == 0).height, sum(cells["n_planned"])
    lost, failed, unfinished = (sum(cells[name]) for name in ("n_diverged", "n_failed", "n_unfinished"))
    parts = [f"Hatched: no finished run ({empty} of {cells.height} planned cells)."] if empty else []
    if lost:
        parts.append(f"\N{DAGGER} Diverged runs ({lost} of {planned}) are left out of the means.")
    if failed:
        parts.append(f"Failed: {failed} of {planned} planned runs.")
    if unfinished:
        parts.append(f"Not finished: {unfinished} of {planned} planned runs.")
    return " ".join(parts)
