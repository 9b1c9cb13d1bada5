"""The Gaussian mixture: x = y mu + z with z ~ N(0, I), y = +-1 and mu = R e_1.

Coordinate j of example i is a function of (seed, i, j) alone, so a model of more parameters sees the same coordinates
and further ones, and a larger training set the same examples and further ones (common random numbers).
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from workers import randomness

LARGEST_DIMENSION = 2**32  # example and coordinate share one 64-bit counter


def sample_mixture(
    samples: int | NDArray[np.int64], dimension: int, *, signal: float, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Inputs, float32[n, dimension], and classes, int64[n] in {0, 1} (class 1 is y = +1), of the run's seed.

    `samples` is n, for examples 0 to n - 1, or the indices of the examples wanted, int64[n]. Classes alternate, class 1
    at even indices. `signal` is R. The noise is the normal quantile of keyed bits: 52 of them, put at the middle of
    their interval, so that it is finite (|z| < 8.3) and symmetric. ValueError if dimension is not in 1..2**32.
    """
    if not 1 <= dimension <= LARGEST_DIMENSION:
        raise ValueError(f"dimension {dimension}: must be between 1 and {LARGEST_DIMENSION}")
    indices = samples if isinstance(samples, np.ndarray) else np.arange(samples)
    labels = 1 - indices % 2
    counters = indices[:, None] * LARGEST_DIMENSION + np.arange(dimension)
    drawn = randomness.bits("mixture", seed, counters) >> np.uint64(12)
    inputs = ndtri((drawn + 0.5) / 2**52).astype(np.float32)
    inputs[:, 0] += (signal * signs(labels)).astype(np.float32)
    return inputs, labels


def signs(labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Classes {0, 1} as y in {-1, +1}: the targets of least squares."""
    return 2 * labels.astype(np.float64) - 1
