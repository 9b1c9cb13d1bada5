"""Slices of a sweep: thresholds, contrasts and double descent worked out by hand, drawn as they were measured."""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from matplotlib.axes import Axes
from scipy import stats

from orchestrator.analysis.cells import cell_table
from orchestrator.analysis.curves import mean_curves, read_curves
from orchestrator.analysis.scores import run_table
from orchestrator.analysis.slices import along_axis, contrasts, fit_thresholds, telling_sizes
from orchestrator.cli import main
from orchestrator.figures.charts import ChartPage, draw_series, limit_y, looks
from orchestrator.figures.epoch_map import edges_between, epoch_map
from orchestrator.figures.line_charts import descent
from orchestrator.figures.page import SINGLE_COLUMN
from orchestrator.figures.time_axis import TimeAxis, draw_curve
from orchestrator.ledger import Ledger, Manifest
from orchestrator.slices.captions import lost
from orchestrator.sweep_tables import read_sweep
from search_spaces.catalog import load_space
from search_spaces.runs import Run, expand
from tests.synthetic import evaluation_table, planned_table, run_rows
from workers.schema import ROW_COLUMNS

SIZES = {2: (400, 0.8), 4: (1382, 2.764), 8: (5122, 10.244)}
"""Parameters and p/n of the widths used here, at n = 500."""


def run(width: int, rate: float, seed: int, error: float, train: float, **values: Any) -> list[dict[str, Any]]:
    parameters, ratio = SIZES[width]
    size = {"width": width, "parameters": parameters, "ratio": ratio}
    given = {"train_error_given": [0.9, train], "subset_hash": f"subset-{seed}"}
    return run_rows(f"{width}-{rate}-{seed}", [0.9, error], noise_rate=rate, seed=seed, **(size | given | values))


