"""Where the closed forms of the Gaussian mixture cross a level: lines to hold a measured boundary against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

LINES_FOR = ("err_last", "noise_cost")
"""Metrics of which there is a closed form."""
TRAINED = "min-norm"
"""The interpolator at which gradient flow of least squares ends; the others are guides."""
CLOSED_FORMS = (TRAINED, "max-margin", "early stop")
RATES = 41
SCHEMA = {
    "line": pl.String,
    "guide": pl.Boolean,
    "branch": pl.String,
    "noise_rate": pl.Float64,
    "ratio": pl.Float64,
}


@dataclass(frozen=True)
class ClosedForm:
    """The test error of one classifier, float64 [k] for k ratios p/n at one noise rate and signal R.

    `points` ratios are looked at for changes of sign, before each is found exactly.
    """

    name: str
    error: Callable[[np.ndarray, float, float], np.ndarray]
    points: int


def theory_lines(
    metric: str, level: float, *, signal: float, ratios: tuple[float, float], rates: tuple[float, float]
) -> pl.DataFrame:
    """Where closed forms of `metric` (one of LINES_FOR) cross `level`, within the given ratios and noise rates.

    Rows: line, the classifier; guide, whether it is another classifier than the min-norm interpolator, at which
    gradient flow of least squares ends; branch, "enter" where the error rises through the level with p/n and "exit"
    where it falls; noise_rate; ratio. Sorted along each line and branch; a classifier may have no row.

    Formulas: workers/theory.py. The early stop is one gradient step. Where a training set is not separable there is no
    max-margin classifier, and its line ends. Noise cost is the error less that at noise rate 0, at the same ratio.

    Raises ValueError on a metric without a closed form.
    """
    if metric not in LINES_FOR:
        raise ValueError(f"{metric} has no closed form; choose from {', '.join(LINES_FOR)}")
    rows = []
    for form in _closed_forms():
        for rate in np.linspace(*rates, RATES):

            def excess(ratio: np.ndarray, form: ClosedForm = form, rate: float = float(rate)) -> np.ndarray:
                error = form.error(ratio, rate, signal)
                return error - level - (form.error(ratio, 0.0, signal) if metric == "noise_cost" else 0.0)

            for branch, ratio in _crossings(excess, np.geomspace(*ratios, form.points)):
                rows.append((form.name, form.name != TRAINED, branch, float(rate), ratio))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row").sort("guide", "line", "branch", "noise_rate", "ratio")


def _closed_forms() -> tuple[ClosedForm, ...]:
    from workers.theory import early_stop_error, max_margin_error, min_norm_error

    return (
        ClosedForm(CLOSED_FORMS[0], min_norm_error, 401),
        ClosedForm(CLOSED_FORMS[1], max_margin_error, 9),  # milliseconds a point, and a smooth function
        ClosedForm(CLOSED_FORMS[2], early_stop_error, 101),
    )


def _crossings(excess: Callable[[np.ndarray], np.ndarray], ratios: np.ndarray) -> list[tuple[str, float]]:
    """Every change of sign of `excess` over log(ratio): whether it rises or falls, and where."""
    from scipy.optimize import brentq

    logs, values = np.log(ratios), excess(ratios)
    found = []
    for i in np.flatnonzero(values[:-1] * values[1:] < 0):  # NaN compares false
        root = brentq(lambda log: float(excess(np.exp(np.array(log)))), logs[i], logs[i + 1], xtol=1e-3)
        found.append(("enter" if values[i] < 0 else "exit", float(np.exp(root))))
    return found
