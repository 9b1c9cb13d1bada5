"""Curves over training in panels that share their axes: epoch-wise double descent, learning and overfit curves.

Each function takes the table that is drawn, rows of `mean_curves`. Matplotlib is imported when a figure is drawn, not
before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from orchestrator.analysis.slices import axis_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from orchestrator.figures.time_axis import TimeAxis

NAMES = {
    "test_error": "test error",
    "train_error_given": "train error (given)",
    "memorised": "memorised",
    "recovered": "recovered",
    "test_loss": "test",
    "train_loss_given": "train, on given labels",
}
MOST_TOGETHER = 7
"""Sizes up to which train and test curves can be told apart in one panel."""
MOST_COLUMNS = 4
"""Panels side by side on a page of two columns, so that each keeps an inch and a half."""


def epoch_descent(table: pl.DataFrame, axis: str, *, logarithmic: bool, flow: bool, title: str, caption: str) -> Figure:
    """Epoch-wise double descent: test error (solid) and train error (dashed) over epochs, a panel for each noise rate
    (two where there are many lines) and a line for each size along the axis.

    table: rows of `mean_curves` for test_error and train_error_given.
    """
    from matplotlib import rc_context

    from orchestrator.figures import charts
    from orchestrator.figures.page import STYLE, TEXT
    from orchestrator.figures.time_axis import TimeAxis

    size = axis_size(axis)
    rates = table["noise_rate"].unique().sort().to_list()
    sizes = table.select(size, "ratio").unique().sort("ratio")[size].to_list()
    ratios = dict(table.select(size, "ratio").iter_rows())
    styles = charts.looks(len(sizes))
    names = [
        f"{'width' if axis == 'width' else 'n ='} {value:,} (p/n {charts.short(ratios[value])})" for value in sizes
    ]
    key = charts.series_key(names, styles)
    key += [charts.style_key("test error", charts.SOLID), charts.style_key("train error", charts.DASHED, filled=False)]
    key += [charts.band_key()]
    parts: list[list[tuple[str, Any, bool]]] = [
        [("test_error", charts.SOLID, True)],
        [("train_error_given", charts.DASHED, False)],
    ]
    if len(sizes) <= MOST_TOGETHER:
        parts = [[part for row in parts for part in row]]
    columns = min(len(rates), MOST_COLUMNS if len(rates) != 6 else 3)
    rows = -(-len(rates) // columns) * len(parts)
    with rc_context(STYLE):
        page = charts.ChartPage(
            rows=rows,
            columns=columns,
            title=title,
            caption=caption,
            key=key,
            panel_height=1.6 if rows < 4 else 1.3,
            width=_width(columns),
        )
        time = TimeAxis.of(table["epoch"].to_numpy(), logarithmic=logarithmic, flow=flow)
        for place, rate in enumerate(rates):
            group, column = divmod(place, columns)
            for part, shown in enumerate(parts):
                row = group * len(parts) + part
                what = "" if len(parts) == 1 else f", {NAMES[shown[0][0]]}"
                axes = page.panel(row, column, f"noise rate {rate:g}{what}")
                for value, look in zip(sizes, styles, strict=True):
                    cell = table.filter(pl.col("noise_rate") == rate, pl.col(size) == value)
                    for metric, dashes, filled in shown:
                        width = 1.1 if filled else 0.7
                        _draw(
                            axes, time, cell, metric, look, dashes=dashes, filled=filled, band=filled, linewidth=width
                        )
                lowest = part + 1 == len(parts) and place + columns >= len(rates)
                time.dress(axes, labelled=lowest, panel_width=page.panel_width)
                _share_y(axes, table, column)
                if column == 0:
                    axes.set_ylabel("error (fraction)", fontsize=TEXT, labelpad=2)
    return page.figure


def learning(
    table: pl.DataFrame,
    chosen: Sequence[tuple[int, str]],
    axis: str,
    metrics: Sequence[str],
    *,
    logarithmic: bool,
    flow: bool,
    title: str,
    caption: str,
) -> Figure:
    """Learning curves: a row for each metric, a column for each chosen size (value, why), noise rate by colour."""
    from matplotlib import rc_context

    from orchestrator.figures import charts
    from orchestrator.figures.page import STYLE, TEXT
    from orchestrator.figures.time_axis import TimeAxis

    size = axis_size(axis)
    rates = table["noise_rate"].unique().sort().to_list()
    styles = charts.looks(len(rates))
    key = [*charts.series_key([f"noise rate {rate:g}" for rate in rates], styles), charts.band_key()]
    with rc_context(STYLE):
        page = charts.ChartPage(
            rows=len(metrics),
            columns=len(chosen),
            title=title,
            caption=caption,
            key=key,
            panel_height=1.05,
            between=0.12,
            width=_width(len(chosen)),
            head=0.14,
        )
        time = TimeAxis.of(table["epoch"].to_numpy(), logarithmic=logarithmic, flow=flow)
        for column, (value, why) in enumerate(chosen):
            name = f"width {value:,}" if axis == "width" else f"n = {value:,}"
            for row, metric in enumerate(metrics):
                axes = page.panel(row, column, f"{name} ({why})" if row == 0 else "")
                for rate, look in zip(rates, styles, strict=True):
                    cell = table.filter(pl.col("noise_rate") == rate, pl.col(size) == value)
                    _draw(axes, time, cell, metric, look)
                time.dress(axes, labelled=row + 1 == len(metrics), panel_width=page.panel_width)
                _share_y(axes, table.filter(pl.col("metric") == metric), column)
                if column == 0:
                    axes.set_ylabel(NAMES[metric], fontsize=TEXT, labelpad=2)
    return page.figure


def overfit(
    table: pl.DataFrame,
    stops: pl.DataFrame,
    gains: pl.DataFrame,
    *,
    usual_epochs: float | None,
    logarithmic: bool,
    flow: bool,
    title: str,
    caption: str,
) -> Figure:
    """Overfit curves: train and test loss over train and test error, a column for each noise rate of one size.

    stops, gains: what `stopping_gains` gives for test_loss and test_error; the lowest point of each seed is ringed, and
    the mean gain of early stopping stands in its panel with its interval. usual_epochs: where the usual schedule ends,
    a dotted line, if it lies within the curves.
    """
    from matplotlib import rc_context

    from orchestrator.figures import charts
    from orchestrator.figures.page import STYLE, TEXT
    from orchestrator.figures.time_axis import TimeAxis

    rates = table["noise_rate"].unique().sort().to_list()
    styles = dict(zip(("test", "train"), charts.looks(2), strict=True))
    key: list[Any] = charts.series_key(["test, clean labels"], [styles["test"]])
    key += [charts.style_key("train, given labels", charts.DASHED, filled=False, look=styles["train"])]
    key += [charts.band_key(), charts.ring_key("lowest test value of each seed")]
    key += [charts.style_key("gain: mean best to mean last", charts.SOLID, look=charts.Look("black", "_"))]
    time = TimeAxis.of(table["epoch"].to_numpy(), logarithmic=logarithmic, flow=flow)
    usual = usual_epochs if usual_epochs is not None and time.first <= usual_epochs < time.last else None
    if usual is not None:
        key += [charts.rule_key(f"end of the usual schedule ({usual:g} epochs)")]
    pairs = (("test_loss", "train_loss_given"), ("test_error", "train_error_given"))
    with rc_context(STYLE):
        page = charts.ChartPage(
            rows=2,
            columns=len(rates),
            title=title,
            caption=caption,
            key=key,
            width=_width(len(rates)),
            panel_height=1.5 if len(rates) < 4 else 1.3,
            head=0.14,
            between=0.14,
            gap=0.24 if len(rates) > 3 else 0.16,
            right=0.16,
        )
        for column, rate in enumerate(rates):
            for row, (test, train) in enumerate(pairs):
                axes = page.panel(row, column, f"noise rate {rate:g}" if row == 0 else "")
                cell = table.filter(pl.col("noise_rate") == rate)
                _draw(axes, time, cell, train, styles["train"], dashes=charts.DASHED, filled=False)
                _draw(axes, time, cell, test, styles["test"])
                time.dress(axes, labelled=row == 1, panel_width=page.panel_width)
                if usual is not None:
                    axes.axvline(usual, gid="usual schedule", **charts.RULE)
                _share_y(axes, table.filter(pl.col("metric").is_in((test, train))), column, lift=0.3)
                at = pl.col("noise_rate") == rate, pl.col("metric") == test
                _mark_gain(axes, time, stops.filter(*at), gains.filter(*at))
                if column == 0:
                    unit = "half squared error" if flow else "nats"
                    axes.set_ylabel(f"loss ({unit})" if row == 0 else "error (fraction)", fontsize=TEXT, labelpad=2)
    return page.figure


def _width(columns: int) -> float:
    from orchestrator.figures.page import DOUBLE_COLUMN, SINGLE_COLUMN

    return SINGLE_COLUMN if columns == 1 else DOUBLE_COLUMN


def _draw(axes: Axes, time: TimeAxis, cell: pl.DataFrame, metric: str, look: Any, **style: Any) -> None:
    from orchestrator.figures.time_axis import draw_curve

    rows = cell.filter(pl.col("metric") == metric).sort("evaluation")
    if rows.is_empty():
        return
    values = np.stack([rows[name].cast(pl.Float64).to_numpy() for name in ("mean", "low", "high")])
    first = rows.row(0, named=True)
    gid = f"{metric} {first['noise_rate']:g} {first['width']} {first['samples']}"
    draw_curve(axes, time, rows["epoch"].to_numpy(), values, look, gid=gid, **style)


def _share_y(axes: Axes, rows: pl.DataFrame, column: int, *, lift: float = 0.0) -> None:
    """The same limits in every panel that shows these rows; their numbers stand on the left only."""
    from orchestrator.figures import charts

    losses = bool(rows["metric"].str.contains("loss").any())
    bounds = np.concatenate([rows[name].cast(pl.Float64).to_numpy() for name in ("low", "high")])
    charts.limit_y(axes, rows["mean"].cast(pl.Float64).to_numpy(), bounds, most=None if losses else 1.0)
    low, high = axes.get_ylim()
    ticks = [tick for tick in axes.get_yticks() if low <= tick <= high]
    axes.set_ylim(low, high + lift * (high - low))
    axes.set_yticks(ticks)
    if column:
        axes.tick_params(labelleft=False)


def _mark_gain(axes: Axes, time: TimeAxis, stops: pl.DataFrame, gains: pl.DataFrame) -> None:
    """Ring each seed's lowest point, and write what stopping there would have gained."""
    from matplotlib.transforms import blended_transform_factory

    from orchestrator.figures import charts
    from orchestrator.figures.heat_maps import number

    known = stops.filter(pl.col("best").is_not_null())
    places = time.place(known["epoch_best"].to_numpy())
    (rings,) = axes.plot(places, known["best"].to_numpy(), zorder=5, **charts.RING)
    rings.set_gid("lowest")
    for row in gains.to_dicts():
        interval = "" if row["low"] is None else f"[{number(row['low'], 3)}, {number(row['high'], 3)}] "
        (bar,) = axes.plot(
            [1.02, 1.02],
            [row["best"], row["last"]],
            transform=blended_transform_factory(axes.transAxes, axes.transData),
            color="black",
            linewidth=1.0,
            marker="_",
            markersize=4,
            clip_on=False,
            zorder=6,
        )
        bar.set_gid("gain")
        axes.text(
            0.97,
            0.97,
            f"last \N{MINUS SIGN} best: {number(row['mean'], 3)}\n{interval}n={row['n']}",
            transform=axes.transAxes,
            fontsize=charts.LABEL,
            ha="right",
            va="top",
            zorder=6,
        )
