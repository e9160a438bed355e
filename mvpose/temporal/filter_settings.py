"""Gap filling and smoothing: settings, a class for each kind. Light, because every command line reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mvpose.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """Gap filling and smoothing over time."""

    hampel_threshold: float = 0.0
    """Remove values this many standard deviations from their window's median; 0: remove none."""
    window_frames: int = 7
    """Window in frames of `hampel_threshold` and of the median filter (odd)."""
    gap_frames: int = 20
    """Longest gap in frames to fill; 0: fill none."""
    constant_bones: Literal["none", "limbs", "all"] = "none"
    """Bones set to their median length in every frame, by the smallest change of the pose."""

    def __post_init__(self) -> None:
        if self.window_frames < 3 or self.window_frames % 2 == 0:
            raise ConfigError(f"window_frames is {self.window_frames}: an odd number of at least 3 is needed.")
        if min(self.gap_frames, self.hampel_threshold) < 0:
            raise ConfigError("gap_frames and hampel_threshold are not negative.")


@dataclass(frozen=True, kw_only=True)
class _CutoffFilter(FilterConfig):
    cutoff_hz: float = 6.0
    """Where Butterworth and Kalman let 1/sqrt(2) of the amplitude through (-3 dB), both passes together."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cutoff_hz <= 0:
            raise ConfigError("cut-off frequencies are above 0 Hz.")


@dataclass(frozen=True, kw_only=True)
class ButterworthFilter(_CutoffFilter):
    """Gap filling, and smoothing by a Butterworth filter run forwards and backwards."""

    smoothing: Literal["butterworth"] = "butterworth"
    butterworth_order: int = 4
    """Of both passes together, even."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.butterworth_order < 2 or self.butterworth_order % 2:
            raise ConfigError(f"butterworth_order is {self.butterworth_order}: it is for both passes, so even.")


@dataclass(frozen=True, kw_only=True)
class KalmanFilter(_CutoffFilter):
    """Gap filling, and smoothing by a Kalman filter of constant velocity or acceleration."""

    smoothing: Literal["kalman_velocity", "kalman_acceleration"] = "kalman_velocity"


@dataclass(frozen=True, kw_only=True)
class SplineFilter(FilterConfig):
    """Gap filling, and a smoothing spline whose stiffness is found by generalised cross-validation."""

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
    """Cut-off at rest."""
    one_euro_beta: float = 5.0
    """By how much the cut-off rises with speed, Hz per m/s."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.one_euro_cutoff_hz <= 0 or self.one_euro_beta < 0:
            raise ConfigError("one_euro_cutoff_hz is above 0 Hz, and one_euro_beta is not negative.")


@dataclass(frozen=True, kw_only=True)
class GapFilter(FilterConfig):
    """Gap filling without smoothing."""

    smoothing: Literal["none"] = "none"


Filtering = ButterworthFilter | KalmanFilter | SplineFilter | MedianFilter | OneEuroFilter | GapFilter
