"""Temporal work on the poses of a capture: outliers, gaps, smoothing, bones of constant length.

Two doors: `filtered` of all frames at once, and `filtered_block` of one stretch after the other, so that a capture may
be longer than memory; both give the same. Raw and filtered poses are both kept, every value that was not measured is
flagged, smoothing runs within unbroken runs only, and what is missing stays NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from mvpose.errors import ConfigError
from mvpose.reconstruction.bone_lengths import Bones, bone_norms, limb_bones, with_constant_bones
from mvpose.reconstruction.gaps import Run, gap_reach, gaps_filled, present, unbroken_runs
from mvpose.reconstruction.kalman import kalman, kalman_memory
from mvpose.reconstruction.medians import Spool, medians
from mvpose.reconstruction.smoothing import (
    butterworth,
    butterworth_memory,
    frames_to_forget,
    gcv_spline,
    hampel_outliers,
    median,
    one_euro,
    one_euro_memory,
)
from mvpose.reconstruction.view_errors import poses_at
from mvpose.records import Breaks, Poses3D, segments
from mvpose.skeleton import Skeleton

# Frames that are filtered at a time: with two people of 26 joints 30 MB.
BLOCK_FRAMES = 1800
# What a filter may still know, at the edge of a block, of frames that it was not shown: 1e-13 of some metres.
_FORGOTTEN = 1e-14
# Cut-off of the One-Euro filter's speed.
_SPEED_CUTOFF_HZ = 1.0

Lengths = Mapping[int, Float[np.ndarray, "B"]]
"""Bone lengths of each person of a capture, by track."""


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


@dataclass(frozen=True)
class Block:
    """Frames [start, stop) that are filtered at a time, by a look at the frames [first, last) about them."""

    start: int
    stop: int
    first: int
    last: int


def blocks(num_frames: int, fps: float, config: FilterConfig, breaks: Breaks = ()) -> list[Block]:
    """The blocks of a capture, none of which looks across a break in time.

    A spline, which is of one smoothness from end to end of a run, has a single block between two breaks.

    ConfigError if the cut-off is not below half the frame rate.
    """
    smoothing = _smoothing(config, fps)
    reach = smoothing.reach if smoothing else 0
    stretches = segments(0, num_frames, breaks)
    if reach is None:
        return [Block(start, stop, start, stop) for start, stop in stretches]
    reach += gap_reach(config.gap_frames) + (2 * config.window_frames if config.hampel_threshold else 0)
    size = max(BLOCK_FRAMES, 2 * reach)
    return [
        Block(a, min(a + size, stop), max(start, a - reach), min(stop, a + size + reach))
        for start, stop in stretches
        for a in range(start, stop, size)
    ]


def filtered(poses: Poses3D, fps: float, config: FilterConfig) -> FilteredPoses:
    """Outliers removed, gaps filled, runs smoothed, bones made constant, in this order; `poses` is a whole capture's.

    ConfigError if the cut-off is not below half the frame rate. Bones have their median length over the raw values.
    """
    return _filtered(poses, fps, config, bone_lengths([poses], config))


def filtered_block(poses: Poses3D, block: Block, fps: float, config: FilterConfig, lengths: Lengths) -> FilteredPoses:
    """What `filtered` makes of the frames of a block, from the poses of `block.first` to `block.last`.

    `lengths` is what `bone_lengths` says of the whole capture.
    """
    whole, own = _filtered(poses, fps, config, lengths), slice(block.start - block.first, block.stop - block.first)
    return FilteredPoses(
        poses_at(whole.poses, own), whole.filled[own], whole.smoothed[own], whole.removed[own], poses_at(poses, own)
    )


def bone_lengths(parts: Iterable[Poses3D], config: FilterConfig) -> Lengths:
    """The median length of the bones that are to be constant, over the frames of all parts that show both ends."""
    if config.constant_bones == "none":
        return {}
    spools: dict[int, Spool] = {}
    for poses in parts:
        bones = _constant_bones(poses.skeleton, config)
        for p, track in enumerate(poses.track_id.tolist()):
            spool = spools.setdefault(track, Spool(len(bones), np.float64))
            spool.add(bone_norms(poses.xyz[:, p].astype(np.float64), bones))
    return {track: medians(spool) for track, spool in spools.items()}


def _filtered(poses: Poses3D, fps: float, config: FilterConfig, lengths: Lengths) -> FilteredPoses:
    smoothing = _smoothing(config, fps)
    shape = poses.confidence.shape
    raw = poses.xyz.astype(np.float64).reshape(shape[0], -1, 3)
    removed = _outliers(raw, config)
    known = np.where(removed[..., None], np.nan, raw)
    xyz, filled = gaps_filled(known, config.gap_frames)
    xyz, smoothed = _smoothed(xyz, smoothing)
    confidence = np.where(removed, 0.0, poses.confidence.reshape(raw.shape[:2]))
    confidence = _beside_gaps(confidence, filled)
    filled, smoothed, removed, confidence = (a.reshape(shape) for a in (filled, smoothed, removed, confidence))
    xyz = _with_constant_bones(xyz.reshape(*shape, 3), confidence, poses, config, lengths)
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


@dataclass(frozen=True)
class _Smoothing:
    smoother: Callable[[Float[np.ndarray, "n K 3"]], Float[np.ndarray, "n K 3"]]
    shortest: int
    """Fewest frames that it is run on: below, there is nothing that it could tell apart. Butterworth and Kalman need
    one period of their cut-off, a spline 5 values, a median half of its window."""
    reach: int | None
    """Frames on either side that a value depends on, at least `shortest`; None: all of its run."""

    @staticmethod
    def forgetting(smoother: Callable[[np.ndarray], np.ndarray], shortest: int, memory: float) -> _Smoothing:
        """A filter that keeps `memory` of what it knew from frame to frame."""
        return _Smoothing(smoother, shortest, max(shortest, frames_to_forget(memory, _FORGOTTEN)))


def _smoothing(config: FilterConfig, fps: float) -> _Smoothing | None:
    nyquist_share = 2 * config.cutoff_hz / fps
    if config.smoothing in ("butterworth", "kalman_velocity", "kalman_acceleration"):
        if nyquist_share >= 1:
            raise ConfigError(
                f"cutoff_hz is {config.cutoff_hz:g}, and footage of {fps:g} frames/s has nothing above {fps / 2:g} Hz: "
                "lower it, or set smoothing to none."
            )
        period = max(4, round(fps / config.cutoff_hz))
        if config.smoothing == "butterworth":
            cutoff, order = nyquist_share, config.butterworth_order
            return _Smoothing.forgetting(
                partial(butterworth, cutoff=cutoff, order=order), period, butterworth_memory(cutoff, order)
            )
        derivatives = 1 if config.smoothing == "kalman_velocity" else 2
        memory = kalman_memory(nyquist_share, derivatives)
        return _Smoothing.forgetting(partial(kalman, cutoff=nyquist_share, derivatives=derivatives), period, memory)
    if config.smoothing == "one_euro":
        lowest = {"min_cutoff_hz": config.one_euro_cutoff_hz, "speed_cutoff_hz": _SPEED_CUTOFF_HZ}
        smoother = partial(one_euro, fps=fps, beta=config.one_euro_beta, **lowest)
        return _Smoothing.forgetting(smoother, 2, one_euro_memory(fps, **lowest))
    half = config.window_frames // 2
    return {
        "none": None,
        "spline": _Smoothing(gcv_spline, 5, None),
        "median": _Smoothing(partial(median, half_width=half), half + 1, half + 1),
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
