"""Where cells may be placed: noise rates and sizes within the range of a space's grid."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from search_spaces.architectures import count_parameters, width_for
from search_spaces.cells import Point
from search_spaces.runs import grid_points
from search_spaces.spec import SearchSpace

MOST_RATES, MOST_COLUMNS = 48, 160
NICE_STEPS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
"""Between candidate noise rates: the finest that gives at most MOST_RATES, so that rates read well in a table."""


@dataclass(frozen=True)
class Candidates:
    """All points that a cell may be placed at.

    Attributes:
        points: noise rate, width, samples of each.
        positions: float64[P, 2], log of p/n and noise rate of each.
        rates: float64[R], the distinct noise rates, ascending.
        log_range: of p/n over the grid.
    """

    points: list[Point]
    positions: np.ndarray
    rates: np.ndarray
    log_range: tuple[float, float]


def log_ratio(space: SearchSpace, width: int, samples: int) -> float:
    """Log of the realised p/n."""
    facts = space.dataset.described
    parameters = count_parameters(space.architecture, width, classes=facts.classes, channels=facts.channels)
    return math.log(parameters / samples)


def candidates_of(space: SearchSpace, precision: float) -> Candidates:
    """Sizes at about half the `precision` (in log p/n) from each other, as far as widths allow, and at nice rates.

    All points of the grid and all cells of the space are among them.
    """
    planned = sorted({*grid_points(space), *(cell.point for cell in space.cells)})
    sizes = sorted({(width, samples) for _, width, samples in planned})
    logs = [log_ratio(space, *size) for size in sizes]
    low, high = min(logs), max(logs)
    count = min(MOST_COLUMNS, math.ceil((high - low) / (precision / 2)) + 1)
    facts = space.dataset.described
    columns = dict(zip(sizes, logs, strict=True))
    for value in np.exp(np.linspace(low, high, max(2, count))).tolist():
        width, samples = sizes[0]
        if space.axis == "width":
            width = width_for(space.architecture, value * samples, classes=facts.classes, channels=facts.channels)
        else:
            parameters = count_parameters(space.architecture, width, classes=facts.classes, channels=facts.channels)
            samples = round(parameters / value)
        at = log_ratio(space, width, samples)
        if low <= at <= high and facts.classes <= samples <= facts.train_samples:
            columns[width, samples] = at
    rates = _rates(space, {rate for rate, _, _ in planned})
    points = {(rate, *size): None for rate in rates for size in columns}
    positions = np.array([(columns[width, samples], rate) for rate, width, samples in points], np.float64)
    return Candidates(list(points), positions, np.array(rates), (low, high))


def _rates(space: SearchSpace, planned: set[float]) -> list[float]:
    low, high = min(planned), max(planned)
    if high == low or space.noise.whole_file:
        return sorted(planned)
    step = next((step for step in NICE_STEPS if (high - low) / step < MOST_RATES), NICE_STEPS[-1])
    nice = [round(k * step, 6) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return sorted(planned | {rate for rate in nice if all(not math.isclose(rate, each) for each in planned)})
