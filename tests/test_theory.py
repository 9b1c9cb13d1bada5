"""Closed forms of the Gaussian mixture: the published values, their limits, and each other."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import ndtr

from workers.mixture import sample_mixture, signs
from workers.theory import (
    bayes_error,
    boundary_ratio,
    boundary_ratio_finite,
    clean_error,
    early_stop_error,
    max_margin_error,
    min_norm_error,
)

RHO = np.array([0.05, 0.1, 0.2, 0.3, 0.4])


def test_values_derived_for_this_project() -> None:
    errors = min_norm_error([1.5, 2, 4, 8, 16, 64], 0.2, 10)
    np.testing.assert_allclose(errors, [0.301, 0.232, 0.108, 0.036, 0.008, 0.001], atol=6e-4)


def test_interpolation_threshold_is_chance_and_both_sides_meet_there() -> None:
    assert min_norm_error(1.0, 0.2, 10) == 0.5
    np.testing.assert_allclose(min_norm_error([1 - 1e-9, 1 + 1e-9], 0.2, 10), 0.5, atol=1e-3)


def test_formulas_as_written_in_their_source() -> None:
    """Each side of gamma = 1 separately, term by term; the code folds the two into one."""
    R, rho = 3.0, 0.15  # noqa: N806
    theta = 1 - 2 * rho
    for gamma in (0.2, 0.7, 1.4, 5.0):
        if gamma > 1:
            w1 = R * theta / (gamma + R**2)
            v = (1 - 2 * w1 * R * theta + w1**2 * (R**2 + 1)) / (gamma - 1)
        else:
            w1 = R * theta / (1 + R**2)
            v = (1 - R**2 * theta**2 / (1 + R**2)) * gamma / (1 - gamma)
        assert min_norm_error(gamma, rho, R) == pytest.approx(ndtr(-R * w1 / np.sqrt(w1**2 + v)), rel=1e-12)
        expected = ndtr(-R / np.sqrt(1 + gamma / (R**2 * theta**2)))
        assert early_stop_error(gamma, rho, R) == pytest.approx(expected, rel=1e-12)


def test_strong_signal_limit() -> None:
    gamma, rho = 8.0, RHO
    limit = ndtr(-(1 - 2 * rho) * np.sqrt(gamma - 1) / np.sqrt(4 * rho * (1 - rho)))
    np.testing.assert_allclose(min_norm_error(gamma, rho, 1e4), limit, rtol=1e-5)


def test_no_error_is_below_bayes_and_one_step_nears_it_without_noise() -> None:
    gamma = np.geomspace(1.1, 50, 20)
    for error in (min_norm_error, early_stop_error):
        assert np.all(error(gamma, RHO[:, None], 2) >= bayes_error(2))
    assert early_stop_error(1e-9, 0, 2) == pytest.approx(bayes_error(2))


@pytest.mark.parametrize("tau", [0.01, 0.05, 0.2])
def test_boundaries_are_where_the_error_is_tau(tau: float) -> None:
    boundary = boundary_ratio_finite(RHO, tau, 30)
    assert np.all(np.isfinite(boundary))
    np.testing.assert_allclose(min_norm_error(boundary, RHO, 30), tau, rtol=1e-9)
    assert np.all(min_norm_error(boundary * 1.01, RHO, 30) < tau)  # the entry, not the exit
    np.testing.assert_allclose(boundary_ratio_finite(RHO, tau, 1e5), boundary_ratio(RHO, tau), rtol=1e-3)


def test_the_boundary_says_what_the_paper_claims() -> None:
    """Without noise every gamma > 1 is benign; with noise a larger ratio is needed, and always exists."""
    assert boundary_ratio(0, 0.05) == 1
    assert np.all(np.diff(boundary_ratio(RHO, 0.05)) > 0)
    assert np.isinf(boundary_ratio(0.5, 0.05))


def test_no_boundary_where_the_signal_is_too_weak() -> None:
    assert np.isnan(boundary_ratio_finite(0.4, 0.05, 2))
    assert min_norm_error(np.geomspace(1.01, 1e4, 500), 0.4, 2).min() > 0.05
    assert np.isnan(boundary_ratio_finite(0.5, 0.05, 10))


def test_a_classifier_of_zero_weights_decides_nothing() -> None:
    np.testing.assert_array_equal(clean_error([0.0, 1.0], [0.0, 1.0], 10), [0.5, bayes_error(10)])


def test_max_margin_agrees_with_simulation() -> None:
    """Hard-margin SVM without intercept through its dual; n = 300, mean of 6 seeds."""
    samples, gamma, rho = 300, 3.0, 0.2
    errors = []
    for seed in range(6):
        inputs, labels = sample_mixture(samples, int(gamma * samples), signal=5, seed=seed)
        given = signs(labels)
        given[np.random.default_rng(seed).permutation(samples)[: round(rho * samples)]] *= -1
        rows = given[:, None] * inputs.astype(np.float64)
        gram = rows @ rows.T

        def dual(a: np.ndarray, gram: np.ndarray = gram) -> tuple[float, np.ndarray]:
            return float(a @ gram @ a / 2 - a.sum()), gram @ a - 1

        found = minimize(
            dual,
            np.full(samples, 1e-3),
            jac=True,
            bounds=[(0, None)] * samples,
            options={"ftol": 1e-13, "maxiter": 5000},
        )
        weights = rows.T @ found.x
        assert (rows @ weights).min() > 0.99  # every margin is 1 or more
        errors.append(clean_error(weights[0], weights @ weights, 5))
    assert np.mean(errors) == pytest.approx(float(max_margin_error(gamma, rho, 5)), abs=0.01)


def test_max_margin_is_undefined_where_the_classes_cannot_be_separated() -> None:
    assert np.isnan(max_margin_error(0.2, 0.2, 5))
