"""What a refinement looks for: where a metric crosses a level, how sharply, and for how many runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from orchestrator.analysis.levels import read_levels
from search_spaces.runs import count_beside, expand
from search_spaces.spec import SearchSpace

PRECISION = 0.05
"""Default half width of the 90 % band of the boundary, in log p/n."""


@dataclass(frozen=True)
class Target:
    """Find where `metric` crosses `level`.

    Attributes:
        metric: one of METRICS.
        level: in the metric's unit.
        precision: half width of the 90 % band, in log p/n, at which a boundary counts as found.
        budget: most runs beside the grid, over all launches of the sweep.
    """

    metric: str
    level: float
    precision: float
    budget: int

    def __str__(self) -> str:
        return f"{self.metric} = {self.level:g}"


def parse_target(text: str, space: SearchSpace, *, budget: int | None = None, precision: float | None = None) -> Target:
    """Read "METRIC=LEVEL", or "METRIC" alone for the level that `analysis.levels` knows for it.

    By default the budget is the number of runs of the grid, which a refinement then at most doubles.

    Raises:
        ValueError: with all that is wrong, and what is allowed.
    """
    problems = []
    metric, level = "", 0.0
    try:
        ((metric, level),) = read_levels([text], space.analysis).items()
    except ValueError as error:
        problems.append(str(error).removeprefix("boundary: "))
    if metric == "noise_cost" and 0 not in space.noise.rates:
        problems.append("noise_cost needs clean twins: put 0 among noise.rates")
    if precision is not None and not 0 < precision < math.inf:
        problems.append(f"--precision {precision:g} must be above 0, for example {PRECISION:g}")
    if budget is not None and budget < 1:
        problems.append(f"--budget {budget} must be at least 1")
    if problems:
        raise ValueError(f"--refine {text!r}: {'; '.join(problems)}")
    grid = len(expand(space)) - count_beside(space)
    return Target(metric, level, PRECISION if precision is None else precision, grid if budget is None else budget)
