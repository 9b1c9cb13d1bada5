"""`python -m benchmarks.measuring.pack_figure figures.json packs.png`: runs an hour against models a pack.

The first file is what `python -m benchmarks pack_widths --json figures.json` wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measuring.json_figure import draw_as_asked

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TITLE = "Runs an hour by the size of packs"
PANELS = {8: "(a) digits, 8 x 8, tiny-resnet", 32: "(b) 32 x 32, cifar-resnet18"}
CAPTION = (
    "Two single-threaded processes on two CPU cores; fp32. At 1 each trains one model alone; beyond, models share a "
    "data stream, and as many are fused as bo-sweep chooses. Medians, with minimum and maximum, of n = {n} rounds; "
    "beside each line its largest gain over one model alone. A run: (a) of digits-grid, 500 images x 60 epochs; (b) "
    "5,000 images x 200 epochs."
)
HEIGHT = 3.0
"""Inches."""


def draw(figures: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw what the subject pack_widths found, given as in its JSON. ValueError if there is nothing of it."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from orchestrator.figures.page import DOUBLE_COLUMN, LINE, STYLE, TEXT, wrap, write_figure
    from orchestrator.figures.page import TITLE as TITLE_SIZE

    speeds = [figure for figure in figures if figure["unit"] == "runs/h" and "models" in figure["details"]]
    sides = [side for side in PANELS if any(speed["details"]["side"] == side for speed in speeds)]
    if not sides:
        raise ValueError("there are no figures of pack_widths: run python -m benchmarks pack_widths --json FILE")
    with rc_context(STYLE):
        figure = Figure(figsize=(DOUBLE_COLUMN, HEIGHT))
        FigureCanvasAgg(figure)
        figure.text(0.01, 0.97, TITLE, fontsize=TITLE_SIZE, weight="bold", va="top")
        panels = figure.subplots(1, len(sides), squeeze=False)[0]
        figure.subplots_adjust(left=0.085, right=0.89, top=0.83, bottom=0.29, wspace=0.52)
        for side, axes in zip(sides, panels, strict=True):
            _draw_side(axes, side, [speed for speed in speeds if speed["details"]["side"] == side])
        lines = wrap(CAPTION.format(n=speeds[0]["n"]), TEXT - 0.5, 72 * (DOUBLE_COLUMN - 0.14))
        figure.text(0.01, 0.135, "\n".join(lines), fontsize=TEXT - 0.5, va="top", linespacing=LINE)
        write_figure(figure, path.with_suffix(""), [path.suffix.removeprefix(".")])


def _draw_side(axes: Axes, side: int, speeds: Sequence[Mapping[str, Any]]) -> None:
    """One line a width, named at its end."""
    from matplotlib import colormaps
    from matplotlib.ticker import FixedLocator, LogLocator, NullLocator, StrMethodFormatter

    widths = sorted({speed["details"]["width"] for speed in speeds})
    sizes = sorted({speed["details"]["models"] for speed in speeds})
    for place, width in enumerate(widths):
        line = sorted(
            (speed for speed in speeds if speed["details"]["width"] == width), key=lambda one: one["details"]["models"]
        )
        models, medians = [one["details"]["models"] for one in line], [one["median"] for one in line]
        off = [[one["median"] - one["minimum"] for one in line], [one["maximum"] - one["median"] for one in line]]
        colour = colormaps["cividis"](0.75 * place / max(1, len(widths) - 1))
        axes.errorbar(models, medians, off, color=colour, marker="o", markersize=3, linewidth=1.2, elinewidth=0.7)
        gain = max(medians[1:], default=medians[0]) / medians[0]
        axes.annotate(
            f"width {width}: x {gain:.1f}",
            (models[-1], medians[-1]),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=colour,
        )
    axes.set_title(PANELS[side], loc="left", fontsize="medium")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(sizes))
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_xlabel("models a pack, in each of two processes")
    axes.set_ylabel("runs an hour (log scale)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", linewidth=0.3, color="0.85")


if __name__ == "__main__":
    draw_as_asked(draw, "python -m benchmarks.measuring.pack_figure figures.json packs.png")
