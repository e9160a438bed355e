"""Kalman filter and Rauch-Tung-Striebel smoother of evenly sampled runs, with constant velocity or acceleration.

The state is position and velocity (and acceleration), driven by white noise on the next derivative. The smoothed curve
depends only on the ratio q of that noise to the measurement noise. q follows from the cut-off frequency: in the middle
of a run, the smoother is the linear filter H(w) = 1 / (1 + S(w) / q) (a smoothing spline: Wahba, JRSS B 1978; S by
Unser, Aldroubi, Eden, IEEE T. Signal Processing 1993).
"""

from __future__ import annotations

from math import factorial

import numpy as np
from jaxtyping import Float

# Variance of the unknown initial state relative to a measurement: uninformative.
_UNKNOWN = 1e8
# Covariances that change by less, relatively, have converged, and the gains of later frames are constant.
_SETTLED = 1e-13
# Sufficient for estimating how long the smoother remembers.
_NEARLY_SETTLED = 1e-6


def kalman(xyz: Float[np.ndarray, "n K 3"], cutoff: float, derivatives: int) -> Float[np.ndarray, "n K 3"]:
    """Smooth with 1 (velocity) or 2 (acceleration) `derivatives`; -3 dB at `cutoff`, a fraction of Nyquist's frequency.

    Rauch, Tung, Striebel, AIAA Journal 1965. Straight motion at constant velocity (acceleration) is unchanged.
    """
    values = xyz.reshape(len(xyz), -1)
    transition, noise = _motion(derivatives, _noise_ratio(cutoff, derivatives))
    predicted, updated, gains = _forward(values, transition, noise)
    state = updated[-1]
    smooth = np.empty_like(values)
    smooth[-1] = state[0]
    for t in range(len(values) - 2, -1, -1):
        state = updated[t] + gains[t] @ (state - predicted[t + 1])
        smooth[t] = state[0]
    return smooth.reshape(xyz.shape)


def kalman_memory(cutoff: float, derivatives: int) -> float:
    """Fraction of its state that `kalman` keeps per frame, from the smoother's converged gain."""
    transition, noise = _motion(derivatives, _noise_ratio(cutoff, derivatives))
    covariance, change = noise, 1.0
    while change > _NEARLY_SETTLED:
        _, following, gain = _step(covariance, transition, noise)
        change = _change(covariance, following)
        covariance = following
    return float(np.abs(np.linalg.eigvals(gain)).max())


def _noise_ratio(cutoff: float, derivatives: int) -> float:
    """q with H = 1/sqrt(2) at the cut-off; the unit of time is one frame."""
    omega = np.pi * cutoff
    sampled = {
        1: (2 + np.cos(omega)) / 3,
        2: (33 + 26 * np.cos(omega) + np.cos(2 * omega)) / 60,
    }[derivatives]
    return (2 * np.sin(omega / 2)) ** (2 * derivatives + 2) / sampled / (np.sqrt(2) - 1)


def _motion(derivatives: int, ratio: float) -> tuple[Float[np.ndarray, "d d"], Float[np.ndarray, "d d"]]:
    """Exact motion over one frame: transition, and covariance of white noise on the derivative after the last."""
    size = derivatives + 1
    transition = np.array([[1 / factorial(j - i) if j >= i else 0.0 for j in range(size)] for i in range(size)])
    noise = np.empty((size, size))
    for i in range(size):
        for j in range(size):
            a, b = derivatives - i, derivatives - j
            noise[i, j] = ratio / (factorial(a) * factorial(b) * (a + b + 1))
    return transition, noise


def _forward(
    values: Float[np.ndarray, "n m"], transition: Float[np.ndarray, "d d"], noise: Float[np.ndarray, "d d"]
) -> tuple[Float[np.ndarray, "n d m"], Float[np.ndarray, "n d m"], list[Float[np.ndarray, "d d"]]]:
    """Predicted and updated states, and the smoother's gain of each frame."""
    size = len(transition)
    predicted = np.zeros((len(values), size, values.shape[1]))
    updated = np.empty_like(predicted)
    predicted[0, 0] = values[0]
    covariance, settled = _UNKNOWN * np.eye(size), False
    gains, update, back = [], np.empty(size), np.empty((size, size))
    for t in range(len(values)):
        if not settled:
            update, following, back = _step(covariance, transition, noise)
            settled = _change(covariance, following) <= _SETTLED
            covariance = following
        gains.append(back)
        updated[t] = predicted[t] + update[:, None] * (values[t] - predicted[t, 0])
        if t + 1 < len(values):
            predicted[t + 1] = transition @ updated[t]
    return predicted, updated, gains


def _step(
    covariance: Float[np.ndarray, "d d"], transition: Float[np.ndarray, "d d"], noise: Float[np.ndarray, "d d"]
) -> tuple[Float[np.ndarray, "d"], Float[np.ndarray, "d d"], Float[np.ndarray, "d d"]]:
    """Gain of the update, covariance of the next frame's prediction, gain of the smoother."""
    update = covariance[:, 0] / (covariance[0, 0] + 1.0)
    kept = np.eye(len(transition))
    kept[:, 0] -= update
    after = kept @ covariance @ kept.T + np.outer(update, update)
    following = transition @ after @ transition.T + noise
    return update, following, np.linalg.solve(following, transition @ after).T


def _change(covariance: Float[np.ndarray, "d d"], following: Float[np.ndarray, "d d"]) -> float:
    return float(np.abs(following - covariance).max() / np.abs(following).max())
