"""The page and the lines of charts: panels that share their axes, one look for each series, gaps where nothing was
measured.

Import this module only where a figure is drawn: it imports Matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from orchestrator.figures.page import DOUBLE_COLUMN, TEXT, TITLE, text_width, wrap

LABEL = TEXT - 0.5
"""Points: ticks, keys and captions; no text of a chart is smaller."""
LINE = 1.3  # line spacing, in font sizes
MARGIN = 0.06  # inches
# Okabe and Ito, "Color Universal Design" (2008), without their yellow, which a white page swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "D", "v", "P", "X", "p")  # upward triangles are kept for thresholds
SOLID, DASHED, DOTTED = "solid", (0, (3.2, 1.4)), (0, (1, 1.2))
BAND, MARKS_ON_A_LINE = 0.16, 8
AXIS_GREY = "#707070"
RULE: Any = {"color": AXIS_GREY, "linewidth": 0.7, "linestyle": DOTTED, "zorder": 1}
"""How a line at one place of an axis is drawn."""
RING: Any = {"marker": "o", "markersize": 4.5, "markerfacecolor": "none", "markeredgecolor": "black"}
RING |= {"markeredgewidth": 0.6, "linestyle": "none"}
"""How a point is ringed."""


@dataclass(frozen=True)
class Look:
    """Colour and marker of a series; both say which one it is, so that a chart reads in grey."""

    colour: str
    marker: str


def looks(count: int) -> list[Look]:
    """One look for each of `count` ordered series; beyond seven colours run from dark to light instead."""
    if count <= len(COLOURS):
        return [Look(COLOURS[i], MARKERS[i]) for i in range(count)]
    shades = colormaps["cividis"](np.linspace(0, 0.9, count))
    return [Look(to_hex(shade), MARKERS[i % len(MARKERS)]) for i, shade in enumerate(shades)]


class ChartPage:
    """A figure of `rows` x `columns` panels of `panel_height` inches, laid out in inches: title, panels, key, caption.

    Text is measured, so that it neither overlaps nor is clipped.
    """

    def __init__(
        self,
        *,
        rows: int,
        columns: int,
        title: str,
        caption: str,
        key: Sequence[Artist],
        width: float = DOUBLE_COLUMN,
        panel_height: float = 1.5,
        left: float = 0.46,
        gap: float = 0.12,
        between: float = 0.22,
        right: float = 0.1,
        head: float = 0.04,
    ) -> None:
        room = 72 * (width - 2 * MARGIN)
        titles, captions = wrap(title, TITLE, room, bold=True), wrap(caption, LABEL, room)
        widest = max((text_width(str(handle.get_label()), LABEL) for handle in key), default=1.0)
        key_columns = max(1, min(len(key), int(room // (widest + 5.2 * LABEL))))
        key_rows = -(-len(key) // key_columns) if key else 0
        head += 0.08 + len(titles) * TITLE * LINE / 72
        foot = 0.44 + 0.14 * key_rows + (0.06 if key else 0) + len(captions) * LABEL * LINE / 72 + 0.05
        height = head + rows * panel_height + rows * between + foot
        self.figure = Figure(figsize=(width, height))
        FigureCanvasAgg(self.figure)
        self.size, self.panel_height, self.left = (width, height), panel_height, left
        self.panel_width = (width - left - right - (columns - 1) * gap) / columns
        self.rows, self.columns, self._gap, self._between, self._head = rows, columns, gap, between, head
        self.figure.text(MARGIN / width, 1 - 0.08 / height, "\n".join(titles), fontsize=TITLE, weight="bold", va="top")
        below = height - head - rows * (panel_height + between) - 0.44
        if key:
            self.figure.legend(
                handles=list(key),
                loc="upper left",
                bbox_to_anchor=(MARGIN / width, below / height),
                ncols=key_columns,
                fontsize=LABEL,
                frameon=False,
                borderpad=0,
                borderaxespad=0,
                handlelength=2.6,
                handletextpad=0.5,
                columnspacing=1.2,
                labelspacing=0.45,
            )
            below -= 0.14 * key_rows + 0.06
        self.figure.text(
            MARGIN / width, below / height, "\n".join(captions), fontsize=LABEL, va="top", linespacing=LINE
        )

    def panel(self, row: int, column: int, title: str = "") -> Axes:
        """The Axes of a panel, in the house's look, with its own title."""
        x = self.left + column * (self.panel_width + self._gap)
        y = self.size[1] - self._head - (row + 1) * (self.panel_height + self._between)
        axes = self.figure.add_axes(
            (x / self.size[0], y / self.size[1], self.panel_width / self.size[0], self.panel_height / self.size[1])
        )
        axes.tick_params(length=2, width=0.5, pad=1.5, labelsize=LABEL)
        axes.tick_params(which="minor", length=1.2, width=0.4)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for spine in axes.spines.values():
            spine.set_zorder(4.5)
        axes.grid(axis="y", color="#e6e6e6", linewidth=0.4)
        axes.set_axisbelow(True)
        if title:
            axes.set_title(title, fontsize=TEXT, loc="left", pad=3)
        return axes

    def colour_bar(self, axes: Axes, width: float = 0.09) -> Axes:
        """Room for a colour bar right of a panel."""
        box = axes.get_position()
        return self.figure.add_axes((box.x1 + 0.06 / self.size[0], box.y0, width / self.size[0], box.height))


