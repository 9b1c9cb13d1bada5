"""From evaluations to phases, on tables small enough to work out by hand."""

from __future__ import annotations

import math
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

from orchestrator.analysis.cells import cell_table
from orchestrator.analysis.definitions import METRICS
from orchestrator.analysis.grid import grid_cells
from orchestrator.analysis.levels import read_levels
from orchestrator.analysis.scores import run_table
from orchestrator.analysis.tables import cell_lines, write_tables
from search_spaces.spec import Analysis
from tests.synthetic import cell_rows, evaluation_table, planned_table, run_rows


def one_run(test_error: list[float | None], **values: Any) -> dict[str, Any]:
    return run_table(evaluation_table(run_rows("a", test_error, **values))).row(0, named=True)


def one_cell(*runs: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    """The cell with the highest noise rate."""
    table = cell_table(run_table(evaluation_table(*runs)), planned_table(*runs), **options)
    return table.row(-1, named=True)


# ---- one run ----


def test_gap_is_the_final_error_minus_the_lowest_and_best_is_the_first_time_it_was_reached() -> None:
    run = one_run([0.9, 0.2, 0.2, 0.5], test_loss=[2.0, 1.5, 1.0, 3.0])
    assert run["err_last"] == 0.5
    assert run["err_best"] == 0.2
    assert run["epoch_best"] == 1.0
    assert run["gap_err"] == pytest.approx(0.3)
    assert run["gap_loss"] == pytest.approx(2.0)


def test_last_is_the_mean_of_the_final_k_evaluations() -> None:
    table = evaluation_table(run_rows("a", [0.9, 0.2, 0.4, 0.5], train_error_given=[1.0, 0.5, 0.0, 0.02]))
    run = run_table(table, final_evaluations=2).row(0, named=True)
    assert run["err_last"] == pytest.approx(0.45)
    assert run["train_error_last"] == pytest.approx(0.01)
    assert run["interpolates"]
    with pytest.raises(ValueError, match=r"has 4 evaluations.*choose final_evaluations <= 4"):
        run_table(table, final_evaluations=5)


def test_held_out_selection_can_do_worse_than_the_end_and_is_null_without_a_validation_split() -> None:
    chosen = one_run([0.9, 0.6, 0.5], val_error=[0.8, 0.3, 0.3])
    assert chosen["err_valsel"] == 0.6
    assert chosen["gap_valsel"] == pytest.approx(-0.1)
    assert one_run([0.9, 0.6, 0.5])["gap_valsel"] is None


def test_interpolation_is_dated_at_one_and_ten_per_cent_train_error_and_null_when_never_reached() -> None:
    run = one_run([0.9, 0.5, 0.4], train_error_given=[0.5, 0.1, 0.01])
    assert (run["emc_epoch"], run["interpolation_epoch"], run["interpolates"]) == (1.0, 2.0, True)
    never = one_run([0.9, 0.5], train_error_given=[0.5, 0.2])
    assert (never["emc_epoch"], never["interpolation_epoch"], never["interpolates"]) == (None, None, False)


def test_the_limit_of_gradient_flow_is_a_time_like_any_other_but_never_enters_a_mean() -> None:
    rows = run_rows("a", [0.5, 0.2], epoch=[1.0, math.inf], train_error_given=[0.5, 0.0])
    run = run_table(evaluation_table(rows)).row(0, named=True)
    assert run["interpolation_epoch"] == math.inf
    cell = one_cell(rows)
    assert cell["interpolation_epoch_mean"] is None
    assert cell["err_last_mean"] == 0.2


def test_noise_cost_is_against_the_twin_of_the_same_seed_and_null_without_it() -> None:
    runs = [
        run_rows("clean0", [0.1], seed=0),
        run_rows("clean1", [0.2], seed=1),
        run_rows("noisy0", [0.4], seed=0, noise_rate=0.2),
        run_rows("noisy1", [0.4], seed=1, noise_rate=0.2),
        run_rows("alone", [0.4], seed=2, noise_rate=0.2),
        run_rows("other-width", [0.4], seed=0, noise_rate=0.2, width=16),
        run_rows("unfinished-clean", [0.3], seed=3, status="running"),
        run_rows("waits", [0.4], seed=3, noise_rate=0.2),
    ]
    cost = dict(run_table(evaluation_table(*runs)).select("run_id", "noise_cost").rows())
    assert cost["clean0"] == 0.0
    assert cost["noisy0"] == pytest.approx(0.3)
    assert cost["noisy1"] == pytest.approx(0.2)
    assert [cost[name] for name in ("alone", "other-width", "unfinished-clean", "waits")] == [None] * 4


def test_a_run_that_is_noisy_in_truth_is_nobodys_clean_twin() -> None:
    runs = [
        run_rows("file", [0.4], noise_rate_realised=0.4, noise_model="file"),
        run_rows("noisy", [0.5], noise_rate=0.2),
    ]
    table = run_table(evaluation_table(*runs))
    assert table["noise_cost"].to_list() == [None, None]
    with pytest.raises(ValueError, match=r"run file has noise rate 0 and realised noise rate 0\.4"):
        cell_table(table, planned_table(*runs))


def test_excess_risk_is_exact_where_the_ledger_has_it_and_else_measured_from_the_best_clean_cell() -> None:
    exact = one_run([0.5, 0.3], excess_risk=[0.4, 0.2])
    assert (exact["excess_risk"], exact["excess_risk_kind"]) == (0.2, "exact")
    runs = [
        run_rows("lucky", [0.02], seed=0),
        run_rows("unlucky", [0.10], seed=1),
        run_rows("wide", [0.05], seed=0, width=16),
        run_rows("noisy", [0.30], noise_rate=0.2),
    ]
    proxy = run_table(evaluation_table(*runs)).filter(run_id="noisy").row(0, named=True)
    assert proxy["excess_risk"] == pytest.approx(0.25)  # 0.30 - 0.05: the best cell mean, not the luckiest run
    assert proxy["excess_risk_kind"] == "proxy"


@pytest.mark.parametrize("status", ["diverged", "failed", "running"])
def test_a_run_that_did_not_finish_keeps_its_status_and_has_no_metrics(status: str) -> None:
    run = one_run([0.5, 0.0], status=status)
    assert run["status"] == status
    assert {run[name] for name in METRICS} == {None}


def test_nan_in_a_finished_run_is_divergence_and_never_a_number() -> None:
    run = one_run([0.5, math.nan, 0.1])
    assert run["status"] == "diverged"
    assert {run[name] for name in METRICS} == {None}
    assert one_run([0.5, 0.1], test_loss=[1.0, math.nan])["status"] == "diverged"


def test_an_infinite_loss_costs_only_the_loss_gap() -> None:
    run = one_run([0.5, 0.1], test_loss=[1.0, math.inf])
    assert (run["status"], run["err_last"], run["gap_loss"]) == ("done", 0.1, None)


def test_an_evaluation_without_a_test_error_is_skipped_unless_it_is_the_last() -> None:
    assert one_run([0.5, None, 0.3])["gap_err"] == 0.0
    assert one_run([0.5, 0.3, None])["err_last"] is None


def test_the_order_of_rows_does_not_matter_and_repeated_rows_are_refused() -> None:
    table = evaluation_table(run_rows("a", [0.9, 0.2, 0.5]), run_rows("b", [0.8, 0.3, 0.4], seed=1))
    assert run_table(table.reverse()).equals(run_table(table))
    with pytest.raises(ValueError, match=r"run b has evaluation 2 more than once"):
        run_table(pl.concat([table, table.tail(1)]))
    with pytest.raises(ValueError, match=r"lacks the columns test_error"):
        run_table(table.drop("test_error"))


# ---- one cell ----


def seeds(errors: list[float], *, clean: float = 0.05, gap: float = 0.0, **values: Any) -> list[list[dict[str, Any]]]:
    """Clean and noisy runs of one cell; the noisy ones end at `errors` after a minimum `gap` lower."""
    runs = []
    for seed, error in enumerate(errors):
        runs.append(run_rows(f"clean{seed}", [clean], seed=seed))
        runs.append(run_rows(f"noisy{seed}", [error - gap, error], seed=seed, noise_rate=0.2, **values))
    return runs


def test_means_and_standard_errors_are_over_finished_seeds() -> None:
    cell = one_cell(*seeds([0.1, 0.2, 0.6]))
    assert (cell["n"], cell["n_planned"]) == (3, 3)
    assert cell["err_last_mean"] == pytest.approx(0.3)
    assert cell["err_last_se"] == pytest.approx(math.sqrt(0.07) / math.sqrt(3))
    assert cell["noise_cost_mean"] == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("phase", "errors", "values"),
    [
        ("benign", [0.07, 0.08, 0.09], {"gap": 0.01}),
        ("tempered", [0.07, 0.08, 0.09], {"gap": 0.03}),
        ("tempered", [0.2, 0.21, 0.22], {}),
        ("underfit", [0.2, 0.21, 0.22], {"train_error_given": 0.05}),
        ("catastrophic", [0.82, 0.85, 0.86], {"gap": 0.3}),
    ],
)
def test_phases_follow_their_definitions(phase: str, errors: list[float], values: dict[str, Any]) -> None:
    cell = one_cell(*seeds(errors, **values))
    assert cell["phase"] == phase
    assert cell[f"p_{phase}"] == 1.0