def tables(
    *runs: list[dict[str, Any]], planned: tuple[list[dict[str, Any]], ...] = ()
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Cells and runs; `planned` are runs without any row."""
    scored = run_table(evaluation_table(*runs))
    return cell_table(scored, planned_table(*runs, *planned), bootstrap=1), scored


# ---- along the axis ----


def test_a_slice_has_a_row_for_every_planned_cell_with_means_intervals_and_seeds() -> None:
    cells, runs = tables(
        run(2, 0.2, 0, 0.5, 0.3), run(2, 0.2, 1, 0.7, 0.3), run(4, 0.2, 0, 0.4, 0.1), planned=(run(8, 0.2, 0, 0, 0),)
    )
    table = along_axis(cells, runs, ["err_last"])
    assert table["ratio"].to_list() == [0.8, 2.764, 10.244]
    assert table["mean"].to_list() == [pytest.approx(0.6), 0.4, None]
    assert table["n"].to_list() == [2, 1, 0]
    reach = stats.t.ppf(0.975, 1) * 0.1
    assert table["low"].to_list() == [pytest.approx(0.6 - reach), None, None]
    assert table["parameters"].to_list() == [400, 1382, None]


def test_a_diverged_run_is_in_no_mean_and_is_counted() -> None:
    cells, runs = tables(run(2, 0.2, 0, 0.5, 0.3), run(2, 0.2, 1, 0.9, 0.9, status="diverged"))
    row = along_axis(cells, runs, ["err_last"]).row(0, named=True)
    assert (row["mean"], row["n"], row["n_planned"], row["n_diverged"]) == (0.5, 1, 2, 1)


def test_times_to_fit_are_null_where_a_seed_never_got_there() -> None:
    cells, runs = tables(run(2, 0.2, 0, 0.5, 0.05), run(2, 0.2, 1, 0.5, 0.3), run(4, 0.2, 0, 0.5, 0.05))
    assert along_axis(cells, runs, ["emc_epoch"])["mean"].to_list() == [None, 1.0]


def thresholds(errors: list[float | None], sizes: list[int], axis: str) -> dict[str, dict[str, Any]]:
    table = pl.DataFrame(
        {
            "noise_rate": [0.2] * len(sizes),
            "width": sizes if axis == "width" else [8] * len(sizes),
            "samples": [500] * len(sizes) if axis == "width" else sizes,
            "parameters": [5122] * len(sizes),
            "ratio": [float(size) if axis == "width" else 5122 / size for size in sizes],
            "mean": errors,
            "n": [3] * len(sizes),
        },
        schema_overrides={"mean": pl.Float64},
    )
    return {row["level"]: row for row in fit_thresholds(table, axis).to_dicts()}


def test_by_width_the_threshold_is_the_smallest_that_fits_and_lies_above_the_one_before() -> None:
    found = thresholds([0.5, 0.1, 0.04, 0.01, 0.0], [1, 2, 4, 8, 16], "width")
    assert (found["emc"]["fitted"], found["emc"]["unfitted"]) == (2, 1)
    assert (found["interpolation"]["fitted"], found["interpolation"]["unfitted"]) == (8, 4)
    assert {row["state"] for row in found.values()} == {"bracketed"}


def test_by_samples_it_is_the_largest_n_that_fits_which_is_effective_model_complexity() -> None:
    found = thresholds([0.0, 0.008, 0.09, 0.3], [50, 100, 250, 500], "samples")
    assert (found["emc"]["fitted"], found["emc"]["unfitted"]) == (250, 500)
    assert (found["interpolation"]["fitted"], found["interpolation"]["unfitted"]) == (100, 250)


def test_a_threshold_beyond_the_measured_sizes_is_said_to_be_there() -> None:
    all_fit = thresholds([0.0, 0.0], [1, 2], "width")["emc"]
    assert (all_fit["state"], all_fit["fitted"], all_fit["unfitted"]) == ("all fit", 1, None)
    none_fits = thresholds([0.5, 0.4], [50, 100], "samples")["emc"]
    assert (none_fits["state"], none_fits["fitted"], none_fits["unfitted"]) == ("none fits", None, 50)
    assert thresholds([None, None], [1, 2], "width")["emc"]["state"] == "not measured"


def test_a_hole_is_skipped_and_train_error_that_rises_again_is_counted() -> None:
    found = thresholds([0.5, None, 0.0, 0.3, 0.0], [1, 2, 4, 8, 16], "width")["emc"]
    assert (found["fitted"], found["unfitted"], found["measured"], found["returns"]) == (4, 1, 4, 1)


def test_learning_curves_are_shown_at_the_smallest_threshold_and_largest_size() -> None:
    by_hand = pl.DataFrame(
        {"noise_rate": [0.0, 0.0, 0.4, 0.4], "level": ["interpolation", "emc"] * 2, "fitted": [2, 2, None, 8]}
    )
    widths = [1, 2, 4, 8, 16]
    chosen = telling_sizes(by_hand, widths, "width")
    assert [value for value, _ in chosen] == [1, 8, 16]
    assert chosen[1][1] == "first at train error 0.1"
    assert telling_sizes(by_hand.with_columns(fitted=pl.lit(16)), widths, "width") == [
        (1, "smallest p/n"),
        (16, "largest p/n, first to interpolate"),
    ]
    nothing = by_hand.with_columns(fitted=pl.lit(None, pl.Int64))
    assert [value for value, _ in telling_sizes(nothing, widths, "width")] == [1, 4, 16]
    assert telling_sizes(nothing, [500, 50], "samples")[0] == (500, "smallest p/n")
    assert telling_sizes(nothing, [64], "width") == [(64, "the only one")]


# ---- contrasts ----


def test_contrasts_pair_by_seed_so_that_the_spread_over_seeds_cancels() -> None:
    """Errors differ by 0.4 between seeds, their differences by 0.02."""
    cells, runs = tables(
        *(run(4, 0.0, seed, error, 0.0) for seed, error in enumerate([0.10, 0.50])),
        *(run(4, 0.2, seed, error, 0.0) for seed, error in enumerate([0.20, 0.62])),
        *(run(4, 0.4, seed, error, 0.0) for seed, error in enumerate([0.35, 0.77])),
    )
    found = {(row["against"], row["noise_rate"]): row for row in contrasts(cells, runs).to_dicts()}
    assert set(found) == {("neighbour", 0.2), ("neighbour", 0.4), ("clean", 0.2), ("clean", 0.4)}
    assert found["neighbour", 0.2]["mean"] == pytest.approx(0.11)
    reach = stats.t.ppf(0.975, 1) * 0.01
    assert found["neighbour", 0.2]["low"] == pytest.approx(0.11 - reach)
    assert found["neighbour", 0.4]["mean"] == pytest.approx(0.15)
    assert found["neighbour", 0.4]["from_rate"] == 0.2
    assert found["clean", 0.4]["mean"] == pytest.approx(0.26)


def test_a_run_without_its_partner_or_with_another_subset_is_in_no_contrast() -> None:
    cells, runs = tables(
        run(4, 0.0, 0, 0.1, 0.0),
        run(4, 0.0, 1, 0.1, 0.0, subset_hash="another"),
        *(run(4, 0.2, seed, 0.3, 0.0) for seed in range(3)),
    )
    row = contrasts(cells, runs).filter(pl.col("against") == "clean").row(0, named=True)
    assert (row["n"], row["unpaired"], row["low"]) == (1, 2, None)
    assert row["mean"] == pytest.approx(0.2)


def test_without_a_clean_row_only_neighbours_are_contrasted() -> None:
    cells, runs = tables(run(4, 0.2, 0, 0.2, 0.0), run(4, 0.4, 0, 0.5, 0.0), planned=(run(8, 0.4, 0, 0, 0),))
    table = contrasts(cells, runs)
    assert table.select("against", "width", "mean", "n").rows() == [
        ("neighbour", 4, pytest.approx(0.3), 1),
        ("neighbour", 8, None, 0),
    ]


# ---- what is drawn ----


def lines(axes: Axes, gid: str) -> list[tuple[list[float], list[float]]]:
    return [
        (np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist())
        for line in axes.lines
        if line.get_gid() == gid
    ]


def panel() -> Axes:
    return ChartPage(rows=1, columns=1, title="T", caption="C", key=[], width=SINGLE_COLUMN).panel(0, 0)


def test_a_gap_breaks_the_line_and_a_value_between_gaps_is_a_mark_with_its_interval() -> None:
    axes = panel()
    mean = np.array([0.5, 0.4, np.nan, 0.3, np.nan])
    draw_series(axes, np.arange(5.0), mean, mean - 0.1, mean + 0.1, looks(1)[0], gid="s")
    ((_, drawn),) = lines(axes, "s")
    assert np.isnan(drawn).tolist() == [False, False, True, False, True]
    assert lines(axes, "s alone") == [([3.0], [0.3])]
    bars = [
        segment.tolist() for bar in axes.collections if hasattr(bar, "get_segments") for segment in bar.get_segments()
    ]
    assert bars == [[[3.0, pytest.approx(0.2)], [3.0, pytest.approx(0.4)]]]


def test_the_limit_of_the_flow_is_a_mark_of_its_own_at_the_right_edge() -> None:
    axes = panel()
    epochs = np.array([0.1, 1.0, 10.0, math.inf])
    time = TimeAxis.of(epochs, logarithmic=True, flow=True)
    values = np.array([[0.4, 0.3, 0.2, 0.1], [0.3, 0.2, 0.1, 0.0], [0.5, 0.4, 0.3, 0.2]])
    draw_curve(axes, time, epochs, values, looks(1)[0], gid="c")
    time.dress(axes, labelled=True, panel_width=3.0)
    assert lines(axes, "c") == [([0.1, 1.0, 10.0], [0.4, 0.3, 0.2])]
    assert time.limit is not None
    assert time.limit > 10
    assert lines(axes, "c limit") == [([time.limit], [0.1])]
    assert axes.get_xlim()[1] > time.limit
    labels = {tick.get_text(): place for place, tick in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)}
    assert labels["\N{INFINITY}"] == time.limit
    assert max(place for label, place in labels.items() if label != "\N{INFINITY}") <= 10


def test_limits_hold_every_mean_and_keep_errors_within_0_and_1() -> None:
    axes = panel()
    limit_y(axes, np.array([0.1, 0.9]), np.array([-0.5, 2.0]), most=1.0)
    low, high = axes.get_ylim()
    assert -0.05 < low < 0
    assert 1 < high < 1.05
    limit_y(axes, np.array([-0.2, 0.1]), np.array([-0.21, 0.11]), least=None)
    assert axes.get_ylim()[0] < -0.21


def test_series_have_their_own_colours_and_never_the_marker_of_thresholds() -> None:
    for count in (1, 7, 22):
        styles = looks(count)
        assert len({look.colour for look in styles}) == count
        assert "^" not in {look.marker for look in styles}


def test_double_descent_is_drawn_as_measured_with_its_thresholds() -> None:
    cells, runs = tables(
        *(run(width, rate, seed, 0.1 + rate + width / 100, 0.3 if width == 2 else 0.0)
          for width in (2, 4, 8) for rate in (0.0, 0.2) for seed in (0, 1)),
        planned=(run(8, 0.2, 2, 0, 0),),
    )  # fmt: skip
    table = along_axis(cells, runs, ["err_last", "err_best", "train_error_last"])
    found = fit_thresholds(table.filter(pl.col("metric") == "train_error_last"), "width")
    axes, train = descent(table, found, "width", title="T", caption="C").axes
    ratios = [0.8, 2.764, 10.244]
    ((x, y),) = lines(axes, "err_last 0.2")
    assert x == ratios
    assert y == pytest.approx([0.32, 0.34, 0.38])
    ((x, y),) = lines(train, "train_error_last 0")
    assert y == pytest.approx([0.3, 0.0, 0.0])
    assert [x for x, _ in lines(axes, "interpolation 0.2")] == [[2.764]]
    assert [text.get_text() for text in axes.texts] == ["n=2"]  # the cell of which a seed is missing


def test_the_map_of_width_and_epoch_colours_what_was_evaluated_and_nothing_else() -> None:
    """Width 4 has two seeds, one of which stops after two evaluations."""

    def curve(width: int, seed: int, errors: list[float]) -> pl.DataFrame:
        epochs = [1.0, 10.0, 100.0][: len(errors)]
        points = {"evaluation": range(len(errors)), "epoch": epochs, "test_error": errors}
        cell = {"noise_rate": 0.2, "width": width, "samples": 500, "ratio": SIZES[width][1], "seed": seed}
        return pl.DataFrame(points).with_columns(**{name: pl.lit(value) for name, value in cell.items()})

    curves = pl.concat([curve(2, 0, [0.9, 0.8, 0.7]), curve(4, 0, [0.6, 0.4, 0.2]), curve(4, 1, [0.8, 0.6])])
    axes = epoch_map(mean_curves(curves, ["test_error"]), logarithmic=True, flow=False, title="T", caption="C").axes[0]
    meshes = {mesh.get_gid(): mesh for mesh in axes.collections}
    assert meshes["measured 2"].get_array().ravel().tolist() == [0.9, 0.8, 0.7]  # type: ignore[union-attr]
    values = meshes["measured 4"].get_array()
    assert values is not None
    assert np.ma.getmaskarray(values).ravel().tolist() == [False, False, True]
    assert values.ravel().tolist()[:2] == pytest.approx([0.7, 0.5])
    edges = meshes["measured 4"].get_coordinates()  # type: ignore[attr-defined]
    assert np.array(edges[0, :, 0]) == pytest.approx(10.0 ** np.array([-0.5, 0.5, 1.5, 2.5]))
    assert np.array(edges[:, 0, 1]) == pytest.approx(2.0 ** np.array([1.5, 2.5]))


def test_edges_lie_midway_between_neighbours_on_the_scale_of_the_axis() -> None:
    assert edges_between(np.array([1.0, 10.0, 1000.0]), logarithmic=True) == pytest.approx(
        10.0 ** np.array([-0.5, 0.5, 2, 4])
    )
    assert edges_between(np.array([1.0, 2.0, 4.0]), logarithmic=False) == pytest.approx([0.5, 1.5, 3.0, 5.0])
    assert np.diff(edges_between(np.array([5.0]), logarithmic=True)) > 0


# ---- from a ledger to files ----


def ledger_of(folder: Path, name: str, overrides: list[str], lift: float = 0.0) -> list[Run]:
    """A small sweep written without training: three evaluations a run, the last at epoch 60."""
    space = load_space("digits-grid", ["widths=[4,8]", "noise.rates=[0,0.2]", "seeds=2", *overrides])
    ledger, runs = Ledger(folder / name), expand(space)
    ledger.write_manifest(Manifest(name, space, launches=1, created="2026-01-01"))
    ledger.add_runs(runs, "width", 1)
    rows, ends = [], []
    for each in runs:
        for evaluation, epoch in enumerate([1.0, 10.0, 60.0]):
            values: dict[str, Any] = {column.name: 0 for column in ROW_COLUMNS}
            error = [0.9, 0.1, 0.2][evaluation] + each.noise.rate + 0.01 * each.seed + lift
            values |= {"run_id": each.run_id, "evaluation": evaluation, "epoch": epoch, "attempt": 1}
            values |= {"test_error": error, "val_error": error, "test_loss": 2 * error, "excess_risk": None}
            values |= {"train_error_given": [0.9, 0.3, 0.2 if each.width == 4 else 0.0][evaluation]}
            values |= dict.fromkeys(("memorised", "recovered"), None if each.noise.rate == 0 else 0.5)
            rows.append(values)
        hashes = {"mask_hash": f"m{each.seed}{each.noise.rate}", "subset_hash": f"s{each.seed}"}
        end = {"run_id": each.run_id, "attempt": 1, "status": "done", "evaluations": 3, "seconds": 1.0}
        ends.append(end | hashes | {"noise_rate_realised": each.noise.rate})
    ledger.write_rows("settled-by-test", rows)
    ledger.write_ends("by-test", ends)
    return runs


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(main, list(arguments))


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_slices_and_comparisons_go_from_the_ledger_to_figures_tables_and_json(tmp_path: Path) -> None:
    ledger_of(tmp_path, "first", ["analysis.usual_epochs=20"])
    ledger_of(tmp_path, "second", ["recipe.weight_decay=0.1", "widths=[8,16]"], lift=0.05)
    where = ("--storage", str(tmp_path), "--format", "svg", "--json")
    result = invoke("slices", "first", "--kind", "model", "--kind", "overfit", "--kind", "contrast", *where)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert list(document["kinds"]) == ["model", "contrast", "overfit"]
    assert document["impossible"]["sample"].startswith("it needs a sweep whose axis is samples")
    names = sorted(Path(path).name for kind in document["kinds"].values() for path in kind["files"])
    assert names == sorted(path.name for path in (tmp_path / "first" / "phase").iterdir())
    errors = {
        (row["noise_rate"], row["width"]): float(row["mean"])
        for row in read(tmp_path / "first" / "phase" / "slice-model.csv")
        if row["metric"] == "err_last"
    }
    assert errors[("0.0", "4")] == pytest.approx(0.205)
    assert errors[("0.2", "8")] == pytest.approx(0.405)
    assert [row["fitted"] for row in document["kinds"]["model"]["tables"]["thresholds"]] == [8] * 4
    rows = document["kinds"]["contrast"]["tables"]["table"]
    assert [row["mean"] for row in rows] == pytest.approx([0.2] * 4)  # two widths, against the neighbour and rate 0
    gains = {row["metric"]: row["mean"] for row in document["kinds"]["overfit"]["tables"]["gains"]}
    assert gains == {"test_error": pytest.approx(0.1), "test_loss": pytest.approx(0.2)}
    svg = (tmp_path / "first" / "phase" / "slice-overfit.svg").read_text()
    assert "60 epochs, weight decay 0" in svg
    assert "end of the usual schedule (20 epochs)" in svg
    assert svg.count('id="usual schedule"') == 4  # loss and error at two noise rates
    assert "n=2" in svg

    compared = invoke("compare", "first", f"{tmp_path}/second", "--metric", "err_last", *where)
    assert compared.exit_code == 0, compared.output
    document = json.loads(compared.stdout)
    assert document["recipe_differences"] == [{"key": "recipe.weight_decay", "a": 0.0, "b": 0.1}]
    both = [row for row in document["cells"] if row["cells"] == "both"]
    assert [(row["noise_rate"], row["width_a"], row["interval"], row["decided"]) for row in both] == [
        (0.0, 8, "paired", True),
        (0.2, 8, "paired", True),
    ]
    assert [row["difference"] for row in both] == pytest.approx([0.05, 0.05])
    assert {(row["cells"], row["width_a"], row["width_b"]) for row in document["cells"]} == {
        ("both", 8, 8),
        ("a only", 4, None),
        ("b only", None, 16),
    }
    parquet = pl.read_parquet(tmp_path / "first" / "phase" / "compare-first-second.parquet")
    assert parquet.height == len(read(tmp_path / "first" / "phase" / "compare-first-second.csv")) == 6


def test_what_a_sweep_cannot_show_or_share_is_an_error_that_says_why(tmp_path: Path) -> None:
    ledger_of(tmp_path, "first", [])
    ledger_of(tmp_path, "apart", ["widths=[32]"])
    where = ("--storage", str(tmp_path))
    for arguments, message in (
        (("slices", "first", "--kind", "sample"), "cannot show sample: it needs a sweep whose axis is samples"),
        (("slices", "apart", "--kind", "model"), "this sweep has one width, 32"),
        (("slices", "first", "--kind", "pie"), "unknown kind pie; choose from model"),
        (("slices", "first", "--format", "gif"), "unknown format gif; choose from png, svg, pdf"),
        (("slices", "none"), "Sweeps there: apart, first"),
        (("compare", "first", "first"), "'first' is to be compared with itself"),
        (("compare", "first", "apart"), "no common cell"),
        (("compare", "first", "apart"), "apart has noise rates 0, 0.2, widths 32, samples 500"),
        (("compare", "first", "apart", "--metric", "accuracy"), "unknown metric 'accuracy'; choose from err_last"),
    ):
        result = invoke(*arguments, *where)
        assert result.exit_code == 2, result.output
        assert message in result.output
    assert not (tmp_path / "first" / "phase").exists()


def test_the_commands_load_neither_torch_nor_ray_and_no_matplotlib_before_there_is_a_sweep(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom orchestrator.cli import main\n"
        "for arguments in (['slices', 'nothing'], ['compare', 'a', 'b']):\n"
        "    try: main(arguments)\n    except SystemExit: pass\n"
        "print(*[name for name in ('torch', 'ray', 'matplotlib', 'scipy', 'sklearn') if name in sys.modules])\n"
        "import orchestrator.slices.draw, orchestrator.comparison\n"
        "print(*[name for name in ('torch', 'ray', 'matplotlib', 'scipy', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "\n\n"


def test_curves_are_read_of_finished_runs_alone_whatever_else_the_ledger_holds(tmp_path: Path) -> None:
    """Of one run a later attempt diverged, and another one has rows but no end."""
    runs = ledger_of(tmp_path, "first", [])
    ledger = Ledger(tmp_path / "first")
    ledger.write_ends("later", [{"run_id": runs[0].run_id, "attempt": 2, "status": "diverged", "evaluations": 3}])
    more = expand(load_space("digits-grid", ["widths=[16]", "noise.rates=[0]", "seeds=1"]))
    ledger.add_runs(more, "width", 2)
    values: dict[str, Any] = {column.name: 0 for column in ROW_COLUMNS} | {"run_id": more[0].run_id, "attempt": 2}
    ledger.write_rows("going-on", [values])
    sweep = read_sweep(ledger)
    curves = read_curves(ledger, sweep.runs, ["test_error"])
    assert set(curves["run_id"]) == {run.run_id for run in runs[1:]}
    assert curves.height == 3 * (len(runs) - 1)
    cell = {"noise_rate": runs[0].noise.rate, "width": runs[0].width}
    table = mean_curves(curves, ["test_error"]).filter(**cell)
    assert table["n"].to_list() == table["finished"].to_list() == [1, 1, 1]
    assert table["mean"].to_list() == pytest.approx([0.91, 0.11, 0.21])  # of seed 1


def test_cells_beside_the_grid_join_the_lines_of_their_noise_rate_and_lone_ones_are_told_and_left_out(
    tmp_path: Path,
) -> None:
    beside = "{noise_rate: 0.2, width: 6, samples: 500, seeds: 2}, {noise_rate: 0.11, width: 4, samples: 500, seeds: 2}"
    ledger_of(tmp_path, "refined", [f"cells=[{beside}]"])
    sweep = read_sweep(Ledger(tmp_path / "refined"))
    assert sweep.cells.height == 6
    drawn = sweep.along_lines()
    assert drawn.cells.select("noise_rate", "width").rows() == [(0.0, 4), (0.0, 8), (0.2, 4), (0.2, 6), (0.2, 8)]
    assert drawn.runs["noise_rate"].unique().sort().to_list() == [0.0, 0.2]
    result = invoke("slices", "refined", "--kind", "model", "--storage", str(tmp_path), "--format", "svg")
    assert result.exit_code == 0, result.output
    shown = {(row["noise_rate"], row["width"]) for row in read(tmp_path / "refined" / "phase" / "slice-model.csv")}
    assert shown == {("0.0", "4"), ("0.0", "8"), ("0.2", "4"), ("0.2", "6"), ("0.2", "8")}
    assert lost(drawn.cells, drawn.beside) == "Not shown: cells at noise rates beside the grid (1)."
