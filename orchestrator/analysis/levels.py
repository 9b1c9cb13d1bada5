"""At which level a boundary is drawn: as the user writes it, or what suits the metric."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.analysis.definitions import BOUNDARY_LEVELS, METRICS

if TYPE_CHECKING:
    from search_spaces.spec import Analysis


def read_levels(texts: Sequence[str], analysis: Analysis) -> dict[str, float]:
    """Metric and level of each "METRIC=LEVEL" or "METRIC", in their order.

    Without a level: the space's own threshold where there is one (boundary_error of the final error, tau of gaps,
    tau_cost of costs), else that of BOUNDARY_LEVELS. Levels are in the metric's unit.

    Raises ValueError, with everything that is wrong: an unknown metric, a level that is no finite number or lacks where
    no default suits every task, a metric given twice.
    """
    own = {"err_last": analysis.boundary_error, "gap_err": analysis.tau, "gap_valsel": analysis.tau}
    own["noise_cost"] = analysis.tau_cost
    levels: dict[str, float] = {}
    problems = []
    for text in texts:
        metric, given, level_text = (part.strip() for part in text.partition("="))
        level = _number(level_text) if given else own.get(metric) or BOUNDARY_LEVELS.get(metric)
        if metric not in METRICS:
            problems.append(f"unknown metric {metric!r}, choose from {', '.join(METRICS)}")
        elif level is None:
            what = f"{level_text!r} is no finite number" if given else "has no level that suits every task"
            problems.append(f"{metric} {what}, write for example {metric}={BOUNDARY_LEVELS.get(metric, 1):g}")
        elif metric in levels:
            problems.append(f"{metric} is there twice, give one level")
        else:
            levels[metric] = level
    if problems:
        raise ValueError(f"boundary: {'; '.join(problems)}")
    return levels


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
