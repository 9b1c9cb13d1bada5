"""Learning curves: means over seeds that never jump because a seed is gone, and what stopping early gains."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from orchestrator.analysis.curves import mean_curves, stopping_gains
from orchestrator.analysis.seed_means import seed_means


def curve(seed: int, error: list[float | None], **values: Any) -> pl.DataFrame:
    """The curve of one finished run, as `read_curves` gives it; the same cell unless told otherwise."""
    points = len(error)
    run = {"noise_rate": 0.2, "width": 8, "samples": 500, "ratio": 10.2} | values
    epochs = run.pop("epochs", [float(point) for point in range(points)])
    loss = run.pop("loss", [None] * points)
    table = {"evaluation": list(range(points)), "epoch": epochs, "test_error": error, "test_loss": loss}
    frame = pl.DataFrame(table, schema_overrides={"test_error": pl.Float64, "test_loss": pl.Float64})
    name = f"{run['noise_rate']}-{run['width']}-{seed}"
    return frame.with_columns(
        run_id=pl.lit(name), seed=pl.lit(seed), **{key: pl.lit(value) for key, value in run.items()}
    )


def means(*curves: pl.DataFrame, metric: str = "test_error") -> pl.DataFrame:
    return mean_curves(pl.concat(curves), [metric])


def test_a_mean_curve_is_the_mean_of_its_seeds_at_every_evaluation_with_students_interval() -> None:
    table = means(curve(0, [0.9, 0.2]), curve(1, [0.7, 0.4]))
    assert table["mean"].to_list() == pytest.approx([0.8, 0.3])
    assert table["n"].to_list() == table["finished"].to_list() == [2, 2]
    reach = stats.t.ppf(0.975, 1) * 0.1  # the spread of two values 0.2 apart is 0.1 sqrt(2); over sqrt(2) seeds
    assert table["low"].to_list() == pytest.approx([0.8 - reach, 0.3 - reach])
    assert table["high"].to_list() == pytest.approx([0.8 + reach, 0.3 + reach])


def test_a_mean_ends_where_the_first_seed_stops_early_and_says_how_many_were_left() -> None:
    """Seed 1 stops after two evaluations; alone, seed 0 would let the mean jump from 0.3 to 0.1."""
    table = means(curve(0, [0.9, 0.2, 0.1]), curve(1, [0.7, 0.4]))
    assert table["mean"].to_list() == [pytest.approx(0.8), pytest.approx(0.3), None]
    assert table["low"][2] is None
    assert table["n"].to_list() == [2, 2, 1]
    assert table["finished"].to_list() == [2, 2, 2]


@pytest.mark.parametrize("absent", [None, math.nan, math.inf])
def test_a_value_that_was_not_measured_is_a_gap_and_not_a_zero(absent: float | None) -> None:
    table = means(curve(0, [0.9, absent, 0.1]), curve(1, [0.7, 0.5, 0.3]))
    assert table["mean"].to_list() == [pytest.approx(0.8), None, pytest.approx(0.2)]
    assert table["n"].to_list() == [2, 1, 2]
    both = means(curve(0, [0.9, absent, 0.1]), curve(1, [0.7, absent, 0.3]))
    assert both["mean"].to_list() == [pytest.approx(0.8), None, pytest.approx(0.2)]
    assert both["n"].to_list() == [2, 0, 2]


def test_one_seed_has_a_mean_and_no_interval() -> None:
    table = means(curve(0, [0.9, 0.2]))
    assert table["mean"].to_list() == [0.9, 0.2]
    assert table["low"].null_count() == table["high"].null_count() == 2


def test_the_limit_of_the_flow_stays_an_evaluation_at_infinity() -> None:
    table = means(curve(0, [0.9, 0.2], epochs=[1.0, math.inf]), curve(1, [0.7, 0.4], epochs=[1.0, math.inf]))
    assert table["epoch"].to_list() == [1.0, math.inf]
    assert table["mean"].to_list() == pytest.approx([0.8, 0.3])


def test_cells_do_not_mix_and_a_metric_without_values_has_no_rows() -> None:
    table = means(curve(0, [0.9]), curve(0, [0.5], noise_rate=0.0), curve(0, [0.1], width=16))
    assert dict(table.select(pl.concat_str("noise_rate", "width", separator="/"), "mean").iter_rows()) == {
        "0.0/8": 0.5,
        "0.2/8": 0.9,
        "0.2/16": 0.1,
    }
    assert means(curve(0, [0.9]), metric="test_loss").is_empty()


def test_seeds_evaluated_at_different_epochs_have_no_mean_curve() -> None:
    with pytest.raises(ValueError, match=r"width 8, samples 500 have evaluation 1 at epochs 1 to 3"):
        means(curve(0, [0.9, 0.2]), curve(1, [0.7, 0.4], epochs=[0.0, 3.0]))


def test_the_gain_of_stopping_early_is_last_minus_best_of_each_run_and_not_of_the_mean_curve() -> None:
    """The mean curve is 0.6, 0.4, 0.4, 0.5 with minimum 0.4; the runs' own minima are 0.2 and 0.3."""
    runs, cells = stopping_gains(
        pl.concat([curve(0, [0.6, 0.2, 0.5, 0.4]), curve(1, [0.6, 0.6, 0.3, 0.6])]), ["test_error"]
    )
    assert runs["best"].to_list() == [0.2, 0.3]
    assert runs["epoch_best"].to_list() == [1.0, 2.0]
    cell = cells.row(0, named=True)
    assert (cell["mean"], cell["best"], cell["last"], cell["n"]) == (pytest.approx(0.25), 0.25, 0.5, 2)
    reach = stats.t.ppf(0.975, 1) * 0.05
    assert (cell["low"], cell["high"]) == (pytest.approx(0.25 - reach), pytest.approx(0.25 + reach))


def test_the_gain_takes_the_mean_of_the_last_evaluations_and_skips_runs_without_a_finite_end() -> None:
    curves = pl.concat(
        [curve(0, [0.6, 0.2, 0.4, 0.6]), curve(1, [0.6, 0.5, 0.4, math.inf]), curve(2, [0.5, None, 0.3])]
    )
    runs, cells = stopping_gains(curves, ["test_error"], final_evaluations=2)
    assert runs["gain"].to_list()[:2] == [pytest.approx(0.3), None]
    assert cells["n"].to_list() == [2]
    assert cells["mean"].to_list() == [pytest.approx((0.3 + 0.0) / 2)]


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from([0.1, 0.4, 0.8, None, math.nan, math.inf])),
        min_size=1,
        max_size=40,
    )
)
def test_means_over_seeds_agree_with_numpy_whatever_is_missing(rows: list[tuple[int, float | None]]) -> None:
    frame = pl.DataFrame(
        {
            "cell": [cell for cell, _ in rows],
            "seed": list(range(len(rows))),
            "x": pl.Series([value for _, value in rows], dtype=pl.Float64),
        }
    )
    found = {row["cell"]: row for row in seed_means(frame, ["cell"], ["x"]).to_dicts()}
    for cell in {cell for cell, _ in rows}:
        values = [value for at, value in rows if at == cell and value is not None and math.isfinite(value)]
        assert (cell in found) == bool(values)
        if values:
            assert found[cell]["n"] == len(values)
            assert found[cell]["mean"] == pytest.approx(np.mean(values))
            assert (found[cell]["low"] is None) == (len(values) < 2)
            if len(values) > 1:
                assert found[cell]["low"] <= found[cell]["mean"] + 1e-12
                assert found[cell]["high"] >= found[cell]["mean"] - 1e-12
