"""Gap filling and smoothing: settings. Light, because every command line reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mvpose.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """Gap filling and smoothing over time."""

    hampel_threshold: float = 0.0
    """Values this many standard deviations off the median of their window are taken for missing; 0: none are."""
    window_frames: int = 7
    """Window of `hampel_threshold` and of the median, odd."""
    gap_frames: int = 20
    """Longest gap that is filled; 0 fills none."""
    smoothing: Literal[
        "none", "butterworth", "kalman_velocity", "kalman_acceleration", "spline", "median", "one_euro"
    ] = "butterworth"
    cutoff_hz: float = 6.0
    """Where Butterworth and Kalman let 1/sqrt(2) of the amplitude through (-3 dB), both passes together."""
    butterworth_order: int = 4
    """Of both passes together, even."""
    one_euro_cutoff_hz: float = 1.0
    """Cut-off of One-Euro at rest; this filter lags."""
    one_euro_beta: float = 5.0
    """By how much its cut-off rises with speed, Hz per m/s."""
    constant_bones: Literal["none", "limbs", "all"] = "none"
    """Bones that are given their median length in every frame, by the smallest change of the pose."""

    def __post_init__(self) -> None:
        if self.window_frames < 3 or self.window_frames % 2 == 0:
            raise ConfigError(f"window_frames is {self.window_frames}: an odd number of at least 3 is needed.")
        if self.butterworth_order < 2 or self.butterworth_order % 2:
            raise ConfigError(f"butterworth_order is {self.butterworth_order}: it is for both passes, so even.")
        if min(self.cutoff_hz, self.one_euro_cutoff_hz) <= 0:
            raise ConfigError("cut-off frequencies are above 0 Hz.")
        if min(self.gap_frames, self.hampel_threshold, self.one_euro_beta) < 0:
            raise ConfigError("gap_frames, hampel_threshold and one_euro_beta are not negative.")
