"""Exact gradient flow of least squares from zero: the whole training path of a linear model, without training.

On the loss L(w) = |X w - y|^2 / (2 n), dw/dt = -grad L from w = 0 has the solution
    w(t) = X' (I - exp(-t K / n)) K^-1 y,   K = X X' (n x n),
whose limit is the min-norm interpolator for p > n and least squares for p < n. One eigendecomposition of the smaller
Gram matrix gives every time and every label vector at once, so noise rates that share inputs share its cost.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FlowPath:
    """What the metrics need of w(t), for T times and K label vectors; all float64."""

    predictions: Floats
    """[T, n, K]: X w(t), the outputs on the training inputs."""
    signal_weight: Floats
    """[T, K]: w1(t), the first coordinate, along the mean vector."""
    squared_norm: Floats
    """[T, K]: |w(t)|^2."""


def gradient_flow(inputs: NDArray[np.floating], targets: Floats, times: Floats) -> FlowPath:
    """Solve the flow at `times`.

    Args:
        inputs: float32 or float64[n, p], the training inputs X; computed in float64.
        targets: float64[n, K], label vectors y, each in +-1.
        times: float64[T], >= 0, may hold inf; k steps of gradient descent at learning rate e take the time k e.

    Raises:
        ValueError: if shapes do not fit or a time is negative or nan.
    """
    samples, dimension = inputs.shape
    times = np.asarray(times, dtype=np.float64)
    if targets.ndim != 2 or len(targets) != samples:
        raise ValueError(f"targets of shape {targets.shape}: must be [{samples}, K], a row for each row of the inputs")
    if times.ndim != 1 or not np.all(times >= 0):
        raise ValueError("times must be a vector of numbers >= 0")
    x = inputs.astype(np.float64)  # in float32 the smallest eigenvalues, which set the final norm, would be lost
    wide = dimension >= samples
    gram = x @ x.T if wide else x.T @ x
    eigenvalues, basis = np.linalg.eigh(gram)

    # x = sum over j of sqrt(eigenvalue_j) left_j right_j'; directions below rounding do not belong to x.
    kept = eigenvalues > eigenvalues[-1] * max(samples, dimension) * np.finfo(np.float64).eps
    eigenvalues, basis = eigenvalues[kept], basis[:, kept]
    singular = np.sqrt(eigenvalues)
    left = basis if wide else x @ basis / singular
    first_of_right = x[:, 0] @ basis / singular if wide else basis[0]

    coefficients = left.T @ targets  # [r, K]: the targets along each direction
    fitted = -np.expm1(-np.outer(times, eigenvalues) / samples)  # [T, r]: the share of each direction learnt by then
    learnt = fitted[:, :, None] * coefficients  # [T, r, K]
    along_right = learnt / singular[:, None]  # w(t) in the right singular vectors
    return FlowPath(
        predictions=left @ learnt,
        signal_weight=first_of_right @ along_right,
        squared_norm=(along_right**2).sum(axis=1),
    )
