"""Charts along a sweep's axis: double descent, effective model complexity, and contrasts of noise rates.

Each function takes the table that is drawn, and nothing else that holds numbers. Matplotlib is imported when a figure
is drawn, not before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from orchestrator.figures.charts import Look

RATIO_LABEL = "parameters per training sample, p/n (log scale)"
SAMPLES_LABEL = "training samples n (log scale)"
EARLY = ("err_valsel", "err_best")
LEVEL_MARKS = {
    "interpolation": ("threshold of train error 0.01", True),
    "emc": ("threshold of train error 0.1 (EMC)", False),
}


def descent(table: pl.DataFrame, thresholds: pl.DataFrame, axis: str, *, title: str, caption: str) -> Figure:
    """Model-wise or sample-wise double descent: test error, final and early-stopped, and train error, by noise rate.

    table: rows of `along_axis` for err_last, train_error_last and one of EARLY. thresholds: those of `fit_thresholds`,
    marked by triangles on the lower edge, in the colour of their noise rate.
    """
    from matplotlib import rc_context

    from orchestrator.figures import charts
    from orchestrator.figures.page import STYLE

    x_name, x_label = ("ratio", RATIO_LABEL) if axis == "width" else ("samples", SAMPLES_LABEL)
    rates, styles = _rates(table)
    early = next(name for name in EARLY if name in table["metric"])
    how = "early-stopped (validation)" if early == "err_valsel" else "early-stopped (oracle)"
    key = [*charts.series_key([f"noise rate {rate:g}" for rate in rates], styles)]
    key += [charts.style_key("final", charts.SOLID), charts.style_key(how, charts.DASHED, filled=False)]
    key += [charts.band_key(), *_level_key()]
    with rc_context(STYLE):
        page = charts.ChartPage(rows=1, columns=2, title=title, caption=caption, key=key, gap=0.5, panel_height=2.0)
        panels = [page.panel(0, 0, "(a) test error (fraction)"), page.panel(0, 1, "(b) train error on given labels")]
        shown = (
            (panels[0], "err_last", charts.SOLID, True),
            (panels[0], early, charts.DASHED, False),
            (panels[1], "train_error_last", charts.SOLID, True),
        )
        values = table[x_name].unique().sort().to_list()
        for axes, metric, dashes, filled in shown:
            for rate, look in zip(rates, styles, strict=True):
                rows = table.filter(pl.col("metric") == metric, pl.col("noise_rate") == rate).sort(x_name)
                _draw(axes, rows, x_name, look, gid=f"{metric} {rate:g}", dashes=dashes, filled=filled)
                if metric == "err_last":
                    _tell_fewer(axes, rows, x_name)
        for axes, metrics in zip(panels, (("err_last", early), ("train_error_last",)), strict=True):
            charts.size_axis(axes, values, page.panel_width, x_label)
            _limit(axes, table.filter(pl.col("metric").is_in(metrics)), most=1.0)
        panels[1].axhline(0.1, color=charts.AXIS_GREY, linewidth=0.5, linestyle=charts.DOTTED)
        panels[1].axhline(0.01, color=charts.AXIS_GREY, linewidth=0.5, linestyle=charts.DASHED)
        for axes in panels:
            _mark_levels(axes, thresholds, rates, styles, "ratio_fitted" if axis == "width" else "fitted")
    return page.figure


def contrast(table: pl.DataFrame, *, title: str, caption: str) -> Figure:
    """Paired differences of final test error between noise rates, against p/n. table: what `contrasts` gives."""
    from matplotlib import rc_context

    from orchestrator.figures import charts
    from orchestrator.figures.page import STYLE, TEXT

    sides = [name for name in ("neighbour", "clean") if name in table["against"]]
    rates = table["noise_rate"].unique().sort().to_list()
    styles = charts.looks(len(rates) + 1)[1:]  # the first look is that of rate 0, which is held against nothing here
    look_of = dict(zip(rates, styles, strict=True))
    key = [*charts.series_key([f"noise rate {rate:g}" for rate in rates], styles), charts.band_key()]
    words = {"neighbour": "minus the next lower noise rate", "clean": "minus noise rate 0"}
    with rc_context(STYLE):
        page = charts.ChartPage(
            rows=1, columns=len(sides), title=title, caption=caption, key=key, gap=0.5, panel_height=2.0
        )
        for column, side in enumerate(sides):
            rows = table.filter(pl.col("against") == side)
            axes = page.panel(0, column, f"({'ab'[column]}) {words[side]}")
            axes.axhline(0, color=charts.AXIS_GREY, linewidth=0.6)
            for rate in rates:
                line = rows.filter(pl.col("noise_rate") == rate).sort("ratio")
                _draw(axes, line, "ratio", look_of[rate], gid=f"{side} {rate:g}")
            charts.size_axis(axes, table["ratio"].unique().sort().to_list(), page.panel_width, RATIO_LABEL)
            _limit(axes, rows, least=None)
            if column == 0:
                axes.set_ylabel("difference of final test error", fontsize=TEXT, labelpad=2)
    return page.figure


def complexity(
    thresholds: pl.DataFrame, epochs: pl.DataFrame, axis: str, *, flow: bool, title: str, caption: str
) -> Figure:
    """Effective model complexity: where the labels are fitted, and after how many epochs.

    thresholds: what `fit_thresholds` gives: a mark at the fitted cell and a bar to the neighbour that does not fit, or
    an arrow where the measured cells end. epochs: rows of `along_axis` for emc_epoch.
    """
    from matplotlib import rc_context

    from orchestrator.figures import charts
    from orchestrator.figures.page import STYLE, TEXT

    rates, styles = _rates(thresholds)
    key = [*charts.series_key([f"noise rate {rate:g}" for rate in rates], styles), charts.band_key()]
    key += [
        charts.style_key("train error at most 0.01", "none"),
        charts.style_key("at most 0.1 (EMC)", "none", filled=False),
    ]
    what = "parameters per sample, p/n" if axis == "width" else "training samples n"
    with rc_context(STYLE):
        page = charts.ChartPage(rows=1, columns=2, title=title, caption=caption, key=key, gap=0.5, panel_height=2.0)
        axes = page.panel(0, 0, f"(a) {'smallest p/n' if axis == 'width' else 'largest n'} whose labels are fitted")
        _draw_levels(axes, thresholds, rates, styles, axis)
        axes.set_ylabel(f"{what} (log scale)", fontsize=TEXT, labelpad=2)
        axes.set_xlabel("noise rate", fontsize=TEXT, labelpad=2)
        x_name, x_label = ("ratio", RATIO_LABEL) if axis == "width" else ("samples", SAMPLES_LABEL)
        axes = page.panel(0, 1, f"(b) {'flow time' if flow else 'epochs'} until train error is at most 0.1")
        for rate, look in zip(rates, styles, strict=True):
            rows = epochs.filter(pl.col("noise_rate") == rate).sort(x_name)
            _draw(axes, rows, x_name, look, gid=f"emc_epoch {rate:g}")
        charts.size_axis(axes, epochs[x_name].unique().sort().to_list(), page.panel_width, x_label)
        if epochs["mean"].null_count() == epochs.height:
            charts.grey_text(axes, "not reached by all seeds in any cell")
            axes.set_yticks([])
        else:
            _limit(axes, epochs)
    return page.figure


def _rates(table: pl.DataFrame) -> tuple[list[float], list[Look]]:
    from orchestrator.figures import charts

    rates = table["noise_rate"].unique().sort().to_list()
    return rates, charts.looks(len(rates))


def _draw(axes: Axes, rows: pl.DataFrame, x_name: str, look: Look, **style: Any) -> None:
    from orchestrator.figures import charts

    x = rows[x_name].cast(pl.Float64).to_numpy()
    mean, low, high = (rows[name].cast(pl.Float64).to_numpy() for name in ("mean", "low", "high"))
    charts.draw_series(axes, x, mean, low, high, look, mark_all=True, **style)


def _tell_fewer(axes: Axes, rows: pl.DataFrame, x_name: str) -> None:
    """Write n beside a mean of fewer seeds than are planned."""
    for row in rows.filter(pl.col("n") < pl.col("n_planned"), pl.col("mean").is_not_null()).to_dicts():
        mark = "\N{DAGGER}" if row["n_diverged"] else ""
        axes.annotate(
            f"n={row['n']}{mark}",
            (row[x_name], row["mean"]),
            xytext=(0, 3),
            textcoords="offset points",
            fontsize=6,
            ha="center",
            zorder=6,
        )


def _limit(axes: Axes, rows: pl.DataFrame, **limits: float | None) -> None:
    from orchestrator.figures import charts

    bounds = np.concatenate([rows[name].cast(pl.Float64).to_numpy() for name in ("low", "high")])
    charts.limit_y(axes, rows["mean"].cast(pl.Float64).to_numpy(), bounds, **limits)


def _level_key() -> list[Any]:
    from matplotlib.lines import Line2D

    from orchestrator.figures.charts import AXIS_GREY

    return [
        Line2D(
            [],
            [],
            linestyle="none",
            marker="^",
            markersize=3.5 if filled else 6,
            color=AXIS_GREY,
            markerfacecolor=AXIS_GREY if filled else "white",
            markeredgewidth=0.7,
            label=text,
        )
        for text, filled in LEVEL_MARKS.values()
    ]


def _mark_levels(axes: Axes, thresholds: pl.DataFrame, rates: list[float], styles: list[Look], column: str) -> None:
    """Triangles under the lower edge's data, one row for each noise rate, so that equal thresholds do not hide."""
    low, high = axes.get_ylim()
    step = 0.045 * (high - low)
    bottom = low - step * (len(rates) + 0.5)
    for place, (rate, look) in enumerate(zip(rates, styles, strict=True)):
        for row in thresholds.filter(pl.col("noise_rate") == rate, pl.col(column).is_not_null()).to_dicts():
            filled = LEVEL_MARKS[row["level"]][1]
            (mark,) = axes.plot(
                [row[column]],
                [low - step * (place + 0.6)],
                linestyle="none",
                marker="^",
                markersize=3.5 if filled else 6,
                color=look.colour,
                markerfacecolor=look.colour if filled else "none",
                markeredgewidth=0.7,
                zorder=5 if filled else 4,
            )
            mark.set_gid(f"{row['level']} {rate:g}")
    axes.set_ylim(bottom, high)
    axes.axhspan(bottom, low, facecolor="white", linewidth=0, zorder=3.5)  # bands do not reach into the strip of marks
    axes.axhline(low, color="#b0b0b0", linewidth=0.4, zorder=3.6)
    axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= high])


