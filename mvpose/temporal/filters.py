"""Temporal filtering of a capture's poses: outliers, gaps, smoothing, constant bone lengths.

There are two entry points: `filtered` for all frames at once, and `filtered_block` for one stretch at a time, so that a
capture may be longer than memory. Both give the same result. Raw and filtered poses are both kept. Every value that was
not measured is flagged, smoothing stays within unbroken runs, and missing values stay NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from jaxtyping import Bool, Float

from mvpose.errors import ConfigError
from mvpose.reconstruction.view_errors import poses_at
from mvpose.records import Breaks, Poses3D, segments
from mvpose.skeleton import Skeleton
from mvpose.temporal.bone_lengths import Bones, bone_norms, limb_bones, with_constant_bones
from mvpose.temporal.filter_settings import (
    ButterworthFilter,
    FilterConfig,
    Filtering,
    GapFilter,
    KalmanFilter,
    MedianFilter,
    OneEuroFilter,
    SplineFilter,
)
from mvpose.temporal.gaps import Run, gap_reach, gaps_filled, present, unbroken_runs
from mvpose.temporal.kalman import kalman, kalman_memory
from mvpose.temporal.medians import NumberSpool, medians
from mvpose.temporal.smoothing import (
    butterworth,
    butterworth_memory,
    frames_to_forget,
    gcv_spline,
    hampel_outliers,
    median,
    one_euro,
    one_euro_memory,
)

# Number of frames filtered at a time: 30 MB with two people of 26 joints.
BLOCK_FRAMES = 1800
# Remaining influence, at the edge of a block, of frames outside it: 1e-13 of some metres.
_FORGOTTEN = 1e-14
# Cut-off for the speed in the One-Euro filter.
_SPEED_CUTOFF_HZ = 1.0

Lengths = Mapping[int, Float[np.ndarray, "B"]]
"""Bone lengths of each person of a capture, by track."""


@dataclass(frozen=True, eq=False)
class FilteredPoses:
    """Poses before and after filtering, and the change of each value."""

    poses: Poses3D
    filled: Bool[np.ndarray, "T P J"]
    """Interpolated: not measured (num_views 0, error and sigma NaN). The confidence is the lower one at the ends of the
    gap."""
    smoothed: Bool[np.ndarray, "T P J"]
    """False where a run was too short for the filter and was not changed."""
    removed: Bool[np.ndarray, "T P J"]
    """Measured, but rejected as an outlier; missing in `poses` unless filled."""
    raw: Poses3D


@dataclass(frozen=True)
class FilterBlock:
    """Frames [start, stop), filtered together with the surrounding frames [first, last)."""

    start: int
    stop: int
    first: int
    last: int


def blocks(num_frames: int, fps: float, config: Filtering, breaks: Breaks = ()) -> list[FilterBlock]:
    """The blocks of a capture. No block extends across a break in time.

    A spline has the same smoothness over its whole run, so it has a single block between two breaks.

    ConfigError if the cut-off is not below half the frame rate.
    """
    smoothing = _smoothing(config, fps)
    reach = smoothing.reach if smoothing else 0
    stretches = segments(0, num_frames, breaks)
    if reach is None:
        return [FilterBlock(start, stop, start, stop) for start, stop in stretches]
    reach += gap_reach(config.gap_frames) + (2 * config.window_frames if config.hampel_threshold else 0)
    size = max(BLOCK_FRAMES, 2 * reach)
    return [
        FilterBlock(a, min(a + size, stop), max(start, a - reach), min(stop, a + size + reach))
        for start, stop in stretches
        for a in range(start, stop, size)
    ]


def filtered(poses: Poses3D, fps: float, config: Filtering) -> FilteredPoses:
    """Remove outliers, fill gaps, smooth runs and fix bone lengths, in this order; `poses` are of a whole capture.

    Raises ConfigError if the cut-off is not below half the frame rate. Bones get their median length over raw values.
    """
    return _filtered(poses, fps, config, bone_lengths([poses], config))


def filtered_block(
    poses: Poses3D, block: FilterBlock, fps: float, config: Filtering, lengths: Lengths
) -> FilteredPoses:
    """The result of `filtered` for the frames of a block, from the poses of `block.first` to `block.last`.

    `lengths` are the `bone_lengths` of the whole capture.
    """
    whole, own = _filtered(poses, fps, config, lengths), slice(block.start - block.first, block.stop - block.first)
    return FilteredPoses(
        poses_at(whole.poses, own), whole.filled[own], whole.smoothed[own], whole.removed[own], poses_at(poses, own)
    )


def bone_lengths(parts: Iterable[Poses3D], config: FilterConfig) -> Lengths:
    """The median length of the bones to be kept constant, over the frames of all parts that show both ends."""
    if config.constant_bones == "none":
        return {}
    spools: dict[int, NumberSpool] = {}
    for poses in parts:
        bones = _constant_bones(poses.skeleton, config)
        for p, track in enumerate(poses.track_id.tolist()):
            spool = spools.setdefault(track, NumberSpool(len(bones), np.float64))
            spool.add(bone_norms(poses.xyz[:, p].astype(np.float64), bones))
    return {track: medians(spool) for track, spool in spools.items()}


def _filtered(poses: Poses3D, fps: float, config: Filtering, lengths: Lengths) -> FilteredPoses:
    smoothing = _smoothing(config, fps)
    shape = poses.confidence.shape
    raw = poses.xyz.astype(np.float64).reshape(shape[0], -1, 3)
    removed = _outliers(raw, config)
    known = np.where(removed[..., None], np.nan, raw)
    xyz, filled = gaps_filled(known, config.gap_frames)
    xyz, smoothed = _smoothed(xyz, smoothing)
    confidence = np.where(removed, 0.0, poses.confidence.reshape(raw.shape[:2]))
    confidence = _lowered_in_gaps(confidence, filled)
    filled, smoothed, removed, confidence = (a.reshape(shape) for a in (filled, smoothed, removed, confidence))
    xyz = _with_constant_bones(xyz.reshape(*shape, 3), confidence, poses, config, lengths)
    measured = ~filled & ~removed
    after = replace(
        poses,
        xyz=xyz.astype(poses.xyz.dtype),
        confidence=confidence.astype(poses.confidence.dtype),
        error_px=np.where(measured, poses.error_px, np.nan).astype(poses.error_px.dtype),
        sigma_mm=np.where(measured, poses.sigma_mm, np.nan).astype(poses.sigma_mm.dtype),
        num_views=np.where(measured, poses.num_views, 0).astype(poses.num_views.dtype),
        views_used=poses.views_used & measured[..., None],
    )
    return FilteredPoses(after, filled, smoothed, removed, poses)


@dataclass(frozen=True)
class _Smoothing:
    smoother: Callable[[Float[np.ndarray, "n K 3"]], Float[np.ndarray, "n K 3"]]
    shortest: int
    """Minimum number of frames to smooth; a shorter run cannot be resolved. Butterworth and Kalman need one period of
    their cut-off, a spline 5 values, a median half of its window."""
    reach: int | None
    """Number of frames on either side that affect a value, at least `shortest`; None: the whole run."""

    @staticmethod
    def forgetting(smoother: Callable[[np.ndarray], np.ndarray], shortest: int, memory: float) -> _Smoothing:
        """A filter that keeps the fraction `memory` of its state from frame to frame."""
        return _Smoothing(smoother, shortest, max(shortest, frames_to_forget(memory, _FORGOTTEN)))


def _smoothing(config: Filtering, fps: float) -> _Smoothing | None:
    half = config.window_frames // 2
    match config:
        case ButterworthFilter():
            cutoff, order = _nyquist_share(config.cutoff_hz, fps), config.butterworth_order
            smoother = partial(butterworth, cutoff=cutoff, order=order)
            return _Smoothing.forgetting(smoother, _period(config.cutoff_hz, fps), butterworth_memory(cutoff, order))
        case KalmanFilter():
            cutoff, derivatives = _nyquist_share(config.cutoff_hz, fps), 1 + (config.smoothing == "kalman_acceleration")
            smoother = partial(kalman, cutoff=cutoff, derivatives=derivatives)
            return _Smoothing.forgetting(smoother, _period(config.cutoff_hz, fps), kalman_memory(cutoff, derivatives))
        case OneEuroFilter():
            lowest = {"min_cutoff_hz": config.one_euro_cutoff_hz, "speed_cutoff_hz": _SPEED_CUTOFF_HZ}
            smoother = partial(one_euro, fps=fps, beta=config.one_euro_beta, **lowest)
            return _Smoothing.forgetting(smoother, 2, one_euro_memory(fps, **lowest))
        case SplineFilter():
            return _Smoothing(gcv_spline, 5, None)
        case MedianFilter():
            return _Smoothing(partial(median, half_width=half), half + 1, half + 1)
        case GapFilter():
            return None


def _period(cutoff_hz: float, fps: float) -> int:
    return max(4, round(fps / cutoff_hz))


def _nyquist_share(cutoff_hz: float, fps: float) -> float:
    """The cut-off as a share of half the frame rate; ConfigError where it is not below."""
    if 2 * cutoff_hz >= fps:
        raise ConfigError(
            f"cutoff_hz is {cutoff_hz:g}, and footage of {fps:g} frames/s has nothing above {fps / 2:g} Hz: "
            "lower it, or set smoothing to none."
        )
    return 2 * cutoff_hz / fps


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
    xyz: Float[np.ndarray, "T K 3"], smoothing: _Smoothing | None
) -> tuple[Float[np.ndarray, "T K 3"], Bool[np.ndarray, "T K"]]:
    out, smoothed = xyz.copy(), np.zeros(xyz.shape[:2], dtype=bool)
    if smoothing is None:
        return out, smoothed
    for (start, stop), tracks in _by_run(present(xyz)).items():
        if stop - start >= smoothing.shortest:
            out[start:stop, tracks] = smoothing.smoother(xyz[start:stop, tracks])
            smoothed[start:stop, tracks] = True
    return out, smoothed


def _by_run(there: Bool[np.ndarray, "T K"]) -> dict[Run, list[int]]:
    """Group joints whose runs span the same frames, so that they are filtered in one call."""
    runs: dict[Run, list[int]] = {}
    for k in range(there.shape[1]):
        for run in unbroken_runs(there[:, k]):
            runs.setdefault(run, []).append(k)
    return runs


def _lowered_in_gaps(confidence: Float[np.ndarray, "T K"], filled: Bool[np.ndarray, "T K"]) -> Float[np.ndarray, "T K"]:
    out = confidence.copy()
    for (start, stop), tracks in _by_run(filled).items():
        out[start:stop, tracks] = np.minimum(confidence[start - 1, tracks], confidence[stop, tracks])
    return out


def _with_constant_bones(
    xyz: Float[np.ndarray, "T P J 3"],
    confidence: Float[np.ndarray, "T P J"],
    raw: Poses3D,
    config: FilterConfig,
    lengths: Lengths,
) -> Float[np.ndarray, "T P J 3"]:
    if config.constant_bones == "none":
        return xyz
    bones = _constant_bones(raw.skeleton, config)
    people = [
        with_constant_bones(xyz[:, p], confidence[:, p], bones, lengths[track])
        for p, track in enumerate(raw.track_id.tolist())
    ]
    return np.stack(people, axis=1) if people else xyz


def _constant_bones(skeleton: Skeleton, config: FilterConfig) -> Bones:
    return limb_bones(skeleton) if config.constant_bones == "limbs" else tuple(skeleton.bone_indices)
