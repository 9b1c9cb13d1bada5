"""The boundary figure: marks where cells were measured, curves where they support one, and nothing in between."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.lines import Line2D

from orchestrator.analysis.boundary import curve_rates, fit_boundary
from orchestrator.analysis.cells import cell_table
from orchestrator.analysis.scores import run_table
from orchestrator.analysis.theory_lines import theory_lines
from orchestrator.figures.boundary_map import boundary_map, draw_boundary_map
from tests.synthetic import cell_rows
from tests.test_figures import nothing_overlaps_or_is_clipped

RATIOS, RATES, LEVEL = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0], [0.0, 0.1, 0.2, 0.4], 0.12
FATES = ("missing", "failed", "diverged")


def tables(fate: Any = lambda ratio, rate, seed: "done", **values: Any) -> tuple[pl.DataFrame, pl.DataFrame]:
    evaluations, planned = cell_rows(RATIOS, RATES, status=fate, **values)
    runs = run_table(evaluations)
    return runs, cell_table(runs, planned, bootstrap=20)


def curves(runs: pl.DataFrame, level: float = LEVEL) -> pl.DataFrame:
    return fit_boundary(runs, "err_last", level, rates=curve_rates(runs, "err_last"))


def draw(cells: pl.DataFrame, **values: Any) -> Figure:
    return boundary_map(cells, "err_last", LEVEL, title="T", caption="C", **values)


def marks(axes: Axes) -> dict[int, tuple[str, Line2D]]:
    found = {}
    for line in axes.lines:
        state, _, place = (line.get_gid() or "").partition(" ")
        if place.isdigit():
            found[int(place)] = (state, line)
    return found


def one_fate_each(ratio: float, rate: float, seed: int) -> str:
    place = RATIOS.index(ratio) + len(RATIOS) * RATES.index(rate)
    return FATES[place // 5 % 3] if place % 5 == 0 else "done"


def test_every_cell_is_one_mark_at_its_own_rate_and_ratio_and_only_measured_ones_have_a_colour() -> None:
    _, cells = tables(one_fate_each)
    figure = draw(cells)
    axes, bar = figure.axes
    low, high = bar.get_ylim()
    found = marks(axes)
    assert sorted(found) == list(range(cells.height))
    for i, row in enumerate(cells.sort("noise_rate", "ratio").to_dicts()):
        state, mark = found[i]
        (x,), (y,) = np.asarray(mark.get_xdata()), np.asarray(mark.get_ydata())
        assert (10**x, y) == pytest.approx((row["ratio"], row["noise_rate"]))
        if row["n"]:
            colour = to_hex(colormaps["cividis"]((row["err_last_mean"] - low) / (high - low)))
            assert (state, to_hex(mark.get_markerfacecolor())) == ("measured", colour)
        else:
            assert state == ("diverged" if row["n_diverged"] else "missing")
            assert mark.get_markerfacecolor() == "none"
    assert {state for state, _ in found.values()} == {"measured", "missing", "diverged"}
    assert not [patch for patch in axes.patches if patch.get_visible()]
    assert not axes.images


def test_no_pixel_and_no_element_of_the_files_gives_a_colour_to_a_cell_without_runs(tmp_path: Path) -> None:
    _, cells = tables(one_fate_each)
    png, svg, _ = draw_boundary_map(cells, "err_last", LEVEL, tmp_path / "boundary", title="T", caption="C")
    axes = draw(cells).axes[0]
    pixels = (imread(png)[..., :3] * 255).round().astype(int)
    height, width, _ = pixels.shape
    elements = {each.get("id"): each for each in ElementTree.parse(svg).iter() if each.get("id")}
    figure: Any = axes.figure
    for place, (state, mark) in marks(axes).items():
        x, y = figure.transFigure.inverted().transform(axes.transData.transform(np.asarray(mark.get_xydata())[0]))
        centre = tuple(pixels[int(height * (1 - y)), int(width * x)].tolist())
        fills = set(re.findall(r"fill: ([^;\"]+)", ElementTree.tostring(elements[f"{state} {place}"]).decode()))
        if state == "measured":
            colour = to_hex(mark.get_markerfacecolor())
            assert centre == tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
            assert colour in fills
        else:
            assert len(set(centre)) == 1  # white, or the grey of a cross
            assert fills <= {"none"} or (state == "diverged" and fills <= {"none", "#606060"})


def test_curves_are_the_estimate_and_their_bands_lie_below_the_marks() -> None:
    runs, cells = tables()
    boundary = curves(runs)
    axes = draw(cells, boundary=boundary).axes[0]
    drawn = [line for line in axes.lines if line.get_gid() == "exit"]
    points = {(float(y), float(x)) for line in drawn for x, y in np.asarray(line.get_xydata())}
    expected = boundary.filter(pl.col("exit").is_not_null()).select("noise_rate", pl.col("exit").log10()).rows()
    assert len(expected) > 5
    np.testing.assert_allclose(sorted(points), sorted(expected))
    bands = [each for each in axes.collections if isinstance(each, PolyCollection)]
    assert bands
    mark = marks(axes)[0][1]
    assert all(band.get_zorder() < mark.get_zorder() < drawn[0].get_zorder() for band in bands)
    for vertices in (path.vertices for band in bands for path in band.get_paths()):
        x, y = np.asarray(vertices).T
        assert x.min() >= np.log10(RATIOS[0]) - 1e-9
        assert x.max() <= np.log10(RATIOS[-1]) + 1e-9
        assert y.min() >= RATES[0]
        assert y.max() <= RATES[-1]


def test_irregular_cells_make_a_figure_and_no_curve_leaves_them() -> None:
    evaluations, planned = cell_rows(RATIOS, RATES)
    moved = [
        table.with_columns(
            noise_rate=pl.col("noise_rate") + 0.013 * pl.col("width") * (pl.col("noise_rate") > 0),
            ratio=pl.col("ratio") * (1 + pl.col("noise_rate")),
        )
        for table in (evaluations.with_columns(noise_rate_realised=pl.col("noise_rate")), planned)
    ]
    runs = run_table(moved[0])
    cells = cell_table(runs, moved[1], bootstrap=20)
    boundary = curves(runs)
    figure = draw(cells, boundary=boundary)
    assert len(marks(figure.axes[0])) == cells.height == 24
    inside = boundary.filter(pl.col("exit").is_not_null())
    assert inside.height
    assert (inside["exit"] <= inside["measured_high"]).all()
    assert (inside["exit"] >= inside["measured_low"]).all()
    nothing_overlaps_or_is_clipped(figure)


def test_a_curve_that_goes_over_to_another_branch_is_not_joined_up() -> None:
    _, cells = tables()
    rates = [0.1, 0.11, 0.12, 0.13]
    table = pl.DataFrame({"noise_rate": rates, "exit": [2.0, 2.1, 20.0, 21.0], "enter": [None] * 4})
    ends = {f"{name}_{side}": pl.lit(None, pl.Float64) for name in ("enter", "exit") for side in ("low", "high")}
    table = table.with_columns(
        pl.col("enter").cast(pl.Float64), pl.lit("err_last").alias("metric"), threshold=LEVEL, confidence=0.9, **ends
    )
    table = table.with_columns(measured_low=1.0, measured_high=32.0)
    lines = [line for line in draw(cells, boundary=table).axes[0].lines if line.get_gid() == "exit"]
    assert [len(np.asarray(line.get_xdata())) for line in lines] == [2, 2]


def test_closed_forms_are_lines_and_those_of_other_classifiers_are_thin_guides() -> None:
    _, cells = tables()
    theory = theory_lines("err_last", LEVEL, signal=10.0, ratios=(1.0, 32.0), rates=(0.0, 0.4))
    figure = draw(cells, theory=theory)
    lines = {line.get_gid(): line for line in figure.axes[0].lines}
    assert lines["min-norm exit"].get_linewidth() > lines["max-margin exit"].get_linewidth()
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [
        "level: final test error = 0.12",
        "measured cell",
        "closed form, min-norm",
        "guide, max-margin",
    ]
    caption = " ".join(figure.texts[-1].get_text().split())
    assert "Guides (max-margin) are other classifiers than the min-norm limit that was run" in caption
    assert "No crossing in this range: early stop." in caption


@pytest.mark.parametrize("fate", [lambda ratio, rate, seed: "done", one_fate_each])
def test_it_can_be_read_at_the_width_of_a_column(fate: Any) -> None:
    runs, cells = tables(fate)
    theory = theory_lines("err_last", LEVEL, signal=10.0, ratios=(1.0, 32.0), rates=(0.0, 0.4))
    figure = draw(cells, boundary=curves(runs), theory=theory)
    assert figure.get_size_inches()[0] == 3.5
    nothing_overlaps_or_is_clipped(figure)


def test_the_numbers_beside_it_are_those_that_are_drawn(tmp_path: Path) -> None:
    runs, cells = tables(one_fate_each)
    boundary = curves(runs)
    theory = theory_lines("err_last", LEVEL, signal=10.0, ratios=(1.0, 32.0), rates=(0.0, 0.4))
    first, second = (
        draw_boundary_map(
            cells, "err_last", LEVEL, tmp_path / name, title="T", caption="C", boundary=boundary, theory=theory
        )
        for name in ("a", "b")
    )
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    numbers = pl.read_csv(first[-1], infer_schema_length=None)
    counts = dict(numbers.group_by("layer").len().rows())
    assert counts["cell"] == cells.height
    assert counts["exit"] == boundary["exit"].count()
    assert counts["closed form"] == theory.height
    missing = numbers.filter(pl.col("state").is_in(["missing", "diverged"]))
    assert missing.height == cells.filter(pl.col("n") == 0).height
    assert missing["value"].null_count() == missing.height


def test_few_cells_are_marks_without_a_curve() -> None:
    _, cells = tables(lambda ratio, rate, seed: "done" if rate == 0 and ratio < 3 else "missing")
    figure = draw(cells)
    assert sorted({state for state, _ in marks(figure.axes[0]).values()}) == ["measured", "missing"]
    assert "Too few cells are measured" in " ".join(figure.texts[-1].get_text().split())
    with pytest.raises(ValueError, match=r"unknown metric 'accuracy'"):
        boundary_map(cells, "accuracy", 0.1, title="T", caption="C")
    with pytest.raises(ValueError, match=r"0 planned cells"):
        draw(cells.clear())
