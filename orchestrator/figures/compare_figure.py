"""The map of differences between two sweeps: one panel for each metric, colour only where both are measured.

Matplotlib is imported when a figure is drawn, not before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from orchestrator.analysis.definitions import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_BESIDE = 8
"""Values of p/n up to which two panels fit beside each other with their numbers."""
COLOURS = "PuOr_r"  # told apart under every common colour blindness, and equally dark at both ends
ONLY = {"a only": "A", "b only": "B"}


def difference_maps(table: pl.DataFrame, metrics: Sequence[str], *, title: str, caption: str) -> Figure:
    """Differences B - A by noise rate and p/n, a panel for each metric with its own scale, centred at 0.

    table: noise_rate, place and ratio (of the column), metric, difference, decided, cells ("both", "a only" or "b
    only"), one row for each noise rate and place, at most. A ring marks a
    difference whose interval holds 0 or that has none: not decided. Columns are the values of p/n, not to scale. Each
    Rectangle's gid says what it is: "decided", "undecided", "missing", "a only" or "b only", with row and column
    counted from the lowest noise rate and ratio.
    """
    from matplotlib import colormaps, rc_context
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.ticker import MaxNLocator

    from orchestrator.figures import charts
    from orchestrator.figures.diagram import NO_DATA, patch_key
    from orchestrator.figures.page import DOUBLE_COLUMN, SINGLE_COLUMN, STYLE, TEXT

    rates = table["noise_rate"].unique().sort().to_list()
    ratios = dict(table.sort("place").select("place", "ratio").iter_rows())
    columns = 1 if len(metrics) == 1 or len(ratios) > MOST_BESIDE else 2
    width = SINGLE_COLUMN if len(metrics) == 1 and len(ratios) <= MOST_BESIDE else DOUBLE_COLUMN
    key: list[Any] = [charts.ring_key("interval holds 0: not decided"), patch_key(NO_DATA, "no data", hatch="//////")]
    there = set(table["cells"])
    key += [
        patch_key("#ffffff", f"{name}: only {name} has it", hatch="......")
        for kind, name in ONLY.items()
        if kind in there
    ]
    with rc_context(STYLE):
        page = charts.ChartPage(
            rows=-(-len(metrics) // columns),
            columns=columns,
            title=title,
            caption=caption,
            key=key,
            width=width,
            panel_height=float(np.clip(0.3 * len(rates), 0.9, 2.4)),
            gap=1.15,
            right=0.72,
            between=0.5 if len(metrics) > columns else 0.22,
            head=-0.24 if len(metrics) > columns else 0.04,  # above the first row there are no ticks to make room for
        )
        for place, metric in enumerate(metrics):
            row, column = divmod(place, columns)
            letter = f"({'abcdefghijklmnop'[place]}) " if len(metrics) > 1 else ""
            axes = page.panel(row, column, f"{letter}{METRICS[metric].label}, B \N{MINUS SIGN} A")
            rows = table.filter(pl.col("metric") == metric)
            known = rows["difference"].drop_nulls().to_numpy()
            reach = max(0.01, float(np.abs(known).max(initial=0.0)))
            scale = ScalarMappable(Normalize(-reach, reach), colormaps[COLOURS])
            _draw(axes, rows, ratios, rates, scale, 72 * page.panel_width / len(ratios))
            bar_axes = page.colour_bar(axes)
            bar = page.figure.colorbar(scale, cax=bar_axes, ticks=MaxNLocator(5))
            bar.outline.set_linewidth(0)  # type: ignore[operator]
            bar_axes.tick_params(labelsize=charts.LABEL, width=0.5, length=2, pad=1.5)
            bar.set_label(METRICS[metric].unit, fontsize=TEXT, labelpad=2)
    return page.figure


def _draw(
    axes: Axes, rows: pl.DataFrame, ratios: dict[int, float], rates: list[float], scale: Any, cell_points: float
) -> None:
    from matplotlib.colors import to_hex
    from matplotlib.patches import Rectangle

    from orchestrator.figures import charts
    from orchestrator.figures.diagram import FRAME, NO_DATA, ink
    from orchestrator.figures.page import TEXT, text_width

    decimals = _decimals(rows["difference"].drop_nulls().to_list(), cell_points)
    axes.grid(visible=False)
    places = list(ratios)
    for cell in rows.to_dicts():
        x, y = places.index(cell["place"]), rates.index(cell["noise_rate"])
        look: dict[str, Any] = {"facecolor": NO_DATA, "edgecolor": FRAME, "hatch": "/////", "linewidth": 0.5}
        kind, text, colour = "missing", "", "#202020"
        if cell["cells"] in ONLY:
            kind, text = cell["cells"], ONLY[cell["cells"]]
            look |= {"facecolor": "white", "hatch": "..."}
        elif cell["difference"] is not None:
            kind = "decided" if cell["decided"] else "undecided"
            face = to_hex(scale.to_rgba(cell["difference"]))
            look |= {"facecolor": face, "edgecolor": "white", "hatch": None}
            text, colour = _signed(cell["difference"], decimals), ink(face)
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, gid=f"{kind} {y} {x}", zorder=1, **look))
        if kind == "undecided":
            axes.plot(
                [x + 0.5 - 5 / cell_points],
                [y + 0.27],
                marker="o",
                markersize=3.2,
                markerfacecolor="none",
                markeredgecolor=colour,
                markeredgewidth=0.6,
                zorder=3,
            )
        if text_width(text, charts.LABEL) + 2 <= cell_points:
            box = {"facecolor": look["facecolor"], "edgecolor": "none", "pad": 0.3} if kind in ONLY else None
            axes.text(
                x, y - 0.06, text, fontsize=charts.LABEL, color=colour, ha="center", va="center", zorder=4, bbox=box
            )
    axes.set_xlim(-0.5, len(ratios) - 0.5)
    axes.set_ylim(-0.5, len(rates) - 0.5)
    axes.set_xticks(
        range(len(ratios)), [charts.short(float(f"{ratio:.3g}")) for ratio in ratios.values()], fontsize=charts.LABEL
    )
    axes.set_yticks(range(len(rates)), [f"{rate:g}" for rate in rates], fontsize=charts.LABEL)
    axes.set_xlabel("p/n of the cells (not to scale)", fontsize=TEXT, labelpad=2)
    axes.set_ylabel("noise rate", fontsize=TEXT, labelpad=2)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _decimals(differences: list[float], cell_points: float) -> int:
    """As many decimals as the largest difference asks for, and the cells have room for."""
    from orchestrator.figures import charts
    from orchestrator.figures.page import text_width

    largest = max(map(abs, differences), default=0.0)
    wanted = 3 if largest < 0.1 else 2 if largest < 10 else 0
    for decimals in range(wanted, 1, -1):
        texts = [_signed(difference, decimals) for difference in differences]
        if all(text_width(text, charts.LABEL) + 2 <= cell_points for text in texts):
            return decimals
    return min(wanted, 2)


def _signed(value: float, decimals: int) -> str:
    """With its sign, unless it is rounded to 0."""
    from orchestrator.figures.heat_maps import number

    text = number(value, decimals)
    return f"+{text}" if value > 0 and text.strip("0.") else text
