"""The figures show what was measured and nothing else: read off the artists themselves."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from orchestrator.analysis.boundary import fit_boundary
from orchestrator.analysis.cells import cell_table
from orchestrator.analysis.scores import run_table
from orchestrator.figures.heat_maps import (
    draw_heat_map,
    draw_overview,
    draw_phase_map,
    heat_map,
    number,
    overview,
    phase_map,
)
from orchestrator.figures.looks import PHASE_LOOK
from orchestrator.figures.page import ratio_edges
from tests.synthetic import cell_rows

RATIOS, RATES = [0.8, 2.8, 10.2, 39.4], [0.0, 0.2, 0.4]
CAPTION = "Digits, tiny ResNet by width, n = 500, Adam 3e-3, 60 epochs, symmetric noise."


def cells_of(status: Any = lambda ratio, rate, seed: "done", **values: Any) -> pl.DataFrame:
    evaluations, planned = cell_rows(values.pop("ratios", RATIOS), values.pop("rates", RATES), status=status, **values)
    return cell_table(run_table(evaluations), planned, bootstrap=50)


def shapes(axes: Axes, kind: str) -> dict[tuple[int, int], Rectangle]:
    """The cells of one kind, by (row, column)."""
    found = {}
    for patch in axes.patches:
        name, *place = (patch.get_gid() or "").split()
        if name == kind and isinstance(patch, Rectangle):
            found[int(place[0]), int(place[1])] = patch
    return found


def draw(cells: pl.DataFrame, metric: str = "err_last", **values: Any) -> Figure:
    return heat_map(cells, metric, title="Title", caption=CAPTION, **values)


def places(cells: pl.DataFrame) -> list[tuple[tuple[int, int], dict[str, Any]]]:
    ratios, rates = cells["ratio"].unique().sort().to_list(), cells["noise_rate"].unique().sort().to_list()
    return [((rates.index(row["noise_rate"]), ratios.index(row["ratio"])), row) for row in cells.to_dicts()]


def test_every_cell_has_the_colour_of_its_value() -> None:
    cells = cells_of()
    figure = draw(cells)
    axes, bar = figure.axes
    low, high = bar.get_ylim()
    assert low == 0
    measured = shapes(axes, "measured")
    assert len(measured) == cells.height
    for place, row in places(cells):
        expected = to_hex(colormaps["cividis"]((row["err_last_mean"] - low) / (high - low)))
        assert to_hex(measured[place].get_facecolor()) == expected
        assert measured[place].get_hatch() is None
    assert bar.get_ylabel() == "final test error (fraction)"


def test_cells_lie_between_the_midpoints_of_measured_ratios_in_log_space() -> None:
    edges = ratio_edges(np.array([1.0, 10.0, 1000.0]))
    assert edges == pytest.approx([-0.5, 0.5, 2.0, 4.0])
    assert np.diff(ratio_edges(np.array([5.0]))) > 0
    axes = draw(cells_of()).axes[0]
    columns = ratio_edges(np.array(RATIOS))
    for (r, c), patch in shapes(axes, "measured").items():
        assert patch.get_xy() == pytest.approx((columns[c], r - 0.5))
        assert patch.get_width() == pytest.approx(columns[c + 1] - columns[c])
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0.8", "2.8", "10", "39"]
    assert axes.get_xticks() == pytest.approx(np.log10(RATIOS))
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["0", "0.2", "0.4"]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["done", "missing", "failed", "running", "diverged"]), min_size=12, max_size=12))
def test_no_cell_without_data_ever_looks_measured(pattern: list[str]) -> None:
    fate = {(ratio, rate): pattern[3 * i + j] for i, ratio in enumerate(RATIOS) for j, rate in enumerate(RATES)}
    cells = cells_of(lambda ratio, rate, seed: fate[ratio, rate], seeds=2)
    for axes in (draw(cells).axes[0], phase_map(cells, title="T", caption="C").axes[0]):
        drawn = {kind: shapes(axes, kind) for kind in ("measured", "missing", "diverged")}
        for place, row in places(cells):
            status = fate[row["ratio"], row["noise_rate"]]
            kind = {"done": "measured", "diverged": "diverged"}.get(status, "missing")
            assert [name for name, found in drawn.items() if place in found] == [kind]
            assert (drawn[kind][place].get_hatch() is None) == (status == "done")
        texts = [text.get_text() for text in axes.texts]
        assert sum(text.startswith("n=") for text in texts) == pattern.count("done")


def test_a_metric_that_was_not_measured_is_no_data_even_where_runs_finished() -> None:
    cells = cells_of(lambda ratio, rate, seed: "missing" if rate == 0 else "done")
    figure = draw(cells, "noise_cost")
    axes = figure.axes[0]
    assert not shapes(axes, "measured")
    assert len(shapes(axes, "missing")) == cells.height
    words = sorted(text.get_text() for text in axes.texts)
    assert words == ["no data"] * 4 + ["no value"] * 8
    assert "No value: 8 cells whose finished runs do not give this metric." in " ".join(
        figure.texts[-1].get_text().split()
    )


@pytest.mark.parametrize("count", [4, 9, 14, 30])
def test_all_measured_cells_of_a_map_tell_as_much_as_its_narrowest_one(count: int) -> None:
    ratios = [*np.geomspace(1.0, 10.0, count - 1).tolist(), 1000.0]  # one column is far wider than the others
    cells = cells_of(
        lambda ratio, rate, seed: "diverged" if rate and not seed else "done", ratios=ratios, rates=[0.0, 0.2]
    )
    panels = [axes for axes in overview(cells, title="T", caption="C").axes if axes.get_xlabel()]
    for axes in (*panels, draw(cells).axes[0]):
        daggers = sum("\N{DAGGER}" in text.get_text() for text in axes.texts)
        assert (len(axes.texts), daggers) in [(2 * cells.height, count), (cells.height, count), (count, count), (0, 0)]


def test_a_point_that_was_never_planned_stays_blank() -> None:
    cells = cells_of()
    fewer = cells.filter((pl.col("noise_rate") != 0.4) | (pl.col("ratio") != 0.8))
    axes = draw(fewer).axes[0]
    assert (2, 0) not in {**shapes(axes, "measured"), **shapes(axes, "missing")}


def test_phases_are_told_by_colour_and_letter_and_diverged_runs_are_marked() -> None:
    def fate(ratio: float, rate: float, seed: int) -> str:
        return "diverged" if rate == 0.4 and (ratio == 39.4 or (ratio == 10.2 and seed == 0)) else "done"

    axes = phase_map(cells_of(fate), title="T", caption="C").axes[0]
    texts = [text.get_text() for text in axes.texts]
    assert "U" in texts
    assert "B" in texts
    assert "n=2†" in texts
    assert list(shapes(axes, "diverged")) == [(2, 3)]


def test_the_caption_tells_seeds_definition_floor_and_what_is_missing() -> None:
    def fate(ratio: float, rate: float, seed: int) -> str:
        return {0.8: "missing", 2.8: "diverged"}.get(ratio, "done") if rate == 0.4 else "done"

    cells = cells_of(fate, gap=lambda ratio, rate: 0.004)
    floor = max(cells.filter(noise_rate=0)["gap_err_mean"])
    caption = " ".join(draw(cells, "gap_err").texts[-1].get_text().split())
    assert caption.startswith(CAPTION)
    assert "Final minus lowest test error over training" in caption
    assert "n = 3 seeds" in caption
    assert f"up to {floor:.3f} at noise rate 0, its floor" in caption
    assert "final error and noise cost come first" in caption
    assert "no finished run (2 of 12 planned cells)" in caption
    assert "Diverged runs (3 of 36)" in caption
    assert "Not finished: 3 of 36" in caption
    rule = " ".join(phase_map(cells, title="T", caption="C").texts[-1].get_text().split())
    assert "gap at most 0.02 and noise cost at most 0.05" in rule


def test_one_rate_one_ratio_one_seed_is_a_figure_too() -> None:
    cells = cells_of(ratios=[3.0], rates=[0.2], seeds=1)
    assert list(shapes(draw(cells).axes[0], "measured")) == [(0, 0)]
    figure = phase_map(cells, title="T", caption="C")
    assert [text.get_text() for text in figure.axes[0].texts] == ["?", "n=1"]
    assert "One seed a cell" in " ".join(figure.texts[-1].get_text().split())


def test_a_sweep_in_which_nothing_has_finished_is_all_hatched() -> None:
    figure = overview(cells_of(lambda ratio, rate, seed: "missing"), title="T", caption="C")
    panels = [axes for axes in figure.axes if axes.get_xlabel()]
    assert len(panels) == 4
    for axes in panels:
        assert len(shapes(axes, "missing")) == 12
        assert not shapes(axes, "measured")


def test_theory_is_a_line_and_the_estimate_is_dashed_within_its_row() -> None:
    evaluations, planned = cell_rows(RATIOS, RATES, gap=lambda ratio, rate: 0.0, spread=0.001)
    runs = run_table(evaluations)
    boundary = fit_boundary(runs, "err_last", 0.2)
    theory = pl.DataFrame({"noise_rate": [0.0, 0.3, 0.9], "ratio": [1.0, 10.0, 30.0]})
    cells = cell_table(runs, planned, bootstrap=50)
    figure = draw(cells, theory=theory, boundary=boundary)
    line, *dashes = figure.axes[0].lines
    assert np.asarray(line.get_ydata()) == pytest.approx(
        [0.0, 1.5]
    )  # 0.3 lies half way between the rows of 0.2 and 0.4
    assert np.asarray(line.get_xdata()) == pytest.approx([0.0, 1.0])  # 0.9 lies beyond the measured rates
    crossing = [row for row in boundary.to_dicts() if row["exit"] is not None]
    assert crossing
    assert len(dashes) == len(crossing)
    for dash, row in zip(dashes, crossing, strict=True):
        r = RATES.index(row["noise_rate"])
        assert list(dash.get_xdata()) == pytest.approx([np.log10(row["exit"])] * 2)  # type: ignore[arg-type]
        assert list(dash.get_ydata()) == [r - 0.5, r + 0.5]  # type: ignore[arg-type]
        assert dash.get_linestyle() != "-"
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["closed form", "estimated: final test error = 0.2", "90% band over seeds"]


def visible_words(figure: Figure) -> list[Text]:
    words = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for axes in figure.axes:
        words += [
            *axes.texts,
            axes.xaxis.label,
            axes.yaxis.label,
        ]
        words += [each for each in axes.get_children() if isinstance(each, Text) and each.get_text().startswith("(")]
        for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            ticks = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
            words += [label for place, label in ticks if low <= place <= high]
    return [text for text in dict.fromkeys(words) if text.get_text().strip()]


def nothing_overlaps_or_is_clipped(figure: Figure) -> None:
    figure.canvas.draw()
    page, words = figure.bbox, visible_words(figure)
    boxes = [text.get_window_extent() for text in words]
    for box in boxes:
        assert box.x0 >= page.x0 - 1
        assert box.x1 <= page.x1 + 1
        assert box.y0 >= page.y0 - 1
        assert box.y1 <= page.y1 + 1
    edges = np.array([box.extents for box in boxes])
    lower = np.maximum(edges[:, None, :2], edges[None, :, :2])
    upper = np.minimum(edges[:, None, 2:], edges[None, :, 2:])
    overlap = np.clip(upper - lower, 0, None).min(axis=2)
    np.fill_diagonal(overlap, 0)
    first, second = np.unravel_index(overlap.argmax(), overlap.shape)
    assert overlap.max() < 2, f"{words[first]} and {words[second]}"


@pytest.mark.parametrize("rates", [[0.0], [0.0, 0.05, 0.1, 0.2, 0.4]])
@pytest.mark.parametrize(
    "ratios", [[3.0], RATIOS, np.geomspace(0.2, 300, 9).tolist(), np.geomspace(0.2, 300, 30).tolist()]
)
def test_nothing_is_clipped_and_no_two_words_overlap(ratios: list[float], rates: list[float]) -> None:
    cells = cells_of(lambda ratio, rate, seed: "missing" if rate == 0.2 else "done", ratios=ratios, rates=rates)
    for figure in (
        draw(cells, "err_valsel"),
        phase_map(cells, title="T", caption=CAPTION),
        overview(cells, title="T", caption=CAPTION),
    ):
        nothing_overlaps_or_is_clipped(figure)


def test_files_are_the_same_every_time_with_text_as_text_and_nothing_left_beside(tmp_path: Path) -> None:
    cells = cells_of()
    first = draw_heat_map(cells, "err_last", tmp_path / "a" / "err.v1", title="Title", caption=CAPTION)
    second = draw_heat_map(cells, "err_last", tmp_path / "b" / "err.v1", title="Title", caption=CAPTION)
    names = ["err.v1.png", "err.v1.svg", "err.v1.csv"]
    assert [path.name for path in first] == names
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(names)
    svg = first[1].read_text()
    assert re.search(r"<text[^>]*>n=3</text>", svg)
    assert "tiny ResNet by width" in svg
    assert "dc:date" not in svg


def test_phase_map_and_overview_are_written_in_every_format(tmp_path: Path) -> None:
    cells = cells_of()
    formats = ("png", "svg", "pdf")
    paths = draw_phase_map(cells, tmp_path / "phase", title="T", caption="C", formats=formats)
    paths += draw_overview(cells, tmp_path / "overview", title="T", caption="C", formats=formats)
    assert [path.suffix for path in paths] == [".png", ".svg", ".pdf", ".csv"] * 2
    assert all(path.stat().st_size > 500 for path in paths)
    again = draw_phase_map(cells, tmp_path / "again", title="T", caption="C", formats=formats)
    assert [path.read_bytes() for path in paths[:4]] == [path.read_bytes() for path in again]


def test_the_numbers_beside_a_figure_are_those_that_it_shows(tmp_path: Path) -> None:
    def fate(ratio: float, rate: float, seed: int) -> str:
        return {0.8: "missing", 2.8: "diverged"}.get(ratio, "done") if rate == 0.4 else "done"

    cells = cells_of(fate)
    for paths in (
        draw_heat_map(cells, "err_last", tmp_path / "err_last", title="T", caption="C"),
        draw_overview(cells, tmp_path / "overview", title="T", caption="C"),
    ):
        numbers = pl.read_csv(paths[-1], infer_schema_length=None).filter(panel="err_last")
        assert numbers.height == cells.height
        for number_row, cell in zip(numbers.to_dicts(), cells.to_dicts(), strict=True):
            assert (number_row["noise_rate"], number_row["ratio"]) == (cell["noise_rate"], cell["ratio"])
            assert (number_row["value"], number_row["n"]) == (cell["err_last_mean"], cell["n"])
            assert (number_row["state"] == "measured") == (cell["n"] > 0)
    phases = pl.read_csv(draw_phase_map(cells, tmp_path / "phase", title="T", caption="C")[-1])
    assert phases["state"].to_list() == cells["phase"].to_list()


def test_cells_beside_the_grid_leave_its_rows_and_columns_alone_and_are_told_of() -> None:
    cells = cells_of()
    extra = cells.filter(noise_rate=0.2, ratio=2.8).with_columns(
        noise_rate=pl.lit(0.27), ratio=pl.lit(4.4), in_grid=pl.lit(False)
    )
    refined = pl.concat([cells, extra])
    for plain, with_extra in (
        (draw(cells), draw(refined)),
        (overview(cells, title="T", caption="C"), overview(refined, title="T", caption="C")),
    ):
        assert [shapes(axes, "measured").keys() for axes in with_extra.axes] == [
            shapes(axes, "measured").keys() for axes in plain.axes
        ]
        assert with_extra.axes[0].get_xlim() == plain.axes[0].get_xlim()
        assert "1 measured cell lies beside this grid" in " ".join(with_extra.texts[-1].get_text().split())
        assert "beside this grid" not in " ".join(plain.texts[-1].get_text().split())


def test_the_caption_tells_how_wide_the_intervals_are_and_how_they_were_made() -> None:
    cells = cells_of()
    reach = ((cells["err_last_high"] - cells["err_last_low"]) / 2).to_numpy()
    few = " ".join(draw(cells).texts[-1].get_text().split())
    assert (
        f"95% intervals (Student t): half width {np.median(reach):.2g} in the median cell, at most {reach.max():.2g}"
        in few
    )
    assert "(studentised bootstrap)" in " ".join(draw(cells_of(seeds=12)).texts[-1].get_text().split())
    assert "intervals" not in " ".join(draw(cells_of(seeds=1)).texts[-1].get_text().split())


# Machado, Oliveira & Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency" (2009),
# severity 1.0, on linear RGB.
COLOUR_VISION = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(colours: np.ndarray, seen: list[list[float]]) -> np.ndarray:
    """CIE Lab (D65) of sRGB colours [k, 3], as somebody with that colour vision sees them."""
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ np.array(seen).T, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ to_xyz.T / [0.9505, 1.0, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


@pytest.mark.parametrize("seen", [np.eye(3).tolist(), *COLOUR_VISION.values()], ids=["common", *COLOUR_VISION])
def test_values_and_phases_can_be_told_apart_with_any_colour_vision(seen: list[list[float]]) -> None:
    lightness = lab(colormaps["cividis"](np.linspace(0, 1, 256))[:, :3], seen)[:, 0]
    assert (np.diff(lightness) > 0).all()
    phases = lab(np.array([to_rgb(colour) for colour, _ in PHASE_LOOK.values()]), seen)
    apart = np.linalg.norm(phases[:, None] - phases[None, :], axis=2)
    assert apart[np.triu_indices(len(phases), 1)].min() > 10  # 2.3 is just noticeable


def test_mistakes_are_named(tmp_path: Path) -> None:
    cells = cells_of()
    with pytest.raises(ValueError, match=r"unknown metric 'accuracy'; choose from err_last"):
        draw_heat_map(cells, "accuracy", tmp_path / "x", title="T", caption="C")
    with pytest.raises(ValueError, match=r"unknown format gif; choose from png, svg, pdf"):
        draw_heat_map(cells, "err_last", tmp_path / "x", title="T", caption="C", formats=("gif",))
    with pytest.raises(ValueError, match=r"0 planned cells to draw"):
        draw_phase_map(cells.clear(), tmp_path / "x", title="T", caption="C")


def test_numbers_in_cells_have_a_true_minus_and_no_negative_zero() -> None:
    assert [number(-0.001, 2), number(-0.05, 2), number(0.125, 3)] == ["0.00", "\N{MINUS SIGN}0.05", "0.125"]


def test_the_analysis_is_imported_without_matplotlib_sklearn_torch_or_ray() -> None:
    code = (
        "import sys, orchestrator.analysis.cells, orchestrator.analysis.boundary, orchestrator.analysis.tables\n"
        "import orchestrator.analysis.theory_lines, orchestrator.analysis.manifest, orchestrator.analysis.levels\n"
        "import orchestrator.figures.heat_maps, orchestrator.figures.boundary_map\n"
        "print([m for m in ('matplotlib', 'sklearn', 'scipy', 'torch', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
