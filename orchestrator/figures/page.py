"""The page of a printed figure: its size, fonts, panels, title, key and caption, and how it is written to a file.

Import this module only where a figure is drawn: it imports Matplotlib.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from orchestrator.storage import open_storage

SINGLE_COLUMN, DOUBLE_COLUMN = 3.5, 7.2  # inches, as most journals set them
TITLE, TEXT, SMALL = 8.0, 6.5, 5.5  # points
LINE = 1.3  # line spacing, in font sizes
KEY_ROW = 0.125  # inches
NARROWEST = 13.0  # points: a cell that can hold two decimals; below, a map gets both columns of the journal's page
STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with Matplotlib, so that a figure is the same on every machine
    "font.size": TEXT,
    "axes.linewidth": 0.6,
    "hatch.linewidth": 0.4,
    "svg.fonttype": "none",
    "svg.hashsalt": "bo-sweep",
    "pdf.fonttype": 42,
}
METADATA: dict[str, dict[str, Any]] = {  # neither dates nor versions: the same cells give the same bytes
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


class Page:
    """A figure of `rows` x `columns` panels, with a title above and a key and a caption below, laid out in
    inches.

    Nothing is placed by a layout engine: text is measured, so that it neither overlaps nor is clipped.
    """

    left, right, gap, bottom, margin = 0.46, 0.62, 0.16, 0.36, 0.06

    def __init__(
        self,
        cells: pl.DataFrame,
        *,
        rows: int,
        columns: int,
        title: str,
        caption: str,
        key: Sequence[Artist],
        bars: bool,
        panel_height: float | None = None,
    ) -> None:
        """`panel_height`: inches, of a panel with axes to scale in a single column; None where a panel holds a row for
        each noise rate and a column for each p/n of `cells`, which then decide how high and wide it is."""
        rates = cells["noise_rate"].n_unique()
        right = self.right if bars else 0.1
        edges = ratio_edges(cells["ratio"].unique().sort().to_numpy())
        narrowest = np.diff(edges).min() / (edges[-1] - edges[0]) * 72 * (SINGLE_COLUMN - self.left - right)
        fits = panel_height is not None or narrowest >= NARROWEST
        width = SINGLE_COLUMN if columns == 1 and fits else DOUBLE_COLUMN
        room = 72 * (width - 2 * self.margin)
        titles, captions = wrap(title, TITLE, room, bold=True), wrap(caption, TEXT - 0.5, room)
        key_columns = _key_columns(key, room)
        key_rows = -(-len(key) // key_columns)

        self.panel_width = (width - columns * (self.left + right) - (columns - 1) * self.gap) / columns
        self.panel_height = panel_height or float(np.clip(1.75 / rates, 0.25, 0.5)) * rates
        head = 0.08 + len(titles) * TITLE * LINE / 72 + 0.04
        foot = 0.07 + KEY_ROW * key_rows + (0.05 if key else 0) + len(captions) * (TEXT - 0.5) * LINE / 72 + 0.04
        above = 0.2 if rows * columns > 1 else 0.0  # room for the panels' own titles
        height = head + rows * (above + self.panel_height + self.bottom) + foot
        self.figure = Figure(figsize=(width, height))
        FigureCanvasAgg(self.figure)
        self.size, self.columns, self.right_margin = (width, height), columns, right
        self.top = [height - head - above - row * (above + self.panel_height + self.bottom) for row in range(rows)]
        if titles:
            self.figure.text(
                self.margin / width,
                1 - 0.08 / height,
                "\n".join(titles),
                fontsize=TITLE,
                weight="bold",
                va="top",
            )
        below = self.top[-1] - self.panel_height - self.bottom - 0.07
        if key:
            self.figure.legend(
                handles=list(key),
                loc="upper left",
                bbox_to_anchor=(self.margin / width, below / height),
                **_KEY_STYLE,
                ncols=key_columns,
            )
            below -= KEY_ROW * key_rows + 0.05
        self.figure.text(
            self.margin / width,
            below / height,
            "\n".join(captions),
            fontsize=TEXT - 0.5,
            va="top",
            linespacing=LINE,
        )

    def panel(self, place: int) -> Axes:
        """The Axes of panel `place`, counted along the rows."""
        return self._axes(place, 0.0, self.panel_width)

    def colour_bar(self, place: int) -> Axes:
        """The Axes beside that panel, for its colour bar."""
        return self._axes(place, self.panel_width + 0.06, 0.09)

    def _axes(self, place: int, offset: float, width: float) -> Axes:
        row, column = divmod(place, self.columns)
        x = self.left + column * (self.left + self.panel_width + self.right_margin + self.gap) + offset
        y = self.top[row] - self.panel_height
        return self.figure.add_axes(
            (x / self.size[0], y / self.size[1], width / self.size[0], self.panel_height / self.size[1])
        )


_KEY_STYLE: dict[str, Any] = {
    "fontsize": TEXT - 0.5,
    "frameon": False,
    "borderpad": 0,
    "borderaxespad": 0,
    "handlelength": 1.6,
    "handletextpad": 0.5,
    "columnspacing": 1.2,
    "labelspacing": 0.45,
}


def _key_columns(key: Sequence[Artist], room: float) -> int:
    widest = max((text_width(str(handle.get_label()), TEXT - 0.5) for handle in key), default=1.0)
    return max(1, min(len(key), int(room // (widest + 3.3 * (TEXT - 0.5)))))


@lru_cache(maxsize=4096)
def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Width in points of one line, measured on the glyphs themselves."""
    font = FontProperties(family="DejaVu Sans", size=size, weight="bold" if bold else "normal")
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0])


def wrap(text: str, size: float, room: float, *, bold: bool = False) -> list[str]:
    """Lines of at most `room` points; a single word longer than that gets a line of its own."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_width(longer, size, bold=bold) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def ratio_edges(ratios: np.ndarray) -> np.ndarray:
    """Edges of the cells along x, in log10(p/n): float64 [k + 1] for k ascending ratios, midway between
    neighbours.

    The outermost edges mirror the nearest inner one; a single ratio gets a cell a third of a decade wide.
    """
    logs = np.log10(ratios)
    if len(logs) == 1:
        return np.array([logs[0] - 1 / 6, logs[0] + 1 / 6])
    middle = (logs[1:] + logs[:-1]) / 2
    return np.concatenate([[2 * logs[0] - middle[0]], middle, [2 * logs[-1] - middle[-1]]])


def write_figure(
    figure: Figure, path_stem: Path, formats: Sequence[str], numbers: pl.DataFrame | None = None
) -> list[Path]:
    """Write the figure in each of `formats`, and its numbers, if given, beside it as CSV; each atomically.

    ValueError on an unknown format, writing nothing.
    """
    unknown = sorted(set(formats) - set(METADATA))
    if unknown:
        raise ValueError(f"unknown format {', '.join(unknown)}; choose from {', '.join(METADATA)}")
    paths = []
    folder = open_storage(path_stem.parent)
    for name in formats:
        path = path_stem.parent / f"{path_stem.name}.{name}"
        content = io.BytesIO()
        figure.savefig(content, format=name, dpi=300, metadata=METADATA[name])
        folder.write(path.name, content.getvalue())
        paths.append(path)
    if numbers is not None:
        paths.append(path_stem.parent / f"{path_stem.name}.csv")
        folder.write(paths[-1].name, numbers.write_csv().encode())
    return paths