def _draw_levels(axes: Axes, thresholds: pl.DataFrame, rates: list[float], styles: list[Look], axis: str) -> None:
    from orchestrator.figures import charts

    fitted, unfitted = ("ratio_fitted", "ratio_unfitted") if axis == "width" else ("fitted", "unfitted")
    known = [value for name in (fitted, unfitted) for value in thresholds[name].drop_nulls().to_list()]
    axes.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates], fontsize=charts.LABEL)
    axes.set_xlim(-0.6, len(rates) - 0.4)
    if not known:
        charts.grey_text(axes, "not measured")
        return
    axes.set_yscale("log")
    axes.set_ylim(min(known) / 2.2, max(known) * 2.2)
    ticks = sorted(set(known))
    axes.set_yticks(ticks, [charts.short(tick) for tick in ticks], fontsize=charts.LABEL)
    axes.minorticks_off()
    for row in thresholds.to_dicts():
        place, look = rates.index(row["noise_rate"]), styles[rates.index(row["noise_rate"])]
        filled = LEVEL_MARKS[row["level"]][1]
        x, at, beyond = place + (-0.15 if filled else 0.15), row[fitted], row[unfitted]
        if at is not None and beyond is not None:
            axes.vlines(x, *sorted((at, beyond)), color=look.colour, linewidth=0.9)
        elif (
            at is not None or beyond is not None
        ):  # the threshold lies beyond the measured cells: an arrow points there
            easier = axis == "width"
            down = easier if at is not None else not easier
            start = at if at is not None else beyond
            end = start / 1.7 if down else start * 1.7
            axes.annotate(
                "",
                (x, end),
                (x, start),
                arrowprops={"arrowstyle": "->", "color": look.colour, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0},
            )
        if at is not None:
            (mark,) = axes.plot(
                [x],
                [at],
                linestyle="none",
                marker=look.marker,
                markersize=4,
                color=look.colour,
                markerfacecolor=look.colour if filled else "white",
                markeredgewidth=0.8,
                zorder=4,
            )
            mark.set_gid(f"{row['level']} {row['noise_rate']:g}")
