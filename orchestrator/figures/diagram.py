"""The parts of a printed diagram: its page, its grid of cells, its axes and the curves on top.

A planned cell with data is a coloured Rectangle, one without is hatched grey, and a point of the grid that
was never planned stays blank. Each Rectangle's gid says which it is, as "measured 2 5" or "missing 2 5" or
"diverged 2 5", with row and column counted from the lowest noise rate and ratio. Import this module only
where a figure is drawn: it imports Matplotlib.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from orchestrator.analysis.boundary import drawn_bands
from orchestrator.analysis.definitions import METRICS
from orchestrator.figures.page import SMALL, TEXT, ratio_edges, text_width

NO_DATA, DIVERGED, ESTIMATE, FRAME = "#ececec", "#c8c8c8", "#CC79A7", "#9a9a9a"
VALUE_SIZES = (6.5, 6.0, 5.5)  # points; a map uses one of them throughout
BLANK = "#FFFFFF"
DASHES = (0, (2.2, 1.2))
Paint = Callable[[dict[str, Any]], tuple[str, str] | None]
"""From a row of the cell table to its colour (hex) and text, or None where there is nothing to colour."""


class ColourScale:
    """Colours of a metric: cividis, from 0 (or the lowest value, where that is negative) to the highest value.

    From 0, since a map whose scale starts at the best cell exaggerates.
    """

    def __init__(self, values: pl.Series) -> None:
        known = values.drop_nulls().to_list()
        self.low, self.high = min([0.0, *known]), max([0.01, *known])
        self.normal, self.colours = Normalize(self.low, self.high), colormaps["cividis"]
        largest = max(-self.low, self.high)
        self.decimals = 3 if largest < 0.1 else 2 if largest < 10 else 0

    def colour(self, value: float) -> str:
        """As hex."""
        return to_hex(self.colours(self.normal(value)))

    def draw_bar(self, axes: Axes, label: str, *, level: float | None = None) -> None:
        """Fill `axes` with the colour bar, with a line at `level` if that is on the scale."""
        figure = axes.figure
        assert isinstance(figure, Figure)
        bar = figure.colorbar(ScalarMappable(self.normal, self.colours), cax=axes, ticks=MaxNLocator(5))
        bar.outline.set_linewidth(0)  # type: ignore[operator]
        axes.tick_params(labelsize=TEXT - 0.5, width=0.5, length=2, pad=1.5)
        bar.set_label(label, fontsize=TEXT, labelpad=3)
        if level is not None and self.low <= level <= self.high:
            line = axes.axhline(level, color=ESTIMATE, linewidth=1.6)
            line.set_path_effects([withStroke(linewidth=2.8, foreground="white")])


def draw_cells(axes: Axes, cells: pl.DataFrame, paint: Paint, *, count: str) -> None:
    """Draw every planned cell, its text and its number of seeds (column `count`), and name the axes.

    x is log10(p/n); rows have equal height, since noise rates are categories here and not a scale.
    """
    ratios, rates = np.unique(cells["ratio"].to_numpy()), np.unique(cells["noise_rate"].to_numpy())
    edges = ratio_edges(ratios)
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(-0.5, len(rates) - 0.5)
    figure = axes.figure
    assert isinstance(figure, Figure)
    box, (width, height) = axes.get_position(), figure.get_size_inches()
    points = 72 * width * box.width / (edges[-1] - edges[0])  # per decade
    room = (float(np.diff(edges).min() * points), 72 * height * box.height / len(rates))
    painted = [(cell, paint(cell) if cell["n"] > 0 else None) for cell in cells.sort("noise_rate", "ratio").to_dicts()]
    entries = [(look[1], cell[count], cell["n_diverged"] > 0) for cell, look in painted if look]
    chosen, sizes = _choose_texts(entries, room)
    texts = iter(chosen)
    for cell, look in painted:
        r, c = int(np.searchsorted(rates, cell["noise_rate"])), int(np.searchsorted(ratios, cell["ratio"]))
        span = edges[c + 1] - edges[c]
        corner, centre, own_room = (edges[c], r - 0.5), (edges[c] + span / 2, r), (span * points, room[1])
        if look is not None:
            colour = look[0]
            shape = Rectangle(corner, span, 1, facecolor=colour, edgecolor="white", gid=f"measured {r} {c}")
            if colour == BLANK:  # white on white needs a frame
                shape.set(edgecolor=FRAME, zorder=1.5)
            _label(axes, centre, [next(texts)], sizes, own_room, ink(colour), colour)
        else:
            diverged = cell["phase"] == "diverged"
            grey = DIVERGED if diverged else NO_DATA
            name, hatch = ("diverged", "xxxx") if diverged else ("missing", "/////")
            gid = f"{name} {r} {c}"
            shape = Rectangle(corner, span, 1, facecolor=grey, edgecolor=FRAME, hatch=hatch, gid=gid, zorder=1.5)
            word = "value" if cell["n"] else "data"  # runs may finish without this metric
            choices = [["diverged"], ["div."]] if diverged else [[f"no {word}"], ["no", word]]
            _label(axes, centre, choices, (SMALL, SMALL), own_room, "#202020", grey)
        shape.set_linewidth(0.5)
        axes.add_patch(shape)
    _name_axes(axes, ratios, rates, points)


def _choose_texts(
    entries: Sequence[tuple[str, int, bool]], room: tuple[float, float]
) -> tuple[list[list[str]], tuple[float, float]]:
    """What every cell of a map says, and the font sizes: value and number of seeds, or the value alone, or nothing.

    The narrowest cell (`room`: width and height in points) decides for all: a map in which some cells have a number and
    others none looks as if those lacked something. entries: value, seeds, and whether a run diverged, which is marked
    by a dagger as long as there is room for one.
    """
    daggers = ["\N{DAGGER}" if lost else "" for *_, lost in entries]
    both = [[value, f"n={n}{dagger}"] for (value, n, _), dagger in zip(entries, daggers, strict=True)]
    alone = [[f"{value}{dagger}"] for (value, *_), dagger in zip(entries, daggers, strict=True)]
    for texts in (both, alone, [[dagger] if dagger else [] for dagger in daggers]):
        for size in VALUE_SIZES:
            sizes = (size, SMALL)
            wide = (text_width(text, sizes[i]) for lines in texts for i, text in enumerate(lines))
            tall = sum(sizes[: max(map(len, texts), default=0)]) * 1.15
            if max(wide, default=0.0) + 2 <= room[0] and tall <= room[1]:
                return texts, sizes
    return [[] for _ in entries], (VALUE_SIZES[-1], SMALL)


def _label(
    axes: Axes,
    centre: tuple[float, float],
    choices: Sequence[Sequence[str]],
    sizes: tuple[float, float],
    room: tuple[float, float],
    colour: str,
    behind: str,
) -> None:
    """Write the first of `choices` that fits into `room` points (width, height), or nothing.

    `behind`, the colour of the cell, goes under the text, so that hatching and curves do not run through a number.
    """
    for texts in filter(None, choices):
        used = sizes[: len(texts)]
        wide = max(text_width(text, size) for text, size in zip(texts, used, strict=True))
        if wide + 2 > room[0] or sum(used) * 1.15 > room[1]:
            continue
        box = {"facecolor": behind, "edgecolor": "none", "pad": 0.4}
        tall = sum(used) * 1.15
        top = tall / 2
        for text, size in zip(texts, used, strict=True):
            middle = (top - size * 1.15 / 2) / room[1]
            axes.text(
                centre[0],
                centre[1] + middle,
                text,
                fontsize=size,
                color=colour,
                ha="center",
                va="center_baseline",
                bbox=box,
                zorder=5,
            )
            top -= size * 1.15
        return


def ink(colour: str) -> str:
    """Black or white, whichever has the higher contrast on `colour` (hex), by the relative luminance of WCAG 2."""
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return "black" if linear @ [0.2126, 0.7152, 0.0722] > 0.179 else "white"


def _name_axes(axes: Axes, ratios: np.ndarray, rates: np.ndarray, points: float) -> None:
    size = TEXT - 0.5
    free, ticks = -np.inf, []
    for ratio in ratios:  # every measured ratio gets its tick; labels that would touch the one before are left out
        centre, half = np.log10(ratio) * points, text_width(_short(ratio), size) / 2
        ticks.append(_short(ratio) if centre - half > free else "")
        free = centre + half + 2.5 if ticks[-1] else free
    axes.set_xticks(np.log10(ratios), ticks, fontsize=size)
    axes.set_yticks(np.arange(len(rates)), [f"{rate:g}" for rate in rates], fontsize=size)
    axes.tick_params(length=2, width=0.5, pad=1.5)
    axes.set_xlabel("parameters per training sample, p/n (log scale)", fontsize=TEXT, labelpad=2)
    axes.set_ylabel("noise rate", fontsize=TEXT, labelpad=2)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _short(ratio: float) -> str:
    """Two significant digits where they are within 2.5 % of the ratio, else three."""
    two = float(f"{ratio:.2g}")
    return f"{two:g}" if abs(two / ratio - 1) <= 0.025 and ratio < 99.5 else f"{float(f'{ratio:.3g}'):g}"


def curve_key(theory: pl.DataFrame | None, boundary: pl.DataFrame | None) -> list[Artist]:
    """The entries of the key for what `draw_curves` draws."""
    key: list[Artist] = []
    if theory is not None:
        key.append(Line2D([], [], color="black", linewidth=1.1, label="closed form"))
    if boundary is not None:
        name, level = METRICS[boundary["metric"][0]].label, boundary["threshold"][0]
        label = f"estimated: {name} = {level:g}"
        key.append(Line2D([], [], color=ESTIMATE, linewidth=1.2, linestyle=DASHES, label=label))
        if drawn_bands(boundary).select(pl.any_horizontal(pl.col("^.*_from$").is_not_null()).any()).item():
            band = f"{100 * boundary['confidence'][0]:g}% band over seeds"
            key.append(Patch(facecolor=ESTIMATE, alpha=0.45, linewidth=0, label=band))
    return key


def draw_curves(axes: Axes, cells: pl.DataFrame, theory: pl.DataFrame | None, boundary: pl.DataFrame | None) -> None:
    """Draw the closed-form line and the estimated boundary over the cells.

    The theory line runs through row centres, and only between measured noise rates. The estimate is made per
    measured noise rate, so it is a dash across that row, with its band; where it is null nothing is drawn.
    """
    rates = np.unique(cells["noise_rate"].to_numpy())
    if theory is not None:
        inside = theory.filter(pl.col("noise_rate").is_between(rates[0], rates[-1])).sort("noise_rate")
        rows = np.interp(inside["noise_rate"].to_numpy(), rates, np.arange(len(rates)))
        (line,) = axes.plot(np.log10(inside["ratio"].to_numpy()), rows, color="black", linewidth=1.1, zorder=4)
        line.set_path_effects([withStroke(linewidth=2.4, foreground="white")])
    if boundary is not None:
        for row in drawn_bands(boundary).to_dicts():
            r = int(np.searchsorted(rates, row["noise_rate"]))
            if r < len(rates) and rates[r] == row["noise_rate"]:
                for name in ("enter", "exit"):
                    _draw_estimate(axes, r, row[name], row[f"{name}_from"], row[f"{name}_to"])


def _draw_estimate(axes: Axes, r: int, ratio: float | None, low: float | None, high: float | None) -> None:
    if ratio is None:
        return
    x = np.log10(ratio)
    if low is not None and high is not None:
        left, right = np.log10(low), np.log10(high)
        band = Rectangle((left, r - 0.5), right - left, 1, facecolor=ESTIMATE, alpha=0.45, linewidth=0, zorder=3)
        band.set_gid(f"band {r}")
        axes.add_patch(band)
    (line,) = axes.plot([x, x], [r - 0.5, r + 0.5], color=ESTIMATE, linewidth=1.2, linestyle=DASHES, zorder=4)
    line.set_gid(f"estimated {r}")


def mark_look(state: str, colour: str | None) -> dict[str, Any]:
    """How a cell looks as a mark: a disc of its colour (hex); hollow without data; a cross where all runs diverged."""
    look = {"linestyle": "none", "markeredgecolor": "#606060", "markeredgewidth": 0.6}
    if state == "measured":
        return look | {"marker": "o", "markerfacecolor": colour, "markeredgewidth": 0.4, "markeredgecolor": "#202020"}
    return look | {"marker": "x" if state == "diverged" else "o", "markerfacecolor": "none"}


def patch_key(colour: str, label: str, *, hatch: str = "") -> Patch:
    """An entry of the key for cells of one colour."""
    return Patch(facecolor=colour, edgecolor="#808080", linewidth=0.4, hatch=hatch, label=label)
