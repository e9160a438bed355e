"""Smoothing of unbroken runs: arrays (n frames, K joints, 3) without NaN, evenly sampled, smoothed over time.

All but One-Euro have no lag: smoothing a reversed run gives the reversed curve. All are invariant to translation of the
world, all but the median to rotation, all but One-Euro to scaling.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.lib.stride_tricks import sliding_window_view

Track = Float[np.ndarray, "n K 3"]

# The Butterworth filter's memory of the start of its padding falls below this before the run starts.
_FORGOTTEN = 1e-9
# Smoothing parameters tried: from a curve through every value to a straight line at any usual length.
_LOG_LAMBDAS = np.linspace(-3.0, 12.0, 31)
# The median distance from the mean of a 3D Gaussian, in standard deviations of one coordinate.
_MEDIAN_OF_CHI3 = 1.538


def butterworth(xyz: Track, cutoff: float, order: int) -> Track:
    """Zero-lag low-pass of an even `order`; `cutoff` is a fraction of Nyquist's frequency, -3 dB *after* both passes.

    A filter of order m = order / 2 runs forwards and backwards. Each pass damps by 2^-1/4 at the cut-off if its own
    cut-off is higher by (sqrt(2) - 1)^(-1/(2 m)), on the axis tan(pi f / fps) where the digital filter is exact
    (Winter, Biomechanics and Motor Control of Human Movement, 2.2.4.4: 1 / 0.802 for two passes of m = 2).
    The ends are extended by point reflection until the filter has forgotten its start, so lines stay lines.
    """
    sections = _sections(cutoff, order)
    padding = frames_to_forget(_slowest_pole(sections), _FORGOTTEN)
    from scipy.signal import sosfiltfilt

    smooth = sosfiltfilt(sections, _continued(xyz, padding), axis=0, padlen=0)
    return smooth[padding : padding + len(xyz)]


def butterworth_memory(cutoff: float, order: int) -> float:
    """Fraction of its state that `butterworth` keeps per frame."""
    return _slowest_pole(_sections(cutoff, order))


def frames_to_forget(memory: float, share: float) -> int:
    """Number of frames after which a filter that keeps the fraction `memory` per frame retains only `share`."""
    return int(np.ceil(np.log(share) / np.log(memory)))


def _sections(cutoff: float, order: int) -> Float[np.ndarray, "n 6"]:
    """One pass, as second-order sections."""
    passes_order = order // 2
    raised = np.tan(np.pi * cutoff / 2) * (np.sqrt(2) - 1) ** (-1 / (2 * passes_order))
    from scipy.signal import butter

    return np.asarray(butter(passes_order, 2 / np.pi * np.arctan(raised), output="sos"))


def _slowest_pole(sections: Float[np.ndarray, "n 6"]) -> float:
    return float(np.abs(np.concatenate([np.roots(section[3:]) for section in sections])).max())


def median(xyz: Track, half_width: int) -> Track:
    """Median of each coordinate over 2 `half_width` + 1 frames; the ends are extended by point reflection."""
    from scipy.ndimage import median_filter

    wide = _continued(xyz, half_width)
    size = (2 * half_width + 1, 1, 1)
    return median_filter(wide, size=size, mode="nearest")[half_width : half_width + len(xyz)]


def hampel_outliers(xyz: Track, half_width: int, threshold: float) -> Bool[np.ndarray, "n K"]:
    """Values farther than `threshold` standard deviations from the median of their window (Hampel, JASA 1974).

    The distance is spatial. The deviation is estimated from the window's median distance as for a 3D Gaussian; if the
    joint moves, its motion within the window counts as spread.
    """
    windows = sliding_window_view(_continued(xyz, half_width), 2 * half_width + 1, axis=0)
    middle = np.median(windows, axis=-1)
    spread = np.median(np.linalg.norm(windows - middle[..., None], axis=2), axis=-1)
    return np.linalg.norm(xyz - middle, axis=-1) > threshold * spread / _MEDIAN_OF_CHI3


def one_euro(xyz: Track, fps: float, min_cutoff_hz: float, beta: float, speed_cutoff_hz: float) -> Track:
    """The One-Euro filter (Casiez, Roussel, Vogel, CHI 2012): causal, so it lags, and less the faster the joint moves.

    The cut-off is `min_cutoff_hz` + `beta` |velocity| (Hz per m/s). The velocity itself is low-passed at
    `speed_cutoff_hz`, and its spatial norm is used, so the result does not depend on the world's rotation.
    """
    smooth = xyz.copy()
    velocity = np.zeros_like(xyz[0])
    for t in range(1, len(xyz)):
        velocity += _one_euro_gain(speed_cutoff_hz, fps) * ((xyz[t] - smooth[t - 1]) * fps - velocity)
        cutoff = min_cutoff_hz + beta * np.linalg.norm(velocity, axis=-1, keepdims=True)
        smooth[t] = smooth[t - 1] + _one_euro_gain(cutoff, fps) * (xyz[t] - smooth[t - 1])
    return smooth


def one_euro_memory(fps: float, min_cutoff_hz: float, speed_cutoff_hz: float) -> float:
    """Fraction of its state that `one_euro` keeps per frame; it is largest for a joint at rest.

    Position and velocity are coupled; the determinant of a frame's step is the product of the two fractions.
    """
    return float(1.0 - min(_one_euro_gain(min_cutoff_hz, fps), _one_euro_gain(speed_cutoff_hz, fps)))


def _one_euro_gain(cutoff_hz: np.ndarray | float, fps: float) -> np.ndarray | float:
    return 1.0 / (1.0 + fps / (2 * np.pi * cutoff_hz))


def gcv_spline(xyz: Track) -> Track:
    """Cubic smoothing spline with smoothness from generalised cross-validation (Craven and Wahba 1979).

    Each joint has its own; its three coordinates share it, so the result does not depend on the world's rotation.
    scipy's `make_smoothing_spline` gives the same curve, but its search takes 0.4 ms per value (measured): an hour for
    26 joints over half an hour of 60 Hz footage. Here a value takes 4 us.
    """
    from scipy.optimize import minimize_scalar

    curves = []
    for k in range(xyz.shape[1]):
        values = xyz[:, k]
        score = _generalised_cross_validation(values)
        coarse = _LOG_LAMBDAS[int(np.argmin([score(log_lambda) for log_lambda in _LOG_LAMBDAS]))]
        step = _LOG_LAMBDAS[1] - _LOG_LAMBDAS[0]
        found: Any = minimize_scalar(score, bounds=(coarse - step, coarse + step), method="bounded")
        curves.append(values - _spline_residual(values, 10**found.x))
    return np.stack(curves, axis=1)


def _generalised_cross_validation(values: Float[np.ndarray, "n 3"]) -> Callable[[float], float]:
    """log10(lambda) to RSS / trace(1 - H)^2.

    The trace is over the spline's frequency response H = 1 / (1 + lambda S) at the frequencies of a free beam of n
    frames, S = (2 sin(w/2))^4 / ((2 + cos w) / 3) (Unser, Aldroubi, Eden, IEEE T. Signal Processing 1993).
    """
    omega = np.pi * (np.arange(2, len(values)) - 0.5) / len(values)
    stiffness = (2 * np.sin(omega / 2)) ** 4 / ((2 + np.cos(omega)) / 3)

    def score(log_lambda: float) -> float:
        removed = 1 - 1 / (1 + 10**log_lambda * stiffness)
        return float((_spline_residual(values, 10**log_lambda) ** 2).sum() / removed.sum() ** 2)

    return score


def _spline_residual(values: Float[np.ndarray, "n 3"], smoothness: float) -> Float[np.ndarray, "n 3"]:
    """Values minus their smoothing spline: Reinsch's equations (Numerische Mathematik 1967) on frames one apart."""
    from scipy.linalg import solveh_banded

    inner = len(values) - 2
    diagonals = [2 / 3 + 6 * smoothness, 1 / 6 - 4 * smoothness, smoothness]
    bands = np.repeat(np.array(diagonals)[:, None], inner, axis=1)
    curvature = solveh_banded(bands, np.diff(values, n=2, axis=0), lower=True)
    padded = np.pad(curvature, ((2, 2), (0, 0)))
    return smoothness * np.diff(padded, n=2, axis=0)


def _continued(xyz: Track, padding: int) -> Float[np.ndarray, "m K 3"]:
    """The run with `padding` more frames at each end, reflected through its first and last value."""
    return np.pad(xyz, ((padding, padding), (0, 0), (0, 0)), mode="reflect", reflect_type="odd")
