"""Where a metric crosses a level, with both axes to scale: every measured cell is a mark, and the boundary is a curve.

There is no colour between the marks, so cells may lie anywhere: on a grid, beside it, at rates and widths of their own.
Matplotlib is imported when a figure is drawn, not before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from orchestrator.analysis.boundary import drawn_bands
from orchestrator.analysis.definitions import METRICS
from orchestrator.figures.captions import boundary_caption
from orchestrator.figures.numbers import boundary_numbers, metric_numbers, theory_numbers

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from orchestrator.figures.diagram import ColourScale

PANEL_HEIGHT = 2.2  # inches
MARGIN = 0.05  # of each axis, around the outermost cells
LARGEST_MARK, SMALLEST_MARK = 7.0, 2.4  # points, across
JUMP = 0.25  # share of the x axis between neighbouring rates at which a curve has gone over to another branch
WAYS = {"enter": ("rises above it", (0, (1.0, 0.9))), "exit": ("falls below it", (0, (3.2, 1.2)))}
GUIDES = {"max-margin": (0, (4, 1, 1, 1)), "early stop": (0, (1, 1.6))}


def draw_boundary_map(
    cells: pl.DataFrame,
    metric: str,
    level: float,
    path_stem: Path,
    *,
    title: str,
    caption: str,
    formats: Sequence[str] = ("png", "svg"),
    boundary: pl.DataFrame | None = None,
    theory: pl.DataFrame | None = None,
) -> list[Path]:
    """Draw where `metric` crosses `level`; gives the files written: `path_stem` plus ".png" and so on, and a CSV of
    what is drawn.

    cells: what `cell_table` gives, in the grid or beside it. boundary: what `fit_boundary` gives at the rates of
    `curve_rates` for this metric and level; None where too few cells are measured. theory: what `theory_lines` gives.
    caption: what was run; definition, seeds, method and caveats are appended.

    Raises ValueError on an unknown metric, on cells without a row, and on a format other than png, svg and pdf.
    """
    from matplotlib import rc_context

    from orchestrator.figures import page as printed

    figure = boundary_map(cells, metric, level, title=title, caption=caption, boundary=boundary, theory=theory)
    numbers = [metric_numbers(cells, metric), boundary_numbers(boundary), theory_numbers(theory, metric, level)]
    with rc_context(printed.STYLE):
        return printed.write_figure(figure, Path(path_stem), formats, pl.concat(numbers))


def boundary_map(
    cells: pl.DataFrame,
    metric: str,
    level: float,
    *,
    title: str,
    caption: str,
    boundary: pl.DataFrame | None = None,
    theory: pl.DataFrame | None = None,
) -> Figure:
    """The figure behind `draw_boundary_map`; its first Axes holds marks and curves, the second the colour bar.

    Each mark's gid says what it is, as "measured 7", "missing 7" or "diverged 7", counted from 0 by noise rate and
    ratio.
    """
    from matplotlib import rc_context

    from orchestrator.figures import diagram
    from orchestrator.figures import page as printed

    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; choose from {', '.join(METRICS)}")
    if cells.is_empty():
        raise ValueError("there are 0 planned cells to draw; plan at least one run, then draw again")
    cells = cells.sort("noise_rate", "ratio")
    numbers = metric_numbers(cells, metric)
    with rc_context(printed.STYLE):
        text = f"{caption} {boundary_caption(cells, boundary, theory, metric)}"
        key = _key(numbers, metric, level, boundary, theory)
        page = printed.Page(
            cells, rows=1, columns=1, title=title, caption=text, key=key, bars=True, panel_height=PANEL_HEIGHT
        )
        axes, scale = page.panel(0), diagram.ColourScale(numbers["value"])
        _scale_axes(axes, cells)
        _draw_marks(axes, numbers, scale)
        if boundary is not None:
            _draw_boundary(axes, boundary)
        if theory is not None:
            _draw_theory(axes, theory)
        scale.draw_bar(page.colour_bar(0), f"{METRICS[metric].label} ({METRICS[metric].unit})", level=level)
    return page.figure


def _scale_axes(axes: Axes, cells: pl.DataFrame) -> None:
    from orchestrator.figures.page import TEXT

    logs, rates = np.log10(cells["ratio"].to_numpy()), cells["noise_rate"].to_numpy()
    for set_limits, values, least in ((axes.set_xlim, logs, 0.3), (axes.set_ylim, rates, 0.05)):
        low, high = float(values.min()), float(values.max())
        middle, half = (low + high) / 2, max(high - low, least) / 2 * (1 + 2 * MARGIN)
        set_limits(middle - half, middle + half)
    ticks = list(_round_ratios(*axes.get_xlim()))
    axes.set_xticks(np.log10(ticks), [f"{tick:g}" for tick in ticks])
    axes.tick_params(labelsize=TEXT - 0.5, length=2, width=0.5, pad=1.5)
    axes.locator_params(axis="y", nbins=6)
    axes.set_xlabel("parameters per training sample, p/n (log scale)", fontsize=TEXT, labelpad=2)
    axes.set_ylabel("noise rate", fontsize=TEXT, labelpad=2)
    axes.spines[["top", "right"]].set_visible(False)


def _round_ratios(low: float, high: float) -> Iterator[float]:
    """Ratios 1, 2 and 5 times powers of ten between two log10(ratio); only the powers over more than three decades."""
    for power in range(int(np.floor(low)), int(np.ceil(high)) + 1):
        for digit in (1, 2, 5) if high - low <= 3 else (1,):
            if low <= np.log10(digit) + power <= high:
                yield float(f"{digit}e{power}")


def _draw_marks(axes: Axes, numbers: pl.DataFrame, scale: ColourScale) -> None:
    from orchestrator.figures import diagram

    x, y = np.log10(numbers["ratio"].to_numpy()), numbers["noise_rate"].to_numpy()
    size = _mark_size(axes, x, y)
    for i, (state, value) in enumerate(zip(numbers["state"], numbers["value"], strict=True)):
        look = diagram.mark_look(state, scale.colour(value) if state == "measured" else None)
        axes.plot(x[i], y[i], **look, markersize=size, gid=f"{state} {i}", zorder=3, clip_on=False)


def _mark_size(axes: Axes, x: np.ndarray, y: np.ndarray) -> float:
    """Points across: as large as neighbours allow, so that no mark hides another."""
    figure: Any = axes.figure
    box, (width, height) = axes.get_position(), figure.get_size_inches()
    across = 72 * width * box.width / np.diff(axes.get_xlim()), 72 * height * box.height / np.diff(axes.get_ylim())
    points = np.stack([x * across[0], y * across[1]], axis=1)
    apart = np.hypot(*(points[:, None] - points[None, :]).transpose(2, 0, 1))
    np.fill_diagonal(apart, np.inf)
    return float(np.clip(0.85 * apart.min(initial=np.inf), SMALLEST_MARK, LARGEST_MARK))


def _draw_boundary(axes: Axes, boundary: pl.DataFrame) -> None:
    """Curves over the marks and bands below them, so that no mark changes its colour."""
    from matplotlib.patheffects import withStroke

    from orchestrator.figures.diagram import ESTIMATE

    boundary, width = drawn_bands(boundary), float(np.diff(axes.get_xlim())[0])
    for name, (_, dashes) in WAYS.items():
        for part in _pieces(boundary, name, width):
            rates, x = part["noise_rate"].to_numpy(), np.log10(part[name].to_numpy())
            (line,) = axes.plot(x, rates, color=ESTIMATE, linewidth=1.6, linestyle=dashes, gid=name, zorder=5)
            line.set_path_effects([withStroke(linewidth=2.2, foreground="white")])
            banded = part.filter(pl.col(f"{name}_from").is_not_null())
            if banded.height > 1:
                low, high = banded[f"{name}_from"].log10(), banded[f"{name}_to"].log10()
                band = axes.fill_betweenx(banded["noise_rate"], low, high, color=ESTIMATE, alpha=0.3, linewidth=0)
                band.set(gid=f"band {name}", zorder=1)


def _pieces(boundary: pl.DataFrame, name: str, width: float) -> Iterator[pl.DataFrame]:
    """The parts of a curve without a gap: rates next to each other, and no jump to another branch."""
    table = boundary.sort("noise_rate").with_columns(pl.col(name).log10().alias("x"))
    apart = pl.col("x").is_null() | ((pl.col("x") - pl.col("x").shift()).abs() > JUMP * width)
    table = table.with_columns(piece=apart.fill_null(True).cum_sum()).filter(pl.col("x").is_not_null())
    for _, part in table.group_by("piece", maintain_order=True):
        yield part


def _draw_theory(axes: Axes, theory: pl.DataFrame) -> None:
    from matplotlib.patheffects import withStroke

    for (line, guide, branch), part in theory.group_by("line", "guide", "branch", maintain_order=True):
        x, y = np.log10(part["ratio"].to_numpy()), part["noise_rate"].to_numpy()
        look = _line_look(str(line), bool(guide))
        (drawn,) = axes.plot(x, y, **look, gid=f"{line} {branch}", zorder=3.5 if guide else 4)
        if not guide:
            drawn.set_path_effects([withStroke(linewidth=2.0, foreground="white")])


def _line_look(line: str, guide: bool) -> dict[str, Any]:
    if not guide:
        return {"color": "black", "linewidth": 1.3, "linestyle": "-"}
    return {"color": "#555555", "linewidth": 0.7, "linestyle": GUIDES[line]}


def _key(
    numbers: pl.DataFrame, metric: str, level: float, boundary: pl.DataFrame | None, theory: pl.DataFrame | None
) -> list[Artist]:
    """What is drawn, and only that."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    from orchestrator.figures import diagram

    states = {"measured": "measured cell", "missing": "no value", "diverged": "diverged"}
    found = set(numbers["state"])
    name = f"{METRICS[metric].label} = {level:g}"
    key: list[Artist] = [Line2D([], [], color=diagram.ESTIMATE, linewidth=1.6, label=f"level: {name}")]
    key += [
        Line2D([], [], **diagram.mark_look(state, "#7C7B78"), markersize=5, label=label)
        for state, label in states.items()
        if state in found
    ]
    if boundary is not None:
        for way, (verb, dashes) in WAYS.items():
            if boundary[way].is_not_null().any():
                label = f"estimate, {verb}"
                key.append(Line2D([], [], color=diagram.ESTIMATE, linewidth=1.6, linestyle=dashes, label=label))
        if drawn_bands(boundary).select(pl.any_horizontal(pl.col("^.*_from$").is_not_null()).any()).item():
            band = f"{100 * boundary['confidence'][0]:g}% band over seeds"
            key.append(Patch(facecolor=diagram.ESTIMATE, alpha=0.3, linewidth=0, label=band))
    if theory is not None:
        for line, guide in theory.select("line", "guide").unique(maintain_order=True).rows():
            label = f"guide, {line}" if guide else f"closed form, {line}"
            key.append(Line2D([], [], **_line_look(line, guide), label=label))
    return key
