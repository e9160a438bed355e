"""Temporal work on the poses of a whole capture: outliers, gaps, smoothing, bones of constant length.

One door, `filtered`. Raw and filtered poses are both kept, every value that was not measured is flagged, smoothing runs
within unbroken runs only, and what is missing stays NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from mvpose.errors import ConfigError
from mvpose.reconstruction.bone_lengths import limb_bones, measured_lengths, with_constant_bones
from mvpose.reconstruction.gaps import Run, gaps_filled, present, unbroken_runs
from mvpose.reconstruction.kalman import kalman
from mvpose.reconstruction.smoothing import butterworth, gcv_spline, hampel_outliers, median, one_euro
from mvpose.records import Poses3D

Smoother = Callable[[Float[np.ndarray, "n K 3"]], Float[np.ndarray, "n K 3"]]


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


@dataclass(frozen=True, eq=False)
class FilteredPoses:
    """Poses before and after, and what was done to each value."""

    poses: Poses3D
    filled: Bool[np.ndarray, "T P J"]
    """Interpolated: no camera saw it (num_views 0, error NaN); its confidence is the lower of those beside its gap."""
    smoothed: Bool[np.ndarray, "T P J"]
    """False where a run was too short for the filter and is passed on as it was."""
    removed: Bool[np.ndarray, "T P J"]
    """Measured, and taken for an outlier; missing in `poses` unless it was filled."""
    raw: Poses3D


def filtered(poses: Poses3D, fps: float, config: FilterConfig) -> FilteredPoses:
    """Outliers removed, gaps filled, runs smoothed, bones made constant, in this order; `poses` is a whole capture's.

    ConfigError if the cut-off is not below half the frame rate. Bones have their median length over the raw values.
    """
    smoother, shortest = _smoother(config, fps)
    shape = poses.confidence.shape
    raw = poses.xyz.astype(np.float64).reshape(shape[0], -1, 3)
    removed = _outliers(raw, config)
    known = np.where(removed[..., None], np.nan, raw)
    xyz, filled = gaps_filled(known, config.gap_frames)
    xyz, smoothed = _smoothed(xyz, smoother, shortest)
    confidence = np.where(removed, 0.0, poses.confidence.reshape(raw.shape[:2]))
    confidence = _beside_gaps(confidence, filled)
    filled, smoothed, removed, confidence = (a.reshape(shape) for a in (filled, smoothed, removed, confidence))
    xyz = _with_constant_bones(xyz.reshape(*shape, 3), confidence, poses, config)
    measured = ~filled & ~removed
    after = replace(
        poses,
        xyz=xyz.astype(poses.xyz.dtype),
        confidence=confidence.astype(poses.confidence.dtype),
        error_px=np.where(measured, poses.error_px, np.nan).astype(poses.error_px.dtype),
        num_views=np.where(measured, poses.num_views, 0).astype(poses.num_views.dtype),
        views_used=poses.views_used & measured[..., None],
    )
    return FilteredPoses(after, filled, smoothed, removed, poses)


def _smoother(config: FilterConfig, fps: float) -> tuple[Smoother | None, int]:
    """The filter, and the fewest frames that it is run on: below, there is nothing that it could tell apart.

    Butterworth and Kalman need one period of their cut-off, a spline 5 values, a median half of its window.
    """
    nyquist_share = 2 * config.cutoff_hz / fps
    if config.smoothing in ("butterworth", "kalman_velocity", "kalman_acceleration"):
        if nyquist_share >= 1:
            raise ConfigError(
                f"cutoff_hz is {config.cutoff_hz:g}, and footage of {fps:g} frames/s has nothing above {fps / 2:g} Hz: "
                "lower it, or set smoothing to none."
            )
        period = max(4, round(fps / config.cutoff_hz))
        if config.smoothing == "butterworth":
            return (lambda xyz: butterworth(xyz, nyquist_share, config.butterworth_order)), period
        derivatives = 1 if config.smoothing == "kalman_velocity" else 2
        return (lambda xyz: kalman(xyz, nyquist_share, derivatives)), period
    half = config.window_frames // 2
    return {
        "none": (None, 0),
        "spline": (gcv_spline, 5),
        "median": (lambda xyz: median(xyz, half), half + 1),
        "one_euro": (lambda xyz: one_euro(xyz, fps, config.one_euro_cutoff_hz, config.one_euro_beta, 1.0), 2),
    }[config.smoothing]


def _outliers(xyz: Float[np.ndarray, "T K 3"], config: FilterConfig) -> Bool[np.ndarray, "T K"]:
    removed = np.zeros(xyz.shape[:2], dtype=bool)
    if config.hampel_threshold == 0:
        return removed
    for (start, stop), tracks in _by_run(present(xyz)).items():
        if stop - start >= config.window_frames:
            run = xyz[start:stop, tracks]
            removed[start:stop, tracks] = hampel_outliers(run, config.window_frames // 2, config.hampel_threshold)
    return removed


def _smoothed(
    xyz: Float[np.ndarray, "T K 3"], smoother: Smoother | None, shortest: int
) -> tuple[Float[np.ndarray, "T K 3"], Bool[np.ndarray, "T K"]]:
    out, smoothed = xyz.copy(), np.zeros(xyz.shape[:2], dtype=bool)
    if smoother is None:
        return out, smoothed
    for (start, stop), tracks in _by_run(present(xyz)).items():
        if stop - start >= shortest:
            out[start:stop, tracks] = smoother(xyz[start:stop, tracks])
            smoothed[start:stop, tracks] = True
    return out, smoothed


def _by_run(there: Bool[np.ndarray, "T K"]) -> dict[Run, list[int]]:
    """Joints with a run over the same frames together, to be filtered in one call."""
    runs: dict[Run, list[int]] = {}
    for k in range(there.shape[1]):
        for run in unbroken_runs(there[:, k]):
            runs.setdefault(run, []).append(k)
    return runs


def _beside_gaps(confidence: Float[np.ndarray, "T K"], filled: Bool[np.ndarray, "T K"]) -> Float[np.ndarray, "T K"]:
    out = confidence.copy()
    for (start, stop), tracks in _by_run(filled).items():
        out[start:stop, tracks] = np.minimum(confidence[start - 1, tracks], confidence[stop, tracks])
    return out


def _with_constant_bones(
    xyz: Float[np.ndarray, "T P J 3"], confidence: Float[np.ndarray, "T P J"], raw: Poses3D, config: FilterConfig
) -> Float[np.ndarray, "T P J 3"]:
    if config.constant_bones == "none":
        return xyz
    limbs = limb_bones(raw.skeleton)
    bones = limbs if config.constant_bones == "limbs" else tuple(raw.skeleton.bone_indices)
    people = []
    for p in range(xyz.shape[1]):
        lengths = measured_lengths(raw.xyz[:, p].astype(np.float64), bones)
        people.append(with_constant_bones(xyz[:, p], confidence[:, p], bones, lengths))
    return np.stack(people, axis=1) if people else xyz
