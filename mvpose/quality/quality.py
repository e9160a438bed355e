"""Figures of merit of reconstructed poses, from the poses, the 2D joints and the cameras, without ground truth.

They are accumulated part by part, so a capture may be longer than memory: sums, counts, and exact medians (`medians`)
over distances that are spooled to local disk. An hour of 30 Hz footage of one person of 26 joints in front of four
cameras takes 100 MB.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float, Int

from mvpose.geometry.camera import CameraRig
from mvpose.quality.quality_figures import Errors, Quality
from mvpose.reconstruction.clip import ReconstructionConfig
from mvpose.reconstruction.view_errors import ViewErrors, errors_of_views, keypoints_at, poses_at
from mvpose.records import SECOND_LOOK, Keypoints2D, Poses3D
from mvpose.skeleton import BODY_JOINTS, Skeleton
from mvpose.temporal.bone_lengths import bone_norms
from mvpose.temporal.medians import NumberSpool, median_of, medians

# Leave-one-camera-out costs as many reconstructions as there are cameras. It is done for one frame in three, but at
# least 10, and for up to 400 reconstructions, but at least 25 frames. On the demos (60 Hz, 100 frames), errors of
# frames three apart correlate with 0.7: a third of the frames gives the mean of all within 0.7 %, and the mean of
# each camera within 3 %; 25 frames within 1.3 % and 2.6 %.
LEFT_OUT_STRIDE, MIN_LEFT_OUT = 3, 10
LEFT_OUT_RECONSTRUCTIONS, LIMIT_LEFT_OUT = 400, 25
# No joint of a person moves faster: a sprinter's foot reaches 20 m/s.
FASTEST_M_S = 25.0

_Numbers = np.ndarray | np.generic | int | float


@dataclass(frozen=True, eq=False)
class CaptureFrames:
    """Successive frames of a capture, starting at frame `start`."""

    start: int
    poses: Poses3D
    keypoints: Keypoints2D
    breaks: frozenset[int] = frozenset()
    """Frames of the capture that do not directly follow the previous one in time."""


def quality(
    poses: Poses3D, keypoints: Keypoints2D, rig: CameraRig, fps: float, config: ReconstructionConfig | None = None
) -> Quality:
    """The figures for one capture's poses; `keypoints` has the same frames, `config` is the one that made the poses.

    Adjacent frames are assumed to be successive.
    """
    return quality_of_parts([CaptureFrames(0, poses, keypoints)], (0, len(poses.xyz)), rig, fps, config)


def quality_of_parts(
    parts: Iterable[CaptureFrames],
    frames: tuple[int, int],
    rig: CameraRig,
    fps: float,
    config: ReconstructionConfig | None = None,
) -> Quality:
    """`quality` of a capture, of which one part at a time is in memory; at least one part, in order of time.

    `frames` are the first frame of the first part and the one after the last. Frames in no part count as frames without
    people. Raises ResultsError if the local disk is full.
    """
    start, stop = frames
    config = config or ReconstructionConfig()
    judged = start + judged_frames(stop - start, len(rig))
    gathered: _Gathered | None = None
    for part in parts:
        some = judged[(part.start <= judged) & (judged < part.start + len(part.poses.xyz))] - part.start
        errors, left_out = errors_of_views(part.poses, part.keypoints, rig, config, some)
        gathered = gathered or _Gathered(part.poses.skeleton, rig, fps)
        gathered.add(part, errors)
        if len(some):
            gathered.add_left_out(left_out, errors.pixel_mm[some])
    assert gathered is not None
    return gathered.quality(stop - start, config.max_error)


def judged_frames(num_frames: int, num_views: int) -> Int[np.ndarray, " n"]:
    """The frames on which cameras are left out, evenly spread over the capture."""
    limit = max(LIMIT_LEFT_OUT, LEFT_OUT_RECONSTRUCTIONS // num_views)
    count = min(limit, max(MIN_LEFT_OUT, num_frames // LEFT_OUT_STRIDE))
    return np.unique(np.linspace(0, num_frames - 1, count).round().astype(int))


@dataclass(frozen=True, eq=False)
class _Sums:
    """Sums over frames and people."""

    frames_found: Int[np.ndarray, ""]
    there: Int[np.ndarray, "J"]
    num_views: Int[np.ndarray, "J"]
    used_px: Float[np.ndarray, "J V"]
    used_mm: Float[np.ndarray, "J V"]
    used: Int[np.ndarray, "J V"]
    all_px: Float[np.ndarray, "J V"]
    all: Int[np.ndarray, "J V"]
    excluded: Int[np.ndarray, "V"]
    swapped: Int[np.ndarray, ""]
    kept: Int[np.ndarray, ""]
    detected: Int[np.ndarray, ""]
    second_looks: Int[np.ndarray, ""]
    posed: Int[np.ndarray, ""]
    unused: Int[np.ndarray, "V"]
    size_px: Float[np.ndarray, "V"]
    sizes: Int[np.ndarray, "V"]

    @staticmethod
    def of(part: CaptureFrames, errors: ViewErrors, used_px: Float[np.ndarray, "T P J V"]) -> _Sums:
        poses, score = part.poses, part.keypoints.box_score
        there, seen = np.isfinite(poses.xyz[..., 0]), np.isfinite(errors.error_px)
        found = np.asarray(there.any(axis=2))
        over = (0, 1)

        def total(values: np.ndarray) -> np.ndarray:
            return np.asarray(np.nansum(values, axis=over, dtype=np.float64))

        return _Sums(
            frames_found=np.asarray(np.asarray(found.any(axis=1)).sum()),
            there=there.sum(axis=over),
            num_views=(poses.num_views * there).sum(axis=over),
            used_px=total(used_px),
            used_mm=total(used_px * errors.pixel_mm),
            used=np.isfinite(used_px).sum(axis=over),
            all_px=total(errors.error_px),
            all=seen.sum(axis=over),
            excluded=(seen & ~poses.views_used).sum(axis=(0, 1, 2)),
            swapped=np.asarray((errors.swapped & poses.views_used).sum()),
            kept=np.asarray(poses.views_used.sum()),
            detected=np.asarray((score > 0).sum()),
            second_looks=np.asarray((score == SECOND_LOOK).sum()),
            posed=np.asarray(found.sum()),
            unused=(found[..., None] & ~np.asarray(poses.views_used.any(axis=2))).sum(axis=over),
            size_px=total(errors.size_px),
            sizes=np.isfinite(errors.size_px).sum(axis=over),
        )

    def __add__(self, other: _Sums) -> _Sums:
        return _Sums(*(np.asarray(getattr(self, f.name) + getattr(other, f.name)) for f in fields(_Sums)))


class _Gathered:
    """Accumulates the parts."""

    def __init__(self, skeleton: Skeleton, rig: CameraRig, fps: float) -> None:
        self.skeleton, self.rig, self.fps = skeleton, rig, fps
        self.bones = tuple(skeleton.bone_indices)
        cells = len(skeleton.joints) * len(rig)
        self.used_px, self.all_px = NumberSpool(cells, np.float32), NumberSpool(cells, np.float32)
        self.sigma_mm = NumberSpool(len(skeleton.joints), np.float32)
        self.lengths: dict[int, NumberSpool] = {}
        self.seen: dict[int, tuple[int, int]] = {}
        """First and last frame of each track."""
        self.left_out: list[tuple[Float[np.ndarray, "n J V"], Float[np.ndarray, "n J V"]]] = []
        """Errors in pixels and millimetres."""
        self.sums: _Sums | None = None
        self.steps, self.too_fast = 0, 0
        self.before: CaptureFrames | None = None

    def add(self, part: CaptureFrames, errors: ViewErrors) -> None:
        poses = part.poses
        used_px = np.where(poses.views_used, errors.error_px, np.nan)
        sums = _Sums.of(part, errors, used_px)
        self.sums = self.sums + sums if self.sums else sums
        self.used_px.add(used_px.reshape(-1, self.used_px.columns))
        self.all_px.add(errors.error_px.reshape(-1, self.all_px.columns))
        self.sigma_mm.add(poses.sigma_mm.reshape(-1, self.sigma_mm.columns))
        found = np.asarray(np.isfinite(poses.xyz[..., 0]).any(axis=2))
        lengths = bone_norms(poses.xyz, self.bones)
        for p, track in enumerate(poses.track_id.tolist()):
            self.lengths.setdefault(track, NumberSpool(len(self.bones), np.float32)).add(lengths[:, p])
            if len(frames := part.start + np.flatnonzero(found[:, p])):
                self.seen[track] = (int(self.seen.get(track, frames)[0]), int(frames[-1]))
        speed = np.linalg.norm(np.diff(_with_frame_before(part, self.before), axis=0), axis=-1) * self.fps
        stop = part.start + len(part.poses.xyz)
        speed[np.isin(np.arange(stop - len(speed), stop), list(part.breaks))] = np.nan
        self.steps += int(np.isfinite(speed).sum())
        self.too_fast += int((speed > FASTEST_M_S).sum())
        last = slice(len(poses.xyz) - 1, None)
        self.before = CaptureFrames(part.start + last.start, poses_at(poses, last), keypoints_at(part.keypoints, last))

    def add_left_out(self, error_px: Float[np.ndarray, "n P J V"], pixel_mm: Float[np.ndarray, "n P J V"]) -> None:
        pixels, millimetres = (values.reshape(-1, *values.shape[2:]) for values in (error_px, error_px * pixel_mm))
        self.left_out.append((pixels, millimetres))

    def quality(self, num_frames: int, max_error: float) -> Quality:
        assert self.sums is not None
        sums, joints = self.sums, self.skeleton.joints
        body = [i for i, joint in enumerate(joints) if joint in BODY_JOINTS]
        used = _Grouped(self.used_px, sums.used_px, sums.used, body)
        all_views = _Grouped(self.all_px, sums.all_px, sums.all, body)
        left_out_px, left_out_mm = (np.concatenate(values) for values in zip(*self.left_out, strict=True))
        sigma_mm = medians(self.sigma_mm, [np.array(body, np.int64), *np.arange(len(joints))[:, None]]).tolist()
        present = sum(last - first + 1 for first, last in self.seen.values())
        lengths, spreads = _bones(list(self.lengths.values()), len(self.bones))
        return Quality(
            cameras=self.rig.names,
            skeleton=self.skeleton,
            body_used=used.body,
            body_all_views=all_views.body,
            body_left_out=_errors(left_out_px[:, body]),
            body_used_mm=_ratio(sums.used_mm[body], sums.used[body]),
            body_left_out_mm=_mean(left_out_mm[:, body]),
            body_sigma_mm=sigma_mm[0],
            used=used.whole,
            all_views=all_views.whole,
            body_views_used=_ratio(sums.num_views[body], sums.there[body]),
            body_views_seen=_ratio(sums.all[body], sums.there[body]),
            body_reconstructed_share=_ratio(sums.there[body], sums.posed * len(body)),
            reconstructed_share=_ratio(sums.there, sums.posed * len(joints)),
            present_share=_ratio(sums.posed, present),
            frames_share=_ratio(sums.frames_found, num_frames),
            swapped_share=_ratio(sums.swapped, sums.kept),
            second_look_share=_ratio(sums.second_looks, sums.detected),
            too_fast_share=_ratio(self.too_fast, self.steps),
            error_limit_px=max_error * _ratio(sums.size_px, sums.sizes),
            camera_used=used.cameras,
            camera_used_mm=tuple(map(_ratio, sums.used_mm.T, sums.used.T)),
            camera_all_views=all_views.cameras,
            camera_left_out=tuple(map(_errors, np.moveaxis(left_out_px, 2, 0))),
            camera_excluded_share=tuple(map(_ratio, sums.excluded, sums.all.sum(axis=0))),
            camera_unused_frames_share=tuple(_ratio(unused, sums.posed) for unused in sums.unused),
            camera_error_limit_px=tuple(max_error * _ratio(*of) for of in zip(sums.size_px, sums.sizes, strict=True)),
            joint_used=used.joints,
            joint_used_mm=tuple(map(_ratio, sums.used_mm, sums.used)),
            joint_all_views=all_views.joints,
            joint_sigma_mm=tuple(sigma_mm[1:]),
            joint_reconstructed_share=tuple(_ratio(there, sums.posed) for there in sums.there),
            bone_length_m=lengths,
            bone_spread=spreads,
        )


class _Grouped:
    """Errors from spooled and summed distances of joints by views: over all, over the body, per camera, per joint."""

    def __init__(
        self, spool: NumberSpool, px: Float[np.ndarray, "J V"], count: Int[np.ndarray, "J V"], body: Sequence[int]
    ) -> None:
        cells = np.arange(px.size).reshape(px.shape)
        groups = [cells.ravel(), cells[body].ravel(), *cells.T, *cells]
        errors = [
            Errors(_ratio(px.ravel()[group], count.ravel()[group]), float(median))
            for group, median in zip(groups, medians(spool, groups), strict=True)
        ]
        views = px.shape[1]
        self.whole, self.body = errors[:2]
        self.cameras, self.joints = tuple(errors[2 : 2 + views]), tuple(errors[2 + views :])


def _with_frame_before(part: CaptureFrames, before: CaptureFrames | None) -> Float[np.ndarray, "T P J 3"]:
    """Joints of the part, preceded by the last frame of the previous part if the two are adjacent."""
    xyz = part.poses.xyz
    if before is None or before.start + 1 != part.start:
        return xyz
    first = np.full_like(xyz[:1], np.nan)
    _, here, there = np.intersect1d(part.poses.track_id, before.poses.track_id, return_indices=True)
    first[0, here] = before.poses.xyz[0, there]
    return np.concatenate([first, xyz])


def _bones(people: Sequence[NumberSpool], num_bones: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Length in metres and relative spread of each bone, averaged over people; NaN for a bone that was never seen."""
    median = np.array([medians(lengths) for lengths in people]).reshape(len(people), num_bones)
    # Joints that always coincide form a bone without length.
    length = np.where(median > 0, median, np.nan)
    spread = np.array([_deviation(lengths) for lengths in people]).reshape(len(people), num_bones) / length
    return tuple(map(_mean, median.T)), tuple(map(_mean, spread.T))


def _deviation(spool: NumberSpool) -> Float[np.ndarray, "K"]:
    """Standard deviation of each column, in two passes."""
    count, total = np.zeros((2, spool.columns))
    for rows in spool:
        count += np.isfinite(rows).sum(axis=0)
        total += np.nansum(rows, axis=0, dtype=np.float64)
    mean = total / np.where(count > 0, count, np.nan)
    squares = sum((np.nansum((rows - mean) ** 2, axis=0) for rows in spool), start=np.zeros(spool.columns))
    return np.sqrt(squares / np.where(count > 0, count, np.nan))


def _errors(distances: Float[np.ndarray, "*n"]) -> Errors:
    return Errors(_mean(distances), float(median_of(distances)))


def _mean(values: np.ndarray) -> float:
    there = values[np.isfinite(values)]
    return float(there.mean(dtype=np.float64)) if there.size else np.nan


def _ratio(some: _Numbers, of: _Numbers) -> float:
    """Sum over sum; NaN if the denominator is 0."""
    total = float(np.sum(of))
    return float(np.sum(some)) / total if total else np.nan
