"""The heat map of width against epoch: a colour where all seeds were evaluated, and nothing anywhere else.

Matplotlib is imported when a figure is drawn, not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from orchestrator.figures.time_axis import TimeAxis

MOST_COLUMNS = 3


def epoch_map(table: pl.DataFrame, *, logarithmic: bool, flow: bool, title: str, caption: str) -> Figure:
    """Test error over epochs (x) and widths (y), a panel for each noise rate, all on one scale from 0.

    table: rows of `mean_curves` for test_error on an axis of widths; a null mean is left out. Cells end midway between
    neighbouring evaluations and widths, on the scale of the axis; the outermost ones mirror the inner edge. Where the
    widths of a sweep were evaluated at different epochs, each has its own edges.
    """
    from matplotlib import colormaps, rc_context
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.ticker import MaxNLocator

    from orchestrator.figures import charts
    from orchestrator.figures.diagram import NO_DATA, patch_key
    from orchestrator.figures.page import DOUBLE_COLUMN, SINGLE_COLUMN, STYLE, TEXT
    from orchestrator.figures.time_axis import TimeAxis

    rates = table["noise_rate"].unique().sort().to_list()
    widths = table["width"].unique().sort().to_list()
    columns = min(len(rates), MOST_COLUMNS)
    rows = -(-len(rates) // columns)
    top = table["mean"].max()
    normal, colours = Normalize(0, max(0.01, float(top) if isinstance(top, float) else 0.01)), colormaps["cividis"]
    with rc_context(STYLE):
        page = charts.ChartPage(
            rows=rows,
            columns=columns,
            title=title,
            caption=caption,
            key=[patch_key(NO_DATA, "not measured", hatch="//////")],
            width=SINGLE_COLUMN if columns == 1 else DOUBLE_COLUMN,
            panel_height=1.6,
            right=0.55,
        )
        time = TimeAxis.of(table["epoch"].to_numpy(), logarithmic=logarithmic, flow=flow)
        for place, rate in enumerate(rates):
            row, column = divmod(place, columns)
            axes = page.panel(row, column, f"noise rate {rate:g}")
            axes.grid(visible=False)
            time.dress(axes, labelled=place + columns >= len(rates), panel_width=page.panel_width)
            _colour(axes, time, table.filter(pl.col("noise_rate") == rate), widths, normal, colours)
            axes.set_yscale("log")
            edges = edges_between(np.array(widths, np.float64), logarithmic=True)
            axes.set_ylim(edges[0], edges[-1])
            axes.minorticks_off()
            labels = _apart(widths, edges, 72 * page.panel_height, charts.LABEL)
            axes.set_yticks(widths, labels if column == 0 else [""] * len(widths), fontsize=charts.LABEL)
            if column == 0:
                axes.set_ylabel("width (log scale)", fontsize=TEXT, labelpad=2)
            if place == columns - 1:
                bar_axes = page.colour_bar(axes)
        bar = page.figure.colorbar(ScalarMappable(normal, colours), cax=bar_axes, ticks=MaxNLocator(5))
        bar.outline.set_linewidth(0)  # type: ignore[operator]
        bar_axes.tick_params(labelsize=charts.LABEL, width=0.5, length=2, pad=1.5)
        bar.set_label("test error (fraction)", fontsize=TEXT, labelpad=3)
    return page.figure


def edges_between(values: np.ndarray, *, logarithmic: bool) -> np.ndarray:
    """Edges of the cells around ascending `values`, float64 [k + 1]: midway between neighbours on the axis's scale.

    The outermost edges mirror the inner ones; a single value gets a cell a third of a decade (or one unit) wide.
    """
    at = np.log10(values) if logarithmic else values
    if len(at) == 1:
        half = 1 / 6 if logarithmic else 0.5
        edges = np.array([at[0] - half, at[0] + half])
    else:
        middle = (at[1:] + at[:-1]) / 2
        edges = np.concatenate([[2 * at[0] - middle[0]], middle, [2 * at[-1] - middle[-1]]])
    powers: np.ndarray = 10.0**edges if logarithmic else edges
    return powers


def _colour(axes: Axes, time: TimeAxis, rows: pl.DataFrame, widths: list[int], normal: object, colours: object) -> None:
    """Colour one panel, a row of cells for each width; behind them lies the hatching of what is not measured."""
    from matplotlib.patches import Rectangle

    from orchestrator.figures.diagram import FRAME, NO_DATA

    width_edges = edges_between(np.array(widths, np.float64), logarithmic=True)
    back = Rectangle(
        (0, 0), 1, 1, transform=axes.transAxes, facecolor=NO_DATA, edgecolor=FRAME, hatch="/////", zorder=0
    )
    back.set(linewidth=0, gid="not measured")
    axes.add_patch(back)
    view, last_edge = [time.first, time.last], time.last
    for place, width in enumerate(widths):
        line = rows.filter(pl.col("width") == width).sort("evaluation")
        epochs, means = line["epoch"].to_numpy(), line["mean"].cast(pl.Float64).to_numpy()
        finite = np.isfinite(epochs)
        y = width_edges[place : place + 2]
        if finite.any():
            edges = edges_between(epochs[finite], logarithmic=time.logarithmic)
            view = [min(view[0], edges[0]), max(view[1], edges[-1])]
            last_edge = edges[-1]
            _mesh(axes, edges, y, means[finite], normal, colours, gid=f"measured {width}")
        if not finite.all() and time.limit is not None:
            half = (time.limit / time.last) ** 0.35 if time.logarithmic else 0.35 * (time.limit - time.last)
            limits = (
                (time.limit / half, time.limit * half) if time.logarithmic else (time.limit - half, time.limit + half)
            )
            view[1] = max(view[1], limits[1])
            gap = axes.axvspan(last_edge, limits[0], facecolor="white", linewidth=0, zorder=0.5)
            gap.set_gid("between the last time and the limit")
            _mesh(axes, np.array(limits), y, means[~finite], normal, colours, gid=f"limit {width}")
    axes.set_xlim(*view)


def _mesh(
    axes: Axes, x: np.ndarray, y: np.ndarray, means: np.ndarray, normal: object, colours: object, *, gid: str
) -> None:
    mesh = axes.pcolormesh(
        x,
        y,
        np.ma.masked_invalid(means[None, :]),
        norm=normal,  # type: ignore[arg-type]
        cmap=colours,  # type: ignore[arg-type]
        linewidth=0,
        rasterized=False,
        zorder=1,
    )
    mesh.set_gid(gid)


def _apart(values: list[int], edges: np.ndarray, height: float, size: float) -> list[str]:
    """Labels of a log axis `height` points high, without those that would touch the one below."""
    logs = np.log10(values)
    per_decade = height / (np.log10(edges[-1]) - np.log10(edges[0]))
    labels, free = [], -np.inf
    for value, log in zip(values, logs, strict=True):
        fits = log * per_decade - size / 2 >= free
        labels.append(f"{value:,}" if fits else "")
        free = log * per_decade + size / 2 + 1 if fits else free
    return labels