def test_thresholds_themselves_are_benign_in_spite_of_rounding() -> None:
    assert one_cell(*seeds([0.1, 0.1, 0.1], gap=0.02))["phase"] == "benign"


def test_a_cell_at_chance_is_catastrophic_even_without_noise() -> None:
    cell = one_cell(run_rows("a", [0.9]), run_rows("b", [0.9], seed=1))
    assert (cell["noise_cost_mean"], cell["phase"]) == (0.0, "catastrophic")


def test_seeds_that_disagree_leave_a_cell_undecided() -> None:
    cell = one_cell(*seeds([0.05, 0.05, 0.2]))
    assert cell["phase"] == "undecided"
    assert 0 < cell["p_benign"] < 0.9
    assert cell["p_benign"] + cell["p_tempered"] == pytest.approx(1)


def test_one_seed_decides_nothing_and_has_no_standard_error() -> None:
    cell = one_cell(*seeds([0.05]))
    assert (cell["n"], cell["p_benign"], cell["phase"]) == (1, 1.0, "undecided")
    assert cell["err_last_se"] is None


def test_without_a_clean_twin_only_the_gap_can_decide() -> None:
    def noisy(gap: float) -> list[list[dict[str, Any]]]:
        return [run_rows(f"{seed}", [0.2 - gap, 0.2], seed=seed, noise_rate=0.2) for seed in range(3)]

    small, large = one_cell(*noisy(0.0)), one_cell(*noisy(0.1))
    assert (small["phase"], small["p_benign"], small["p_tempered"]) == ("undecided", 0.0, 0.0)
    assert large["phase"] == "tempered"
    assert small["gap_floor"] is None


