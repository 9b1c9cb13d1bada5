"""What is known in closed form about linear classifiers on the Gaussian mixture.

x = y mu + z with z ~ N(0, I_p), y = +-1, R = |mu|; training labels are flipped at rate rho; p, n -> infinity at
gamma = p / n; theta = 1 - 2 rho. A classifier w with component w1 along mu has the clean test error Q(R w1 / |w|), with
Q the Gaussian tail. All functions broadcast over their arguments, which are floats or float64 arrays.

Least squares (min-norm for gamma > 1) is a ridgeless regression of the labels, whose limits are those of Hastie,
Montanari, Rosset & Tibshirani (Annals of Statistics 2022) for this design; max-margin is by the convex Gaussian
min-max theorem, as in Deng, Kammoun & Thrampoulidis (Information and Inference 2022).
Simulation agrees with both: tests/test_flow.py and tests/test_theory.py.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, minimize_scalar
from scipy.special import ndtr, ndtri

Floats = NDArray[np.float64]


def gaussian_tail(z: ArrayLike) -> Floats:
    """Q(z) = P(N(0, 1) > z)."""
    tail: Floats = ndtr(-np.asarray(z, dtype=np.float64))
    return tail


def bayes_error(signal: ArrayLike) -> Floats:
    """Q(R), the error of the best classifier, mu itself."""
    return gaussian_tail(signal)


def clean_error(signal_weight: ArrayLike, squared_norm: ArrayLike, signal: ArrayLike) -> Floats:
    """Exact clean test error Q(R w1 / |w|) of a linear classifier with w1 along mu and squared norm |w|^2.

    1/2 where w = 0, which decides nothing.
    """
    inner = np.multiply(signal, signal_weight)
    norm = np.broadcast_to(np.sqrt(squared_norm), np.broadcast_shapes(np.shape(inner), np.shape(squared_norm)))
    margin = np.divide(inner, norm, out=np.zeros(norm.shape), where=norm > 0)
    return gaussian_tail(margin)


def min_norm_error(gamma: ArrayLike, rho: ArrayLike, signal: ArrayLike) -> Floats:
    """Test error of least squares at gamma < 1 and of the min-norm interpolator at gamma > 1; 1/2 at gamma = 1.

    The weights are w1 along mu and an isotropic rest of squared norm v:
    gamma > 1: w1 = R theta / (gamma + R^2), v = [1 - 2 w1 R theta + w1^2 (R^2 + 1)] / (gamma - 1);
    gamma < 1: w1 = R theta / (1 + R^2),     v = [1 - R^2 theta^2 / (1 + R^2)] gamma / (1 - gamma).
    """
    gamma, signal = np.asarray(gamma, dtype=np.float64), np.asarray(signal, dtype=np.float64)
    theta = 1 - 2 * np.asarray(rho, dtype=np.float64)
    w1 = signal * theta / (np.maximum(gamma, 1) + signal**2)
    # At gamma <= 1 the numerator below is that of the second formula, since w1 (signal^2 + 1) = signal theta.
    residual = 1 - 2 * w1 * signal * theta + w1**2 * (signal**2 + 1)
    with np.errstate(divide="ignore"):  # gamma = 1: v is infinite
        v = residual * np.minimum(gamma, 1) / np.abs(gamma - 1)
    return clean_error(w1, w1**2 + v, signal)


def early_stop_error(gamma: ArrayLike, rho: ArrayLike, signal: ArrayLike) -> Floats:
    """Test error Q(R / sqrt(1 + gamma / (R theta)^2)) of one gradient step from zero, the proxy for early stopping."""
    gamma, signal = np.asarray(gamma, dtype=np.float64), np.asarray(signal, dtype=np.float64)
    w1 = signal * (1 - 2 * np.asarray(rho, dtype=np.float64))
    return clean_error(w1, w1**2 + gamma, signal)


def boundary_ratio(rho: ArrayLike, tau: ArrayLike) -> Floats:
    """gamma*, the p/n above which the min-norm interpolator errs less than tau, in the limit R^2 >> gamma.

    gamma* = 1 + z^2 4 rho (1 - rho) / (1 - 2 rho)^2 with Q(z) = tau. For tau < 1/2; infinite at rho = 1/2.
    """
    rho, z = np.asarray(rho, dtype=np.float64), -ndtri(np.asarray(tau, dtype=np.float64))
    with np.errstate(divide="ignore"):
        ratio: Floats = 1 + z**2 * 4 * rho * (1 - rho) / (1 - 2 * rho) ** 2
    return ratio


def boundary_ratio_finite(rho: ArrayLike, tau: ArrayLike, signal: ArrayLike) -> Floats:
    """gamma* at finite R: the smallest gamma > 1 where `min_norm_error` is tau; nan where it stays above.

    The error is Q(R / sqrt(1 + v / w1^2)) and v / w1^2 is a quadratic in gamma over gamma - 1, so that error = tau is
        a gamma^2 - b gamma + c = 0,  a = 1 / (R theta)^2,  h = (R / z)^2 - 1,
        b = h + 2 - 2 a R^2,  c = h + 1 - R^2 + a R^4.
    At gamma = 1 the quadratic is positive, so both roots lie above 1 if its vertex does. The larger root is where the
    error, which returns to 1/2 as gamma grows at fixed R, passes tau again.
    """
    rho, signal = np.asarray(rho, dtype=np.float64), np.asarray(signal, dtype=np.float64)
    z = -ndtri(np.asarray(tau, dtype=np.float64))
    with np.errstate(divide="ignore", invalid="ignore"):
        a = 1 / (signal * (1 - 2 * rho)) ** 2
        h = (signal / z) ** 2 - 1
        b, c = h + 2 - 2 * a * signal**2, h + 1 - signal**2 + a * signal**4
        root = 2 * c / (b + np.sqrt(b**2 - 4 * a * c))  # the smaller root, in the form that does not cancel
        return np.where((b > 2 * a) & (z > 0), root, np.nan)


def max_margin_error(gamma: ArrayLike, rho: ArrayLike, signal: ArrayLike) -> Floats:
    """Test error Q(R nu*) of the max-margin classifier; nan where the training set is not separable.

    nu is the cosine between w and mu. With G ~ N(0, 1) and s = +1 with probability 1 - rho, else -1, the largest margin
    kappa solves min over nu of sqrt(E[(kappa + G - s nu R)_+^2]) - sqrt(gamma (1 - nu^2)) = 0, and nu* attains it.
    """
    errors: Floats = np.vectorize(_max_margin_error, otypes=[np.float64])(gamma, rho, signal)
    return errors


def _max_margin_error(gamma: float, rho: float, signal: float) -> float:
    def objective(nu: float, kappa: float) -> float:  # convex in nu
        hinge = (1 - rho) * _squared_hinge(kappa - nu * signal) + rho * _squared_hinge(kappa + nu * signal)
        return float(np.sqrt(hinge) - np.sqrt(gamma * (1 - nu**2)))

    def best(kappa: float) -> tuple[float, float]:
        found = minimize_scalar(objective, args=(kappa,), bounds=(-1, 1), method="bounded", options={"xatol": 1e-10})
        return float(found.x), float(found.fun)

    if best(0.0)[1] >= 0:
        return float("nan")
    highest = 1.0
    while best(highest)[1] < 0:
        highest *= 2
    kappa = brentq(lambda value: best(value)[1], 0.0, highest, xtol=1e-12)
    return float(gaussian_tail(signal * best(kappa)[0]))


def _squared_hinge(shift: float) -> float:
    """E[(shift + G)_+^2] for G ~ N(0, 1)."""
    density = np.exp(-(shift**2) / 2) / np.sqrt(2 * np.pi)
    return float((1 + shift**2) * ndtr(shift) + shift * density)
