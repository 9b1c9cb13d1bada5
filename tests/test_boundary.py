"""The estimated boundary, held against closed forms that are known exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import pytest
from scipy.special import ndtr

from orchestrator.analysis.boundary import fit_boundary
from workers.flow import gradient_flow
from workers.mixture import sample_mixture, signs
from workers.randomness import uniform
from workers.theory import boundary_ratio_finite, min_norm_error

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