def test_every_planned_cell_has_a_row_whatever_became_of_its_runs() -> None:
    runs = [
        *seeds([0.2, 0.3]),
        run_rows("diverged0", [0.1], seed=0, noise_rate=0.4, status="diverged"),
        run_rows("diverged1", [0.1], seed=1, noise_rate=0.4, status="diverged"),
        run_rows("mixed0", [0.1], seed=0, noise_rate=0.3, status="diverged"),
        run_rows("mixed1", [0.5], seed=1, noise_rate=0.3),
        run_rows("failed", [0.1], seed=0, noise_rate=0.1, status="failed"),
    ]
    never_started = run_rows("never", [0.1], seed=1, noise_rate=0.1)
    cells = cell_table(run_table(evaluation_table(*runs)), planned_table(*runs, never_started))
    rows = {row["noise_rate"]: row for row in cells.to_dicts()}
    assert rows[0.4]["phase"] == "diverged"
    assert rows[0.1]["phase"] == "missing"
    for rate in (0.1, 0.4):
        assert {rows[rate][f"{name}_mean"] for name in METRICS} == {None}
        assert rows[rate]["p_benign"] is None
    assert [rows[0.1][name] for name in ("n", "n_planned", "n_failed", "n_unfinished")] == [0, 2, 1, 1]
    assert (rows[0.3]["n"], rows[0.3]["n_diverged"], rows[0.3]["err_last_mean"]) == (1, 1, 0.5)


