"""Intervals that promise 95 % hold the true mean that often: 500 simulated sweeps of the Gaussian mixture.

Each seed is an exact gradient flow at n = 24, R = 4, as a worker would solve it. The truth is the mean over all 5,000
seeds. A coverage counted in 500 sweeps has a standard error of one per cent.
"""

from __future__ import annotations

import numpy as np
import pytest

from orchestrator.analysis.intervals import mean_interval
from workers.flow import gradient_flow
from workers.mixture import sample_mixture, signs
from workers.randomness import uniform
from workers.theory import clean_error

SWEEPS, MOST_SEEDS = 500, 10
SAMPLES, SIGNAL = 24, 4.0
RATIOS, RATES = (2, 6), (0.1, 0.3)
TIMES = np.append(np.geomspace(0.01, 300, 8), np.inf)
METRICS = ("err_last", "noise_cost", "gap_err")
SKEWED = (6, 0.1)
"""Ratio and rate of the cell whose errors are near 0 (mean .029, skewness 1.3)."""


@pytest.fixture(scope="module")
def measured() -> np.ndarray:
    """Metrics of every seed, [seeds, metrics, ratios, rates]."""
    values = np.empty((SWEEPS * MOST_SEEDS, len(METRICS), len(RATIOS), len(RATES)))
    for seed in range(len(values)):
        inputs, labels = sample_mixture(SAMPLES, max(RATIOS) * SAMPLES, signal=SIGNAL, seed=seed)
        targets = np.repeat(signs(labels)[:, None], 1 + len(RATES), axis=1)
        lowest = np.argsort(uniform("noise", seed, np.arange(SAMPLES)))
        for k, rate in enumerate(RATES, start=1):
            targets[lowest[: round(rate * SAMPLES)], k] *= -1
        for j, ratio in enumerate(RATIOS):
            flow = gradient_flow(inputs[:, : ratio * SAMPLES], targets, TIMES)
            errors = clean_error(flow.signal_weight, flow.squared_norm, SIGNAL)
            last, noisy = errors[-1], errors[:, 1:]
            values[seed, :, j] = last[1:], last[1:] - last[0], noisy[-1] - noisy.min(axis=0)
    return values


def coverage(measured: np.ndarray, seeds: int) -> dict[tuple[str, int, float], float]:
    """Share of sweeps of that many seeds whose interval holds the truth, by metric, ratio and rate."""
    cells = measured.reshape(len(measured), -1)
    truth = cells.mean(axis=0)
    sweeps = cells[: SWEEPS * seeds].reshape(SWEEPS, seeds, -1)
    low, high = mean_interval(sweeps.transpose(1, 0, 2).reshape(seeds, -1))
    holds = (low.reshape(SWEEPS, -1) <= truth) & (truth <= high.reshape(SWEEPS, -1))
    names = [(metric, ratio, rate) for metric in METRICS for ratio in RATIOS for rate in RATES]
    return dict(zip(names, holds.mean(axis=0).tolist(), strict=True))


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_intervals_hold_the_true_mean_in_92_to_98_per_cent_of_sweeps(measured: np.ndarray, seeds: int) -> None:
    found = coverage(measured, seeds)
    usual = {name: share for name, share in found.items() if name[1:] != SKEWED or seeds == MOST_SEEDS}
    assert all(0.92 <= share <= 0.98 for share in usual.values()), usual


@pytest.mark.parametrize("seeds", [3, 5])
def test_few_seeds_of_a_skewed_error_near_zero_hold_it_a_little_less_often(measured: np.ndarray, seeds: int) -> None:
    skewed = {name: share for name, share in coverage(measured, seeds).items() if name[1:] == SKEWED}
    assert all(0.89 <= share <= 0.98 for share in skewed.values()), skewed


def test_at_ten_seeds_percentiles_would_hold_it_too_rarely(measured: np.ndarray) -> None:
    """Why the bootstrap is a studentised one."""
    cells = measured.reshape(SWEEPS, MOST_SEEDS, -1)
    counts = np.random.default_rng(0).multinomial(MOST_SEEDS, np.full(MOST_SEEDS, 0.1), size=400)
    means = np.einsum("bs,wsc->bwc", counts / MOST_SEEDS, cells)
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    truth = cells.mean(axis=(0, 1))
    assert ((low <= truth) & (truth <= high)).mean(axis=0).max() < 0.92
