"""Confidence intervals of means over seeds, held against plain formulas and loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import stats

from orchestrator.analysis.cells import cell_table
from orchestrator.analysis.definitions import METRICS
from orchestrator.analysis.intervals import FEWEST_TO_RESAMPLE, MOST_TO_RESAMPLE, RESAMPLES, mean_interval
from orchestrator.analysis.scores import run_table
from tests.synthetic import cell_rows, evaluation_table, planned_table, run_rows


def draws_of(n: int) -> np.ndarray:
    return np.random.default_rng([0, n]).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)


def student(values: np.ndarray, interval: float = 0.95) -> tuple[float, float]:
    low, high = stats.t.interval(interval, len(values) - 1, values.mean(), stats.sem(values))
    return float(low), float(high)


@pytest.mark.parametrize("n", [2, 3, FEWEST_TO_RESAMPLE - 1, MOST_TO_RESAMPLE + 1])
def test_few_seeds_and_many_get_students_t(n: int) -> None:
    values = np.random.default_rng(n).exponential(size=(n, 3))
    low, high = mean_interval(values, interval=0.9)
    for column in range(3):
        assert (low[column], high[column]) == pytest.approx(student(values[:, column], 0.9))


def test_the_bootstrap_is_what_a_plain_loop_over_resamples_gives() -> None:
    n = 12
    values = np.sort(np.random.default_rng(3).exponential(size=n))
    ratios = []
    for counts in draws_of(n):
        resample = np.repeat(values, counts)
        ratios.append((resample.mean() - values.mean()) / stats.sem(resample))
    first, last = np.sort(ratios)[[24, 974]]  # the 25th and 975th of 999
    low, high = mean_interval(values[:, None])
    assert low[0] == pytest.approx(values.mean() - last * stats.sem(values), rel=1e-4)
    assert high[0] == pytest.approx(values.mean() - first * stats.sem(values), rel=1e-4)
    assert high[0] - values.mean() > 1.1 * (values.mean() - low[0])  # it knows the skewness; Student's t does not


def test_the_same_values_give_the_same_interval_in_any_order_and_company() -> None:
    values = np.random.default_rng(0).normal(size=(15, 40))
    low, high = mean_interval(values)
    mixed_low, mixed_high = mean_interval(np.vstack([np.full((2, 40), np.nan), values[::-1]])[:, ::-1])
    np.testing.assert_allclose(mixed_low[::-1], low, rtol=1e-6)
    np.testing.assert_allclose(mixed_high[::-1], high, rtol=1e-6)
    np.testing.assert_allclose(mean_interval(values[:, :1])[0], low[:1], rtol=1e-6)


def test_below_two_measured_seeds_there_is_no_interval_and_what_is_not_finite_is_not_measured() -> None:
    nan, inf = np.nan, np.inf
    values = np.array([[nan, 0.5, 0.1, 0.1], [nan, nan, 0.3, inf], [nan, inf, nan, 0.3]])
    low, high = mean_interval(values)
    assert np.isnan(low).tolist() == np.isnan(high).tolist() == [True, True, False, False]
    assert (low[2], high[2]) == (low[3], high[3]) == pytest.approx(student(np.array([0.1, 0.3])))
    assert [bound.shape for bound in mean_interval(np.empty((0, 2)))] == [(2,), (2,)]


@pytest.mark.parametrize("n", [3, 10, 200])
def test_equal_values_have_an_interval_of_no_width(n: int) -> None:
    low, high = mean_interval(np.full((n, 1), 0.25))
    assert (low[0], high[0]) == (0.25, 0.25)


def test_where_resamples_are_mostly_equal_the_interval_stays_finite() -> None:
    """Nine of ten runs interpolate; or one outlier among runs that all but agree."""
    share = np.array([1.0] * 9 + [0.0])
    outlier = np.append(0.001 + 1e-6 * np.arange(9), 0.5)
    low, high = mean_interval(np.stack([share, outlier], axis=1))
    assert (low[0], high[0]) == pytest.approx(student(share))
    assert (low[1], high[1]) == pytest.approx(student(outlier))


def test_an_interval_is_not_clipped_at_zero() -> None:
    assert mean_interval(np.array([[0.0], [0.0], [0.01]]))[0][0] < 0


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match=r"interval is 95; it must lie in \(0, 1\): 0\.95 is the default"):
        mean_interval(np.ones((3, 1)), interval=95)
    with pytest.raises(ValueError, match=r"shape \(3,\); a matrix \[seeds, cells\]"):
        mean_interval(np.ones(3))


# ---- in the cell table ----


def test_every_metric_of_a_cell_has_its_interval_over_its_own_seeds() -> None:
    runs = [run_rows(f"clean{seed}", [0.05 + 0.01 * seed], seed=seed) for seed in range(3)]
    runs += [run_rows(f"noisy{seed}", [0.2, 0.3 + 0.02 * seed**2], seed=seed, noise_rate=0.2) for seed in range(4)]
    cells = cell_table(run_table(evaluation_table(*runs)), planned_table(*runs), interval=0.8)
    clean, noisy = cells.to_dicts()
    errors = np.array([0.3, 0.32, 0.38, 0.48])
    assert (noisy["err_last_low"], noisy["err_last_high"]) == pytest.approx(student(errors, 0.8))
    paired = errors[:3] - np.array([0.05, 0.06, 0.07])  # the fourth has no clean twin
    assert (noisy["noise_cost_low"], noisy["noise_cost_high"]) == pytest.approx(student(paired, 0.8))
    assert (noisy["gap_err_low"], noisy["gap_err_high"]) == pytest.approx(student(errors - 0.2, 0.8))
    assert (clean["noise_cost_low"], clean["noise_cost_high"]) == (0.0, 0.0)
    assert noisy["interval"] == 0.8
    assert noisy["memorised_low"] is None


def test_an_interval_is_there_exactly_where_a_standard_error_is() -> None:
    def fate(ratio: float, rate: float, seed: int) -> str:
        return "done" if seed < {1.0: 0, 3.0: 1, 10.0: 2, 30.0: 12}[ratio] else "missing"

    evaluations, planned = cell_rows([1.0, 3.0, 10.0, 30.0], [0.0, 0.2], seeds=12, status=fate)
    cells = cell_table(run_table(evaluations), planned, bootstrap=20)
    for name in METRICS:
        for row in cells.to_dicts():
            bounds: Any = row[f"{name}_low"], row[f"{name}_high"]
            if row[f"{name}_se"] is None:
                assert bounds == (None, None)
            else:
                assert bounds[0] <= row[f"{name}_mean"] + 1e-12
                assert bounds[1] >= row[f"{name}_mean"] - 1e-12