def test_the_plan_may_know_the_end_of_a_run_that_left_no_row() -> None:
    runs = seeds([0.2, 0.3])
    crashed = run_rows("crashed", [0.1], noise_rate=0.4)
    planned = planned_table(*runs, crashed).with_columns(
        status=pl.when(pl.col("run_id") == "crashed").then(pl.lit("diverged"))
    )
    cell = cell_table(run_table(evaluation_table(*runs)), planned).row(-1, named=True)
    assert (cell["phase"], cell["n_diverged"]) == ("diverged", 1)


def test_the_floor_of_a_gap_is_the_gap_of_its_clean_cell() -> None:
    runs = [run_rows(f"clean{seed}", [0.04, 0.05], seed=seed) for seed in range(2)]
    noisy = [run_rows(f"noisy{seed}", [0.1, 0.2], seed=seed, noise_rate=0.2) for seed in range(2)]
    assert one_cell(*runs, *noisy)["gap_floor"] == pytest.approx(0.01)


def test_the_bootstrap_is_deterministic_and_a_cell_does_not_depend_on_its_neighbours() -> None:
    runs = seeds([0.05, 0.05, 0.2])
    more = [run_rows(f"more{seed}", [0.3], seed=seed, noise_rate=0.1) for seed in range(3)]
    alone, again, beside = one_cell(*runs), one_cell(*runs), one_cell(*more, *runs)
    assert alone["p_benign"] == again["p_benign"] == beside["p_benign"]
    assert one_cell(*runs, seed=1)["p_benign"] != alone["p_benign"]
    at_most_once = (8 + 12) / 27  # draws of the third seed among three; twice lifts the cost over its tolerance
    assert alone["p_benign"] == pytest.approx(at_most_once, abs=0.05)


@pytest.mark.parametrize(
    ("name", "value"),
    [("dataset", "cifar10"), ("architecture", "resnet18"), ("axis", "samples"), ("batch_size", 128), ("signal", 5.0)],
)
def test_what_differs_is_never_pooled_and_is_named(name: str, value: object) -> None:
    runs = [run_rows("a", [0.1]), run_rows("b", [0.2], seed=1, **{name: value})]
    with pytest.raises(ValueError, match=rf"they differ in {name}: "):
        cell_table(run_table(evaluation_table(*runs)), planned_table(*runs))


def test_two_noise_models_two_sizes_and_two_runs_of_one_seed_are_refused() -> None:
    models = [
        run_rows("a", [0.1], noise_rate=0.2),
        run_rows("b", [0.2], noise_rate=0.4, noise_model="pair"),
        run_rows("c", [0.2], noise_rate=0.0, noise_model="pair"),
    ]
    with pytest.raises(ValueError, match=r"noise_model: pair, symmetric"):
        cell_table(run_table(evaluation_table(*models)), planned_table(*models))
    sizes = [run_rows("a", [0.1], samples=500), run_rows("b", [0.1], samples=1000)]
    with pytest.raises(ValueError, match=r"samples \(axis is width\): 500, 1000"):
        cell_table(run_table(evaluation_table(*sizes)), planned_table(*sizes))
    twice = [run_rows("a", [0.1]), run_rows("b", [0.1])]
    with pytest.raises(ValueError, match=r"seed 0 is planned more than once"):
        cell_table(run_table(evaluation_table(*twice)), planned_table(*twice))


def test_the_full_recipe_keeps_runs_apart_where_the_ledger_has_it() -> None:
    runs = [run_rows("a", [0.1], recipe="{}"), run_rows("b", [0.2], recipe='{"momentum": 0.9}', noise_rate=0.2)]
    table = run_table(evaluation_table(*runs))
    assert table.filter(run_id="b")["noise_cost"].to_list() == [None]
    with pytest.raises(ValueError, match=r"they differ in recipe"):
        cell_table(table, planned_table(*runs))


# ---- grids and levels ----


