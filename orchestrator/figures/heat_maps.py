"""Heat maps and phase maps that can be printed: colour only where there is data, and a caption that says what
is not.

They show the cells of the grid. Cells beside it have no row and column of their own: the caption counts them, and the
boundary figure draws them. `draw_*` write files, the functions without the prefix give the Matplotlib figure.
Matplotlib is imported when a figure is drawn, not before.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from orchestrator.analysis.cells import on_grid
from orchestrator.analysis.definitions import METRICS
from orchestrator.figures.captions import metric_caption, overview_caption, phase_caption
from orchestrator.figures.looks import PHASE_LOOK
from orchestrator.figures.numbers import boundary_numbers, metric_numbers, phase_numbers, theory_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

OVERVIEW_METRICS = ("err_last", "noise_cost", "gap_err")


def draw_heat_map(
    cells: pl.DataFrame,
    metric: str,
    path_stem: Path,
    *,
    title: str,
    caption: str,
    formats: Sequence[str] = ("png", "svg"),
    theory: pl.DataFrame | None = None,
    boundary: pl.DataFrame | None = None,
) -> list[Path]:
    """Draw one metric over noise rate and p/n; gives the files written: `path_stem` plus ".png" and so on, and a CSV
    of what is drawn.

    cells: what `cell_table` gives. metric: one of METRICS. caption: what was run, in a sentence or two
    (data, network, recipe); the metric's definition, seeds and caveats are appended here, so that they cannot
    be left out. theory: columns noise_rate, ratio; a closed-form boundary, drawn as a line. boundary: what
    `fit_boundary` gives, drawn dashed with its band.

    Raises ValueError on an unknown metric, on cells without a row, and on a format other than png, svg and
    pdf.
    """
    if boundary is not None:  # rates beside the grid have no row here
        boundary = boundary.filter(pl.col("noise_rate").is_in(on_grid(cells)["noise_rate"].unique().to_list()))
        boundary = None if boundary.is_empty() else boundary
    figure = heat_map(cells, metric, title=title, caption=caption, theory=theory, boundary=boundary)
    numbers = [metric_numbers(on_grid(cells), metric), boundary_numbers(boundary), theory_numbers(theory, metric)]
    return _write(figure, path_stem, formats, pl.concat(numbers))


def draw_phase_map(
    cells: pl.DataFrame,
    path_stem: Path,
    *,
    title: str,
    caption: str,
    formats: Sequence[str] = ("png", "svg"),
) -> list[Path]:
    """Draw the phase of every cell by colour and letter; arguments, files and errors as in
    `draw_heat_map`."""
    figure = phase_map(cells, title=title, caption=caption)
    return _write(figure, path_stem, formats, phase_numbers(on_grid(cells)))


def draw_overview(
    cells: pl.DataFrame, path_stem: Path, *, title: str, caption: str, formats: Sequence[str] = ("png", "svg")
) -> list[Path]:
    """Draw final test error, noise cost, gap and phases, two by two; arguments, files and errors as in
    `draw_heat_map`."""
    grid = on_grid(cells)
    numbers = pl.concat([*(metric_numbers(grid, metric) for metric in OVERVIEW_METRICS), phase_numbers(grid)])
    return _write(overview(cells, title=title, caption=caption), path_stem, formats, numbers)


def heat_map(
    cells: pl.DataFrame,
    metric: str,
    *,
    title: str,
    caption: str,
    theory: pl.DataFrame | None = None,
    boundary: pl.DataFrame | None = None,
) -> Figure:
    """The figure behind `draw_heat_map`; its first Axes holds the cells, the second the colour bar."""
    from matplotlib import rc_context

    from orchestrator.figures import diagram
    from orchestrator.figures import page as printed

    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; choose from {', '.join(METRICS)}")
    _need_cells(cells)
    with rc_context(printed.STYLE):
        text = f"{caption} {metric_caption(cells, metric)}"
        key = diagram.curve_key(theory, boundary)
        grid = on_grid(cells)
        page = printed.Page(grid, rows=1, columns=1, title=title, caption=text, key=key, bars=True)
        axes = page.panel(0)
        label, unit = f"{METRICS[metric].label} ({METRICS[metric].unit})", METRICS[metric].unit
        fits = printed.text_width(label, printed.TEXT) <= 72 * page.panel_height + 12
        _draw_metric(axes, page.colour_bar(0), grid, metric, bar_label=label if fits else unit)
        diagram.draw_curves(axes, grid, theory, boundary)
    return page.figure


def phase_map(cells: pl.DataFrame, *, title: str, caption: str) -> Figure:
    """The figure behind `draw_phase_map`."""
    from matplotlib import rc_context

    from orchestrator.figures import page as printed

    _need_cells(cells)
    with rc_context(printed.STYLE):
        text = f"{caption} {phase_caption(cells)}"
        grid = on_grid(cells)
        page = printed.Page(grid, rows=1, columns=1, title=title, caption=text, key=_phase_key(grid), bars=False)
        _draw_phases(page.panel(0), grid)
    return page.figure


def overview(cells: pl.DataFrame, *, title: str, caption: str) -> Figure:
    """The figure behind `draw_overview`: panels (a) to (c), each followed by its colour bar, then the phases
    (d)."""
    from matplotlib import rc_context

    from orchestrator.figures import page as printed

    _need_cells(cells)
    with rc_context(printed.STYLE):
        text = f"{caption} {overview_caption(cells, OVERVIEW_METRICS)}"
        grid = on_grid(cells)
        page = printed.Page(grid, rows=2, columns=2, title=title, caption=text, key=_phase_key(grid), bars=True)
        for place, metric in enumerate(OVERVIEW_METRICS):
            axes = page.panel(place)
            _draw_metric(axes, page.colour_bar(place), grid, metric, bar_label=METRICS[metric].unit)
            axes.set_title(f"({'abc'[place]}) {METRICS[metric].label}", fontsize=printed.TEXT + 0.5, loc="left", pad=3)
        axes = page.panel(len(OVERVIEW_METRICS))
        _draw_phases(axes, grid)
        axes.set_title("(d) phase", fontsize=printed.TEXT + 0.5, loc="left", pad=3)
    return page.figure


def _draw_metric(axes: Axes, bar_axes: Axes, cells: pl.DataFrame, metric: str, *, bar_label: str) -> None:
    from orchestrator.figures import diagram

    scale = diagram.ColourScale(cells[f"{metric}_mean"])

    def paint(cell: dict[str, Any]) -> tuple[str, str] | None:
        value = cell[f"{metric}_mean"]
        return None if value is None else (scale.colour(value), number(value, scale.decimals))

    diagram.draw_cells(axes, cells, paint, count=f"{metric}_n")
    scale.draw_bar(bar_axes, bar_label)


def _draw_phases(axes: Axes, cells: pl.DataFrame) -> None:
    from orchestrator.figures import diagram

    diagram.draw_cells(axes, cells, lambda cell: PHASE_LOOK.get(cell["phase"]), count="n")


def _phase_key(cells: pl.DataFrame) -> list[Patch]:
    """Every phase, found or not, so that maps can be compared; the greys only where they occur."""
    from orchestrator.figures import diagram

    key = [diagram.patch_key(colour, f"{letter} {phase}") for phase, (colour, letter) in PHASE_LOOK.items()]
    found = set(cells["phase"])
    greys = (
        ("missing", diagram.NO_DATA, "//////", "no data"),
        ("diverged", diagram.DIVERGED, "xxxxxx", "diverged"),
    )
    return key + [diagram.patch_key(grey, label, hatch=hatch) for phase, grey, hatch, label in greys if phase in found]


def number(value: float, decimals: int) -> str:
    """A value as it is printed in a cell: a true minus sign, and none before zero."""
    text = f"{value:.{decimals}f}"
    return (text if float(text) else text.lstrip("-")).replace("-", "\N{MINUS SIGN}")


def _need_cells(cells: pl.DataFrame) -> None:
    if on_grid(cells).is_empty():
        raise ValueError("there are 0 planned cells to draw; plan at least one run, then draw again")


def _write(figure: Figure, path_stem: Path, formats: Sequence[str], numbers: pl.DataFrame) -> list[Path]:
    from matplotlib import rc_context

    from orchestrator.figures import page as printed

    with rc_context(printed.STYLE):
        return printed.write_figure(figure, Path(path_stem), formats, numbers)
