"""How sure a surface is of a boundary: for each noise rate, where it lies and the width of its band."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from orchestrator.analysis.observations import Floats
from orchestrator.analysis.surface import Surface, crossings

CONFIDENCE = 0.9
GRID_POINTS, DRAWS = 128, 256
LIKELY, POSSIBLE = 0.5, 0.1
"""Share of the drawn curves that cross within the measured ratios: from LIKELY on the boundary counts as inside them,
below POSSIBLE as outside."""


@dataclass(frozen=True)
class Edge:
    """Where the curve of a noise rate enters, or leaves, the region above the level.

    Attributes:
        share: of the drawn curves that do so within the measured ratios. The others below are of these alone.
        log_ratio: median log of p/n.
        half_width: of the central 90 %, in log of p/n.
    """

    share: float
    log_ratio: float
    half_width: float

    @classmethod
    def of(cls, logs: Floats) -> Edge | None:
        """From the crossing of every drawn curve; None where not one is within the measured ratios."""
        inside = logs[np.isfinite(logs)]
        if not len(inside):
            return None
        low, middle, high = np.quantile(inside, [(1 - CONFIDENCE) / 2, 0.5, (1 + CONFIDENCE) / 2])
        return cls(len(inside) / len(logs), float(middle), float(high - low) / 2)


@dataclass(frozen=True)
class Row:
    """One noise rate. `above` is the share of drawn curves that are above the level at some measured ratio."""

    noise_rate: float
    above: float
    enter: Edge | None
    exit: Edge | None

    @property
    def inside(self) -> dict[str, Edge]:
        """Edges that lie within the measured ratios, as "enter" and "exit"."""
        edges = {"enter": self.enter, "exit": self.exit}
        return {name: edge for name, edge in edges.items() if edge and edge.share >= LIKELY}

    @property
    def half_width(self) -> float:
        """The widest of its bands; 0 where no boundary lies inside."""
        return max((edge.half_width for edge in self.inside.values()), default=0.0)

    @property
    def is_possible(self) -> bool:
        """Whether a boundary may lie inside, though it is not likely."""
        return not self.inside and any(edge.share >= POSSIBLE for edge in (self.enter, self.exit) if edge)

    def document(self) -> dict[str, Any]:
        return asdict(self)


def boundary_rows(surface: Surface, rates: Floats, log_range: tuple[float, float], level: float) -> list[Row]:
    """A row for each noise rate. `level` is on the scale of the surface (`root`)."""
    grid = np.linspace(*log_range, GRID_POINTS)
    rows = []
    for rate in rates.tolist():
        curves = surface.draws(np.column_stack([grid, np.full(GRID_POINTS, rate)]), DRAWS)
        enter, leave = crossings(grid, curves, level)
        above = float((curves > level).any(axis=0).mean())
        rows.append(Row(rate, above, Edge.of(enter), Edge.of(leave)))
    return rows
