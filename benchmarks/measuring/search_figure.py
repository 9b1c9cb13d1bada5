"""`python -m benchmarks.measuring.search_figure FIGURES.json PATH.png`: error of the boundary against runs.

FIGURES.json is what `python -m benchmarks boundary_search --json` writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.measuring.json_figure import draw_as_asked

if TYPE_CHECKING:
    from matplotlib.axes import Axes

METHODS = {
    "rows": ("regular grids, row by row", "0.65", "D"),
    "grid": ("regular grids, off the surface", "0.35", "s"),
    "search": ("launch --refine", "#1f4e99", "o"),
}


def draw(figures: Sequence[dict[str, Any]], path: Path) -> None:
    """Medians with the central half of the repetitions, both axes logarithmic; the goal as a line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for method, (label, colour, marker) in METHODS.items():
        points = [one for one in figures if one["details"].get("method") == method]
        _draw_method(axes, points, label, colour, marker)
    repetitions = {one["n"] for one in figures if one["details"].get("method")}
    axes.axhline(0.05, color="0.7", linewidth=0.8, linestyle=":")
    axes.annotate("5 %", (1, 0.05), xycoords=("axes fraction", "data"), ha="right", va="bottom", color="0.4")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    runs = sorted({one["details"]["runs"] for one in figures if one["details"].get("method") == "grid"})
    axes.set_xticks(runs, [f"{count:,}" for count in runs], rotation=45)
    axes.set_yticks([0.01, 0.02, 0.03, 0.05, 0.1], ["0.01", "0.02", "0.03", "0.05", "0.1"])
    axes.minorticks_off()
    axes.set_xlabel("runs (log scale)")
    axes.set_ylabel("mean error in log p/n (log scale)")
    axes.set_title(
        f"Boundary of the Gaussian mixture, n = 200:\nmedian and central half of {max(repetitions)} repetitions",
        loc="left",
        fontsize="medium",
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=160)


def _draw_method(axes: Axes, points: Sequence[dict[str, Any]], label: str, colour: str, marker: str) -> None:
    """One method: of grids with the same number of runs the better one is on the line, the others are points."""
    points = sorted(points, key=lambda one: (one["details"]["runs"], one["median"]))
    runs = np.array([one["details"]["runs"] for one in points])
    quartiles = np.array([np.quantile(one["values"], [0.25, 0.5, 0.75]) for one in points])
    off = np.abs(quartiles[:, [0, 2]] - quartiles[:, [1]]).T
    axes.errorbar(runs, quartiles[:, 1], off, color=colour, marker=marker, markersize=4, linewidth=0, elinewidth=0.8)
    first = np.append(True, np.diff(runs) > 0)
    axes.plot(runs[first], quartiles[first, 1], color=colour, linewidth=1.2, marker=marker, markersize=4, label=label)


if __name__ == "__main__":
    draw_as_asked(draw, "python -m benchmarks.measuring.search_figure FIGURES.json PATH.png")
