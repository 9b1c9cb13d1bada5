"""The axis of training time: epochs or flow time, linear or logarithmic, with a place for the limit at infinity.

Import this module only where a figure is drawn: it imports Matplotlib.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from orchestrator.figures.charts import AXIS_GREY, DOTTED, LABEL, Look, draw_marks, draw_series
from orchestrator.figures.page import TEXT


@dataclass(frozen=True)
class TimeAxis:
    """Where epochs lie on an x axis; the limit at +infinity has a place of its own, right of a dotted line."""

    first: float
    last: float
    logarithmic: bool
    limit: float | None
    """Position of +infinity; None where no run has it."""
    name: str

    @classmethod
    def of(cls, epochs: np.ndarray, *, logarithmic: bool, flow: bool) -> TimeAxis:
        """epochs: every epoch that is drawn, with +infinity or without."""
        finite = epochs[np.isfinite(epochs)]
        low, high = (float(finite.min()), float(finite.max())) if len(finite) else (1.0, 1.0)
        logarithmic = logarithmic and low > 0
        limit = None
        if np.isinf(epochs).any():
            limit = high * (high / low) ** 0.1 * 1.3 if logarithmic else high + 0.1 * (high - low or 1.0)
        name = "flow time" if flow else "epoch"
        return cls(low, high, logarithmic, limit, name)

    def place(self, epochs: np.ndarray) -> np.ndarray:
        """Their positions, float64 as given."""
        return np.where(np.isinf(epochs), np.nan if self.limit is None else self.limit, epochs)

    def dress(self, axes: Axes, *, labelled: bool, panel_width: float) -> None:
        """Set scale, limits and ticks; the limit gets the tick \N{INFINITY}."""
        right = self.limit or self.last
        if self.logarithmic:
            axes.set_xscale("log")
            pad = (right / self.first) ** 0.03 if right > self.first else 1.3
            axes.set_xlim(self.first / pad, right * pad)
            decades = np.log10(self.last / self.first) if self.last > self.first else 1.0
            ticks = LogLocator(numticks=max(2, int(panel_width * 4))).tick_values(self.first, self.last)
            if decades < 1:
                ticks = MaxNLocator(3).tick_values(self.first, self.last)
        else:
            pad = 0.03 * (right - self.first or 1.0)
            axes.set_xlim(self.first - pad, right + pad)
            ticks = MaxNLocator(max(2, int(panel_width * 3))).tick_values(self.first, self.last)
        ticks = [tick for tick in ticks if self.first <= tick <= self.last]
        labels = [f"{tick:g}" for tick in ticks]
        if self.limit is not None:
            ticks, labels = [*ticks, self.limit], [*labels, "\N{INFINITY}"]
            middle = np.sqrt(self.last * self.limit) if self.logarithmic else (self.last + self.limit) / 2
            axes.axvline(middle, color=AXIS_GREY, linewidth=0.5, linestyle=DOTTED, zorder=1)
        axes.set_xticks(ticks, labels if labelled else [""] * len(ticks), fontsize=LABEL)
        minor = axes.get_xticks(minor=True)
        axes.set_xticks(minor[(minor >= self.first) & (minor <= self.last)], minor=True)
        axes.xaxis.set_minor_formatter(NullFormatter())
        if labelled:
            scale = " (log scale)" if self.logarithmic else ""
            axes.set_xlabel(f"{self.name}{scale}", fontsize=TEXT, labelpad=2)


def draw_curve(
    axes: Axes, time: TimeAxis, epochs: np.ndarray, values: np.ndarray, look: Look, *, gid: str, **style: Any
) -> None:
    """A curve over time with its band: `draw_series` at finite epochs, and a mark with its interval at the limit.

    values: float64 [3, points], mean, low and high.
    """
    finite = np.isfinite(epochs)
    if finite.any():
        mean, low, high = values[:, finite]
        draw_series(axes, epochs[finite], mean, low, high, look, gid=gid, **style)
    if not finite.all():
        mean, low, high = values[:, ~finite]
        filled = style.get("filled", True)
        draw_marks(axes, time.place(epochs[~finite]), mean, low, high, look, gid=f"{gid} limit", filled=filled)