def draw_series(
    axes: Axes,
    x: np.ndarray,
    mean: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    look: Look,
    *,
    gid: str,
    dashes: Any = SOLID,
    filled: bool = True,
    band: bool = True,
    linewidth: float = 1.0,
    mark_all: bool = False,
) -> None:
    """A mean line with its band; NaN breaks both. float64 [points] each, x ascending. Long lines carry a few markers
    that tell them apart, or with `mark_all` one at each point.

    A value between two gaps has no line: it is drawn as a mark with an error bar, so that nothing measured is lost.
    """
    known = np.isfinite(mean)
    beside = np.zeros_like(known)
    beside[:-1] |= known[1:]
    beside[1:] |= known[:-1]
    alone = known & ~beside
    every = max(1, len(x) // MARKS_ON_A_LINE) if len(x) > 3 * MARKS_ON_A_LINE and not mark_all else 1
    face = look.colour if filled else "white"
    (line,) = axes.plot(
        x,
        mean,
        color=look.colour,
        linewidth=linewidth,
        linestyle=dashes,
        marker=look.marker,
        markersize=2.8,
        markeredgewidth=0.6,
        markerfacecolor=face,
        markevery=every,
        zorder=3,
    )
    line.set_gid(gid)
    if band:
        where = known & np.isfinite(low) & np.isfinite(high)
        axes.fill_between(
            x,
            np.where(where, low, np.nan),
            np.where(where, high, np.nan),
            color=look.colour,
            alpha=BAND,
            linewidth=0,
            zorder=2,
        )
    if alone.any():
        draw_marks(axes, x[alone], mean[alone], low[alone], high[alone], look, gid=f"{gid} alone", filled=filled)


def draw_marks(
    axes: Axes,
    x: np.ndarray,
    mean: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    look: Look,
    *,
    gid: str,
    filled: bool = True,
) -> None:
    """Values without a line between them, each with its interval as a bar."""
    has = np.isfinite(low) & np.isfinite(high)
    axes.vlines(x[has], low[has], high[has], color=look.colour, linewidth=0.7, zorder=3)
    (marks,) = axes.plot(
        x,
        mean,
        linestyle="none",
        color=look.colour,
        marker=look.marker,
        markersize=3.2,
        markeredgewidth=0.6,
        markerfacecolor=look.colour if filled else "white",
        zorder=4,
    )
    marks.set_gid(gid)


def size_axis(axes: Axes, values: Sequence[float], panel_width: float, label: str) -> None:
    """A log axis whose ticks are the measured values; labels that would touch the one before are left out."""
    axes.set_xscale("log")
    logs = np.log10(values)
    pad = max(0.04 * (logs.max() - logs.min()), 0.04)
    axes.set_xlim(10 ** (logs.min() - pad), 10 ** (logs.max() + pad))
    per_decade = 72 * panel_width / (logs.max() - logs.min() + 2 * pad)
    free, labels = -np.inf, []
    for value, log in zip(values, logs, strict=True):
        text = short(value)
        half = text_width(text, LABEL) / 2
        labels.append(text if log * per_decade - half > free else "")
        free = log * per_decade + half + 2.5 if labels[-1] else free
    axes.set_xticks(list(values), labels, fontsize=LABEL)
    axes.minorticks_off()
    axes.set_xlabel(label, fontsize=TEXT, labelpad=2)


def short(value: float) -> str:
    """Three significant digits, or all of a whole number."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{float(f'{value:.3g}'):g}"


def limit_y(
    axes: Axes, means: np.ndarray, bounds: np.ndarray, *, least: float | None = 0.0, most: float | None = None
) -> None:
    """Limits that hold every mean, and of the intervals what does not dwarf them.

    least, most: what the values cannot be below or above, such as 0 and 1 for errors; None where they can. An interval
    that reaches beyond is cut there.
    """
    means, bounds = means[np.isfinite(means)], bounds[np.isfinite(bounds)]
    if not len(means):
        axes.set_ylim(0, 1)
        return
    low, high = float(means.min()), float(means.max())
    low, high = min(low, 0.0), max(high, 0.0)
    span = high - low or 0.01
    top = min(float(bounds.max(initial=high)), high + 0.35 * span)
    bottom = max(float(bounds.min(initial=low)), low - 0.35 * span)
    if most is not None and high <= most:
        top = min(top, most)
    if least is not None and low >= least:
        bottom = least
    pad = 0.04 * (top - bottom or span)
    axes.set_ylim(bottom - pad, top + pad)


def grey_text(axes: Axes, text: str) -> None:
    """Say in a panel why it is empty."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, fontsize=LABEL, color=AXIS_GREY, ha="center", va="center")


def series_key(names: Sequence[str], styles: Sequence[Look]) -> list[Artist]:
    """Key entries of series."""
    return [
        Line2D([], [], color=look.colour, marker=look.marker, markersize=2.8, linewidth=1.0, label=name)
        for name, look in zip(names, styles, strict=True)
    ]


def style_key(name: str, dashes: Any, *, filled: bool = True, look: Look | None = None) -> Line2D:
    """A key entry of a line style, in grey where it is the same for all colours."""
    look = look or Look(AXIS_GREY, "o")
    face = look.colour if filled else "white"
    return Line2D(
        [],
        [],
        color=look.colour,
        linestyle=dashes,
        linewidth=1.0,
        marker=look.marker,
        markersize=2.8,
        markerfacecolor=face,
        markeredgewidth=0.6,
        label=name,
    )


def ring_key(name: str) -> Line2D:
    """The key entry of ringed points."""
    return Line2D([], [], label=name, **RING)


def rule_key(name: str) -> Line2D:
    """The key entry of a RULE."""
    return Line2D([], [], label=name, **RULE)


def band_key(confidence: float = 0.95) -> Patch:
    """The key entry of the bands."""
    return Patch(facecolor=AXIS_GREY, alpha=0.3, linewidth=0, label=f"{100 * confidence:g}% interval of the mean")
