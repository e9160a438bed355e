"""Settings of gap filling and smoothing, one class per filter. Imports little, because every command reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mvpose.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """Gap filling and smoothing over time."""

    hampel_threshold: float = 0.0
    """Remove values more than this many standard deviations from their window's median; 0: remove none."""
    window_frames: int = 7
    """Window length in frames for `hampel_threshold` and the median filter (odd)."""
    gap_frames: int = 20
    """Longest gap in frames to fill; 0: fill none."""
    constant_bones: Literal["none", "limbs", "all"] = "none"
    """Bones to set to their median length in every frame, with the smallest change of the pose."""

    def __post_init__(self) -> None:
        if self.window_frames < 3 or self.window_frames % 2 == 0:
            raise ConfigError(f"window_frames is {self.window_frames}; it must be odd and at least 3.")
        if min(self.gap_frames, self.hampel_threshold) < 0:
            raise ConfigError("gap_frames and hampel_threshold must not be negative.")


@dataclass(frozen=True, kw_only=True)
class _CutoffFilter(FilterConfig):
    cutoff_hz: float = 6.0
    """Cut-off frequency (-3 dB, 1/sqrt(2) of the amplitude) of Butterworth and Kalman, for both passes together."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cutoff_hz <= 0:
            raise ConfigError("cutoff_hz must be above 0.")


@dataclass(frozen=True, kw_only=True)
class ButterworthFilter(_CutoffFilter):
    """Gap filling, and smoothing by a Butterworth filter run forwards and backwards."""

    smoothing: Literal["butterworth"] = "butterworth"
    butterworth_order: int = 4
    """Order of both passes together (even)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.butterworth_order < 2 or self.butterworth_order % 2:
            raise ConfigError(
                f"butterworth_order is {self.butterworth_order}; it must be even, since it counts both passes."
            )


@dataclass(frozen=True, kw_only=True)
class KalmanFilter(_CutoffFilter):
    """Gap filling, and smoothing by a Kalman filter with constant velocity or acceleration."""

    smoothing: Literal["kalman_velocity", "kalman_acceleration"] = "kalman_velocity"


@dataclass(frozen=True, kw_only=True)
class SplineFilter(FilterConfig):
    """Gap filling, and a smoothing spline with stiffness from generalised cross-validation."""

    smoothing: Literal["spline"] = "spline"


@dataclass(frozen=True, kw_only=True)
class MedianFilter(FilterConfig):
    """Gap filling, and a moving median over `window_frames`."""

    smoothing: Literal["median"] = "median"


@dataclass(frozen=True, kw_only=True)
class OneEuroFilter(FilterConfig):
    """Gap filling, and smoothing by the One-Euro filter, which lags."""

    smoothing: Literal["one_euro"] = "one_euro"
    one_euro_cutoff_hz: float = 1.0
    """Cut-off frequency at rest."""
    one_euro_beta: float = 5.0
    """Increase of the cut-off with speed, in Hz per m/s."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.one_euro_cutoff_hz <= 0 or self.one_euro_beta < 0:
            raise ConfigError("one_euro_cutoff_hz must be above 0, and one_euro_beta must not be negative.")


@dataclass(frozen=True, kw_only=True)
class GapFilter(FilterConfig):
    """Gap filling without smoothing."""

    smoothing: Literal["none"] = "none"


Filtering = ButterworthFilter | KalmanFilter | SplineFilter | MedianFilter | OneEuroFilter | GapFilter