def test_rows_and_columns_of_an_earlier_launch_join_the_grid_and_single_cells_stay_beside_it() -> None:
    planned = {(rate, width, 500) for rate in (0.0, 0.2, 0.4) for width in (4, 8, 16)}
    earlier = {(0.3, width, 500) for width in (4, 8)} | {(rate, 32, 500) for rate in (0.0, 0.2, 0.3)}
    placed = {(0.27, 8, 500), (0.31, 11, 500), (0.2, 11, 500)}
    assert grid_cells(planned, earlier | placed) == planned | earlier
    assert grid_cells(planned, set()) == planned


def test_whether_a_cell_is_in_the_grid_stands_in_its_row() -> None:
    evaluations, planned = cell_rows([1.0, 10.0], [0.0, 0.2])
    planned = planned.with_columns(in_grid=pl.col("ratio") < 5)
    cells = cell_table(run_table(evaluations), planned)
    assert cells["in_grid"].to_list() == (cells["ratio"] < 5).to_list()
    assert len(cell_lines(cells).columns) == 2  # the noise rates, and the one column of the grid


def test_a_boundary_is_read_with_its_level_or_takes_what_suits_the_metric() -> None:
    analysis = Analysis(tau=0.03, tau_cost=0.07, boundary_error=0.3)
    texts = ["gap_err=0.01", "noise_cost", "err_last", "memorised", "gap_loss=-1"]
    assert read_levels(texts, analysis) == {
        "gap_err": 0.01,
        "noise_cost": 0.07,
        "err_last": 0.3,
        "memorised": 0.5,
        "gap_loss": -1.0,
    }
    assert read_levels(["err_last"], Analysis()) == {"err_last": 0.1}


def test_all_that_is_wrong_with_boundaries_is_said_at_once() -> None:
    with pytest.raises(ValueError, match="boundary: ") as caught:
        read_levels(
            ["accuracy=0.9", "gap_err=high", "emc_epoch", "noise_cost", "noise_cost=0.1", "err_last=nan"], Analysis()
        )
    message = str(caught.value)
    assert "unknown metric 'accuracy', choose from err_last" in message
    assert "gap_err 'high' is no finite number, write for example gap_err=0.02" in message
    assert "emc_epoch has no level that suits every task, write for example emc_epoch=1" in message
    assert "noise_cost is there twice" in message
    assert "err_last 'nan' is no finite number" in message


# ---- tables ----


def test_the_terminal_table_shows_a_dash_where_nothing_is_measured() -> None:
    evaluations, planned = cell_rows(
        [1.0, 10.0], [0.0, 0.2], status=lambda ratio, rate, seed: "missing" if rate and ratio == 10.0 else "done"
    )
    table = cell_lines(cell_table(run_table(evaluations), planned))
    columns = [list(column.cells) for column in table.columns]
    assert columns[0] == ["0.2", "0"]
    assert columns[2][0] == "-"
    assert "±" in str(columns[1][0])
    with pytest.raises(ValueError, match=r"unknown metric 'accuracy'; choose from err_last"):
        cell_lines(cell_table(run_table(evaluations), planned), "accuracy")


def test_tables_are_written_whole_and_read_back_the_same(tmp_path: Any) -> None:
    evaluations, planned = cell_rows([1.0, 10.0], [0.0, 0.2])
    runs = run_table(evaluations)
    cells = cell_table(runs, planned)
    paths = write_tables(runs, cells, tmp_path / "phase")
    assert sorted(path.name for path in (tmp_path / "phase").iterdir()) == [
        "cells.csv",
        "cells.parquet",
        "runs.parquet",
    ]
    assert pl.read_parquet(paths[0]).equals(runs)
    assert pl.read_parquet(paths[1]).equals(cells)
    described = {field.name: field.metadata or {} for field in pq.read_schema(paths[1])}
    assert described["err_last_low"][b"unit"] == b"fraction"
    assert b"confidence interval" in described["err_last_low"][b"description"]
    assert [name for name, told in described.items() if name.startswith("p_") and b"description" not in told] == []
    assert pq.read_schema(paths[0]).field("ratio").metadata[b"description"] == b"realised p/n"
    assert pl.read_csv(paths[2])["err_last_mean"].to_list() == pytest.approx(cells["err_last_mean"].to_list())
