"""The estimated boundary, held against closed forms that are known exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import pytest
from scipy.special import ndtr

from orchestrator.analysis.boundary import curve_rates, drawn_bands, fit_boundary
from orchestrator.analysis.theory_lines import CLOSED_FORMS, theory_lines
from workers.flow import gradient_flow
from workers.mixture import sample_mixture, signs
from workers.randomness import uniform
from workers.theory import boundary_ratio_finite, early_stop_error, max_margin_error, min_norm_error

SIGNAL = 10.0
RATIOS = [1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 16.0, 32.0, 64.0]
RATES = [0.0, 0.1, 0.2, 0.3, 0.4]


def noisy_runs(
    curve: Callable[[float, float], float],
    ratios: Sequence[float],
    rates: Sequence[float],
    *,
    seeds: int,
    spread: float,
) -> pl.DataFrame:
    """Runs whose metric is `curve` plus seed noise that grows with its root, as that of an error does."""
    draw = np.random.default_rng(1)
    return pl.DataFrame(
        [
            (rate, ratio, seed, abs(value + spread * np.sqrt(abs(value)) * draw.normal()))
            for rate in rates
            for ratio in ratios
            for value in [curve(ratio, rate)]
            for seed in range(seeds)
        ],
        schema={"noise_rate": pl.Float64, "ratio": pl.Float64, "seed": pl.Int64, "err_last": pl.Float64},
        orient="row",
    )


@pytest.mark.parametrize("error", [0.05, 0.1, 0.2])
def test_the_boundary_of_the_mixture_is_found_within_ten_per_cent(error: float) -> None:
    runs = noisy_runs(lambda g, rho: float(min_norm_error(g, rho, SIGNAL)), RATIOS, RATES, seeds=10, spread=0.03)
    found = fit_boundary(runs, "err_last", error)
    checked = 0
    for row in found.to_dicts():
        truth = float(boundary_ratio_finite(row["noise_rate"], error, SIGNAL))
        if RATIOS[0] * 1.1 < truth < RATIOS[-1] / 1.1:
            assert row["exit"] == pytest.approx(truth, rel=0.1)
            assert row["enter"] is None  # the smallest measured ratio already lies above the threshold
            checked += 1
    assert checked >= 2


def test_the_boundary_of_real_gradient_flow_is_found_within_ten_per_cent() -> None:
    """n = 200, four seeds, labels flipped exactly at each rate: runs as the worker makes them."""
    samples, rows = 200, []
    for seed in range(4):
        inputs, labels = sample_mixture(samples, 16 * samples, signal=SIGNAL, seed=seed)
        targets = np.repeat(signs(labels)[:, None], len(RATES), axis=1)
        lowest = np.argsort(uniform("noise", seed, np.arange(samples)))
        for k, rate in enumerate(RATES):
            targets[lowest[: round(rate * samples)], k] *= -1
        for ratio in RATIOS[1:8]:
            flow = gradient_flow(inputs[:, : round(ratio * samples)], targets, np.array([np.inf]))
            errors = ndtr(-SIGNAL * flow.signal_weight[0] / np.sqrt(flow.squared_norm[0]))
            rows += [(rate, ratio, seed, float(error)) for rate, error in zip(RATES, errors, strict=True)]
    runs = pl.DataFrame(rows, schema=["noise_rate", "ratio", "seed", "err_last"], orient="row")
    found = {row["noise_rate"]: row for row in fit_boundary(runs, "err_last", 0.1).to_dicts()}
    for rate in (0.1, 0.2, 0.3):
        truth = float(boundary_ratio_finite(rate, 0.1, SIGNAL))
        assert found[rate]["exit"] == pytest.approx(truth, rel=0.1)
        assert found[rate]["exit_low"] <= found[rate]["exit"] <= found[rate]["exit_high"]
    assert found[0.0]["state"] == "below"


def ridge(ratio: float, rate: float) -> float:
    return rate * float(np.exp(-(np.log(ratio / 8.0) ** 2)))


def test_a_ridge_is_entered_and_left() -> None:
    runs = noisy_runs(ridge, np.geomspace(0.5, 128, 11).tolist(), RATES, seeds=5, spread=0.02)
    found = {row["noise_rate"]: row for row in fit_boundary(runs, "err_last", 0.15).to_dicts()}
    for rate in (0.3, 0.4):
        half_width = np.sqrt(np.log(rate / 0.15))
        assert found[rate]["state"] == "crosses"
        assert found[rate]["enter"] == pytest.approx(8 * np.exp(-half_width), rel=0.1)
        assert found[rate]["exit"] == pytest.approx(8 * np.exp(half_width), rel=0.1)
    assert [found[0.1][name] for name in ("state", "enter", "exit")] == ["below", None, None]


def test_nothing_is_said_beyond_the_measured_ratios() -> None:
    left = noisy_runs(ridge, [0.5, 1.0, 2.0, 4.0, 8.0], [0.3, 0.4], seeds=3, spread=0.01)
    row = fit_boundary(left, "err_last", 0.15).row(0, named=True)
    assert row["enter"] is not None
    assert row["exit"] is None
    everywhere = fit_boundary(left, "err_last", 1e-4)
    assert everywhere["state"].to_list() == ["above", "above"]
    assert everywhere["exit_high"].to_list() == [None, None]


def test_a_rate_that_was_measured_over_fewer_ratios_is_judged_on_those_alone() -> None:
    runs = noisy_runs(ridge, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0], [0.2, 0.4], seeds=3, spread=0.01)
    runs = runs.filter((pl.col("noise_rate") == 0.2) | (pl.col("ratio") <= 8))
    row = fit_boundary(runs, "err_last", 0.15).row(1, named=True)
    assert (row["noise_rate"], row["cells"], row["exit"]) == (0.4, 5, None)


def test_the_band_is_deterministic_and_absent_with_one_seed() -> None:
    runs = noisy_runs(ridge, np.geomspace(0.5, 128, 9).tolist(), RATES, seeds=4, spread=0.05)
    assert fit_boundary(runs, "err_last", 0.15).equals(fit_boundary(runs.reverse(), "err_last", 0.15))
    single = fit_boundary(runs.filter(seed=0), "err_last", 0.15).row(-1, named=True)
    assert single["exit"] is not None
    assert (single["exit_low"], single["exit_high"]) == (None, None)


def test_a_negative_cost_is_a_value_like_any_other() -> None:
    runs = noisy_runs(ridge, np.geomspace(0.5, 128, 9).tolist(), RATES, seeds=3, spread=0.0)
    shifted = runs.with_columns(err_last=pl.col("err_last") - 0.1)
    row = fit_boundary(shifted, "err_last", 0.0).row(-1, named=True)
    assert row["exit"] == pytest.approx(8 * np.exp(np.sqrt(np.log(4))), rel=0.1)


def test_what_was_not_measured_is_left_out_and_too_little_is_refused() -> None:
    runs = noisy_runs(ridge, [0.5, 1.0, 2.0, 4.0, 8.0], [0.4], seeds=2, spread=0.01)
    unmeasured = runs.with_columns(ratio=pl.lit(1000.0), err_last=pl.lit(None, dtype=pl.Float64))
    nan = unmeasured.with_columns(err_last=pl.lit(float("nan")))
    assert fit_boundary(pl.concat([runs, unmeasured, nan]), "err_last", 0.15).equals(
        fit_boundary(runs, "err_last", 0.15)
    )
    with pytest.raises(ValueError, match=r"err_last is measured in 3 cells; a boundary needs at least 4"):
        fit_boundary(runs.filter(pl.col("ratio") < 3), "err_last", 0.15)
    with pytest.raises(ValueError, match=r"runs lack the columns gap"):
        fit_boundary(runs, "gap", 0.15)


# ---- as a curve over noise rates ----


def test_the_curve_of_the_mixture_follows_its_closed_form_between_the_measured_rates() -> None:
    runs = noisy_runs(lambda g, rho: float(min_norm_error(g, rho, SIGNAL)), RATIOS, RATES, seeds=10, spread=0.03)
    curve = fit_boundary(runs, "err_last", 0.1, rates=curve_rates(runs, "err_last"))
    assert set(RATES) <= set(curve["noise_rate"])
    between = curve.filter(pl.col("cells") == 0, pl.col("noise_rate").is_between(0.1, 0.3))
    assert between.height > 20
    truth = boundary_ratio_finite(between["noise_rate"].to_numpy(), 0.1, SIGNAL)
    assert np.abs(between["exit"].to_numpy() / truth - 1).max() < 0.15
    assert (between["exit_low"] <= between["exit"]).all()
    assert (between["exit"] <= between["exit_high"]).all()


def test_the_curve_passes_through_the_estimates_at_measured_rates() -> None:
    runs = noisy_runs(ridge, np.geomspace(0.5, 128, 9).tolist(), RATES, seeds=4, spread=0.05)
    rows = fit_boundary(runs, "err_last", 0.15)
    curve = fit_boundary(runs, "err_last", 0.15, rates=curve_rates(runs, "err_last")).filter(pl.col("cells") > 0)
    assert curve["noise_rate"].to_list() == RATES
    for name in ("enter", "exit_low", "exit"):
        found, expected = (table[name].fill_null(-1.0).to_numpy() for table in (curve, rows))
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_curve_stays_among_the_ratios_that_are_measured_around_each_rate() -> None:
    runs = noisy_runs(ridge, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0], [0.2, 0.4], seeds=3, spread=0.01)
    runs = runs.filter((pl.col("noise_rate") == 0.2) | (pl.col("ratio") <= 8))
    curve = fit_boundary(runs, "err_last", 0.15, rates=[0.2, 0.3, 0.4])
    assert curve["measured_high"].to_list() == pytest.approx([64.0, 8.0, 8.0])
    assert curve["exit"].is_null().to_list() == [False, True, True]  # the ridge is left near 16
    with pytest.raises(ValueError, match=r"rates are 0\.1, 0\.3; .* between noise rates 0\.2 and 0\.4"):
        fit_boundary(runs, "err_last", 0.15, rates=[0.3, 0.1])


def test_cells_beside_the_grid_sharpen_a_boundary_and_take_nothing_away() -> None:
    ratios = np.geomspace(0.5, 128, 9).tolist()
    grid = noisy_runs(ridge, ratios, [0.0, 0.2, 0.4], seeds=3, spread=0.01)
    single = noisy_runs(ridge, [11.3], [0.27], seeds=3, spread=0.01)
    row = fit_boundary(pl.concat([grid, single]), "err_last", 0.15).filter(noise_rate=0.27).row(0, named=True)
    assert (row["cells"], row["state"]) == (1, "crosses")
    assert row["exit"] == pytest.approx(8 * np.exp(np.sqrt(np.log(0.27 / 0.15))), rel=0.15)
    assert (row["measured_low"], row["measured_high"]) == pytest.approx((0.5, 128.0))


def test_between_cells_that_share_no_ratio_nothing_is_estimated() -> None:
    low = noisy_runs(ridge, [0.5, 1.0, 2.0], [0.1], seeds=2, spread=0.01)
    high = noisy_runs(ridge, [16.0, 32.0, 64.0], [0.4], seeds=2, spread=0.01)
    row = fit_boundary(pl.concat([low, high]), "err_last", 0.15, rates=[0.25]).row(0, named=True)
    assert row["state"] == "unmeasured"
    assert {row[name] for name in ("measured_low", "enter", "exit", "exit_low")} == {None}


def test_a_band_ends_at_the_measured_ratios_and_covers_a_region_that_may_vanish() -> None:
    columns = ("measured_low", "measured_high", "enter", "enter_low", "enter_high", "exit", "exit_low", "exit_high")
    rows = [
        (1.0, 64.0, 4.0, 3.0, 5.0, 16.0, 14.0, 18.0),
        (1.0, 64.0, 4.0, None, 5.0, 16.0, 14.0, None),  # beyond the measured ratios
        (1.0, 64.0, 4.0, 3.0, None, 16.0, None, 18.0),  # never above, in many resamples
        (1.0, 64.0, None, None, None, 16.0, None, 18.0),
        (1.0, 64.0, 4.0, None, None, 16.0, None, None),  # one seed
    ]
    bands = drawn_bands(pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.Float64), orient="row"))
    assert bands.select("enter_from", "enter_to", "exit_from", "exit_to").rows() == [
        (3.0, 5.0, 14.0, 18.0),
        (1.0, 5.0, 14.0, 64.0),
        (3.0, 16.0, 4.0, 18.0),
        (None, None, 1.0, 18.0),
        (None, None, None, None),
    ]


# ---- closed forms ----


@pytest.mark.parametrize("metric", ["err_last", "noise_cost"])
def test_theory_lines_lie_where_the_closed_forms_meet_the_level(metric: str) -> None:
    lines = theory_lines(metric, 0.1, signal=SIGNAL, ratios=(0.5, 32.0), rates=(0.0, 0.4))
    errors = dict(zip(CLOSED_FORMS, (min_norm_error, max_margin_error, early_stop_error), strict=True))
    assert lines["line"].unique().sort().to_list() == ["max-margin", "min-norm"]
    assert lines.group_by("guide").agg(pl.col("line").unique().first()).sort("guide").rows() == [
        (False, "min-norm"),
        (True, "max-margin"),
    ]
    for row in lines.gather_every(5).to_dicts():
        error = errors[row["line"]]
        values = [
            float(error(row["ratio"] * factor, row["noise_rate"], SIGNAL))
            - (float(error(row["ratio"] * factor, 0.0, SIGNAL)) if metric == "noise_cost" else 0.0)
            for factor in (0.99, 1.01)
        ]
        rises = row["branch"] == "enter"
        assert (values[0] < 0.1 < values[1]) == rises
        assert (values[0] > 0.1 > values[1]) != rises


def test_the_line_of_the_trained_classifier_is_the_known_boundary() -> None:
    lines = theory_lines("err_last", 0.1, signal=SIGNAL, ratios=(1.0, 64.0), rates=(0.0, 0.4))
    exits = lines.filter(line="min-norm", branch="exit")
    truth = boundary_ratio_finite(exits["noise_rate"].to_numpy(), 0.1, SIGNAL)
    np.testing.assert_allclose(exits["ratio"].to_numpy(), truth, rtol=2e-3)
    with pytest.raises(ValueError, match=r"gap_err has no closed form; choose from err_last, noise_cost"):
        theory_lines("gap_err", 0.1, signal=SIGNAL, ratios=(1.0, 64.0), rates=(0.0, 0.4))
