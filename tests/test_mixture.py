"""The Gaussian mixture: right in distribution, and the same numbers at every size."""

import time

import numpy as np
import pytest
from scipy import stats

from workers.mixture import sample_mixture, signs


def test_fewer_samples_and_dimensions_are_a_corner_of_more() -> None:
    large, labels = sample_mixture(50, 300, signal=10, seed=0)
    small, few_labels = sample_mixture(20, 7, signal=10, seed=0)
    np.testing.assert_array_equal(small, large[:20, :7])
    np.testing.assert_array_equal(few_labels, labels[:20])


def test_any_examples_can_be_had_by_index() -> None:
    everything, labels = sample_mixture(50, 12, signal=10, seed=0)
    some = np.array([49, 3, 20])
    inputs, some_labels = sample_mixture(some, 12, signal=10, seed=0)
    np.testing.assert_array_equal(inputs, everything[some])
    np.testing.assert_array_equal(some_labels, labels[some])


def test_types_and_alternating_classes() -> None:
    inputs, labels = sample_mixture(5, 3, signal=10, seed=0)
    assert inputs.dtype == np.float32
    assert labels.dtype == np.int64
    assert labels.tolist() == [1, 0, 1, 0, 1]
    assert signs(labels).tolist() == [1, -1, 1, -1, 1]


def test_noise_is_standard_normal_around_the_means() -> None:
    inputs, labels = sample_mixture(1000, 100, signal=3, seed=1)
    noise = inputs.astype(np.float64)
    noise[:, 0] -= 3 * signs(labels)
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    assert stats.kstest(noise[:, 0], "norm").pvalue > 1e-3
    correlations = np.corrcoef(noise, rowvar=False) - np.eye(100)
    assert np.abs(correlations).max() < 5 / np.sqrt(1000)
    between_examples = np.corrcoef(noise[:200]) - np.eye(200)
    assert np.abs(between_examples).max() < 5.5 / np.sqrt(100)


def test_seeds_differ() -> None:
    first, second = (sample_mixture(100, 100, signal=0, seed=seed)[0].ravel() for seed in (0, 1))
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / 100


def test_golden_values_never_change() -> None:
    inputs, _ = sample_mixture(2, 2, signal=10, seed=0)
    np.testing.assert_allclose(
        inputs, [[10.499493598937988, -0.2739676535129547], [-11.872119903564453, 1.614173173904419]], rtol=1e-6
    )


def test_it_is_fast() -> None:
    start = time.process_time()
    sample_mixture(400, 6400, signal=10, seed=0)
    assert time.process_time() - start < 2  # about 0.1 s of a core, however busy the machine is


def test_dimension_is_checked() -> None:
    with pytest.raises(ValueError, match="between 1 and"):
        sample_mixture(3, 0, signal=10, seed=0)
