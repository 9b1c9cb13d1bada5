"""Exact gradient flow: the plain iteration's limit, least squares at infinity, and the mixture's closed form."""

import numpy as np
import pytest

from search_spaces.spec import Noise
from workers.flow import gradient_flow
from workers.mixture import sample_mixture, signs
from workers.noise import given_labels
from workers.theory import clean_error, min_norm_error

RHO = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4)


def noisy_targets(labels: np.ndarray, rates: tuple[float, ...], seed: int) -> np.ndarray:
    """[n, K] targets in +-1, a column a noise rate."""
    subset = np.arange(len(labels))
    columns = [
        given_labels(Noise(rate=rate), labels, subset, classes=2, dataset="gaussian-mixture", seed=seed)
        for rate in rates
    ]
    return signs(np.stack(columns, axis=1))


@pytest.mark.parametrize("dimension", [8, 20, 33], ids=["narrow", "square", "wide"])
def test_it_is_the_limit_of_gradient_descent(dimension: int) -> None:
    inputs, labels = sample_mixture(20, dimension, signal=2, seed=0)
    targets = noisy_targets(labels, (0.0, 0.2), seed=0)
    step, steps = 1e-4, 20_000
    weights = np.zeros((dimension, 2))
    for _ in range(steps):
        weights -= step * inputs.T.astype(np.float64) @ (inputs @ weights - targets) / 20
    path = gradient_flow(inputs, targets, np.array([step * steps]))
    np.testing.assert_allclose(path.predictions[0], inputs @ weights, atol=1e-3)
    np.testing.assert_allclose(path.signal_weight[0], weights[0], atol=1e-3)
    np.testing.assert_allclose(path.squared_norm[0], (weights**2).sum(axis=0), rtol=1e-3)


@pytest.mark.parametrize("dimension", [8, 33])
def test_infinity_is_least_squares_of_least_norm(dimension: int) -> None:
    inputs, labels = sample_mixture(20, dimension, signal=2, seed=0)
    targets = noisy_targets(labels, (0.0, 0.2), seed=0)
    weights = np.linalg.lstsq(inputs.astype(np.float64), targets, rcond=None)[0]
    path = gradient_flow(inputs, targets, np.array([0.0, 1e12, np.inf]))
    np.testing.assert_allclose(path.predictions[2], inputs @ weights, atol=1e-9)
    np.testing.assert_allclose(path.signal_weight[2], weights[0], rtol=1e-9)
    np.testing.assert_allclose(path.squared_norm[2], (weights**2).sum(axis=0), rtol=1e-9)
    np.testing.assert_allclose(path.squared_norm[1], path.squared_norm[2], rtol=1e-9)
    assert not path.predictions[0].any()
    assert not path.squared_norm[0].any()


@pytest.mark.parametrize("dimension", [8, 33])
def test_repeated_examples_lower_the_rank_and_do_no_harm(dimension: int) -> None:
    inputs, labels = sample_mixture(10, dimension, signal=2, seed=0)
    inputs, targets = np.repeat(inputs, 2, axis=0), np.repeat(signs(labels)[:, None], 2, axis=0)
    inputs[:, 1] = inputs[:, 2]
    weights = np.linalg.lstsq(inputs.astype(np.float64), targets, rcond=1e-6)[0]
    path = gradient_flow(inputs, targets, np.array([np.inf]))
    np.testing.assert_allclose(path.predictions[0], inputs @ weights, atol=1e-6)
    np.testing.assert_allclose(path.squared_norm[0], (weights**2).sum(axis=0), rtol=1e-6)


def test_inputs_of_zeros_learn_nothing() -> None:
    path = gradient_flow(np.zeros((3, 4)), np.ones((3, 1)), np.array([1.0, np.inf]))
    assert not path.predictions.any()
    np.testing.assert_array_equal(clean_error(path.signal_weight, path.squared_norm, 10), 0.5)


def test_the_mixtures_closed_form_is_met() -> None:
    """Acceptance check 4: n = 400, R = 10, mean of 10 seeds, gamma >= 2."""
    samples, signal, gammas = 400, 10.0, np.array([2, 4, 8])
    errors = np.empty((10, len(gammas), len(RHO)))
    for seed in range(10):
        inputs, labels = sample_mixture(samples, 8 * samples, signal=signal, seed=seed)
        targets = noisy_targets(labels, RHO, seed)
        for i, gamma in enumerate(gammas):
            path = gradient_flow(inputs[:, : gamma * samples], targets, np.array([np.inf]))
            errors[seed, i] = clean_error(path.signal_weight[0], path.squared_norm[0], signal)
    mean_error = errors.mean(axis=0)
    deviation = np.abs(mean_error - min_norm_error(gammas[:, None], np.array(RHO), signal))
    assert deviation.max() < 0.02
    assert deviation.mean() < 0.005
    assert mean_error[:, 0].max() < 1e-3  # no noise


def test_with_noise_stopping_early_beats_interpolating() -> None:
    inputs, labels = sample_mixture(200, 400, signal=10, seed=0)
    targets = noisy_targets(labels, (0.0, 0.2), seed=0)
    path = gradient_flow(inputs, targets, np.append(np.geomspace(1e-3, 1e3, 31), np.inf))
    errors = clean_error(path.signal_weight, path.squared_norm, 10)
    assert np.all(np.sign(path.predictions[-1]) == targets)  # interpolates, wrong labels too
    assert errors[:, 1].min() < 1e-6
    assert errors[-1, 1] > 0.1
    assert errors[-1, 0] < 1e-3


def test_shapes_and_times_are_checked() -> None:
    with pytest.raises(ValueError, match="a row for each row"):
        gradient_flow(np.ones((3, 4)), np.ones((4, 1)), np.array([1.0]))
    for times in (np.array([-1.0]), np.array([np.nan]), np.array(1.0)):
        with pytest.raises(ValueError, match="numbers >= 0"):
            gradient_flow(np.ones((3, 4)), np.ones((3, 1)), times)
