"""Errors of each view's 2D joints against the poses, in image pixels: of all views, and of left-out views."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mvpose.geometry.camera import CameraRig
from mvpose.geometry.lens import radii
from mvpose.geometry.triangulation import reprojection_errors
from mvpose.reconstruction.association import shown_by
from mvpose.reconstruction.clip import ReconstructionConfig
from mvpose.reconstruction.joints import Agreement, JointPoints, exchanged, swapped_sides, triangulate_joints
from mvpose.reconstruction.observations import Observations, at_places, observe
from mvpose.records import BY_FRAME, Keypoints2D, Poses3D

# Number of frames in memory at a time: 500 frames of 31 views with 4 people and 26 joints are 0.3 GB.
CHUNK = 500
LIFTED_ERROR = 0.15
"""Expected error of poses that a network lifted from one camera, as a share of the person's size: a detection may be
off by six times that. With the rule of several views, which ends at 9 %, poses that fit worse were left out of their
own error: clips of a lifter after 66 steps had 12 % instead of 21 % in the median, and a third of them none."""


@dataclass(frozen=True, eq=False)
class ViewErrors:
    """Distances between projected joints and the 2D joints of the same person; NaN if either is missing.

    Left and right are exchanged where the reconstruction did so; `swapped` marks these joints.
    """

    error_px: Float[np.ndarray, "T P J V"]
    confidence: Float[np.ndarray, "T P J V"]
    """Likelihood of the 2D joint, see `mvpose.confidence`; 0 if the view has none."""
    swapped: Bool[np.ndarray, "T P J V"]
    pixel_mm: Float[np.ndarray, "T P J V"]
    """Size of one pixel at the joint: its depth divided by the focal length; NaN if the joint is missing."""
    size_px: Float[np.ndarray, "T P V"]
    """Larger side of the person's box in the view; NaN if no joint of the person is compared."""


def errors_of_views(
    poses: Poses3D,
    keypoints: Keypoints2D,
    rig: CameraRig,
    config: ReconstructionConfig | None,
    judged: Int[np.ndarray, " n"],
) -> tuple[ViewErrors, Float[np.ndarray, "n P J V"]]:
    """Errors of every view that shows a person, used or not, at any confidence; and those of views left out.

    Detections are matched to people by the poses, with the optimal assignment in every view and frame; those of one
    camera to people who are anywhere near (`LIFTED_ERROR`).

    The second are of the `judged` frames alone, which are ascending: distances in pixels of each view's joint from the
    same joint reconstructed from the other views. Frames are evaluated independently. NaN if the view has no joint of
    at least `min_confidence`, or if the others do not give a point; all NaN for fewer than three views.

    Rays are computed once for both: of a single instant, a quarter of the time.
    """
    config, size = config or ReconstructionConfig(), max(1, CHUNK // len(rig))
    parts: list[ViewErrors] = []
    left_out = [np.empty((0, *poses.xyz.shape[1:3], len(rig)), np.float32)]
    for start in range(0, len(poses.xyz), CHUNK):
        frames = slice(start, start + CHUNK)
        shown = _Shown.of(poses_at(poses, frames), keypoints_at(keypoints, frames), rig, config)
        parts.append(shown.errors())
        some = judged[(start <= judged) & (judged < frames.stop)] - start
        left_out += [shown.at(some[i : i + size]).left_out() for i in range(0, len(some), size)]
    errors = ViewErrors(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(ViewErrors)))
    return errors, np.concatenate(left_out)


@dataclass(frozen=True, eq=False)
class _Matched:
    """2D joints matched to the people of the poses, views last."""

    drawn: Float[Tensor, "T P J V 2"]
    ideal: Float[Tensor, "T P J V 2"]
    weight: Float[Tensor, "T P J V"]
    size: Float[Tensor, "T P V"]
    """Size of the person in the image, in pixels."""
    swapped: Bool[Tensor, "T P J V"]


@dataclass(frozen=True, eq=False)
class _Shown:
    """Poses beside the 2D joints of the same frames, at any likelihood."""

    poses: Poses3D
    seen: Observations
    drawn: Float[Tensor, "T V P J 2"]
    """Pixels of the images; NaN where a joint is missing."""
    rig: CameraRig
    config: ReconstructionConfig

    @staticmethod
    def of(poses: Poses3D, keypoints: Keypoints2D, rig: CameraRig, config: ReconstructionConfig) -> _Shown:
        drawn = torch.from_numpy(keypoints.xy).double().movedim(0, 1)
        return _Shown(poses, observe(keypoints, rig, 0.0), drawn, rig, config)

    def at(self, frames: Int[np.ndarray, " n"]) -> _Shown:
        """Some of the frames."""
        which = torch.from_numpy(frames)
        return replace(self, poses=poses_at(self.poses, frames), seen=self.seen.frames(which), drawn=self.drawn[which])

    def matched(self, min_confidence: float) -> _Matched:
        """The joints of at least this likelihood of each person of the poses."""
        poses, rig, config, mirror = self.poses, self.rig, self.config, self.poses.skeleton.mirror
        seen = replace(self.seen, weight=torch.where(self.seen.weight >= min_confidence, self.seen.weight, 0.0))
        places = _places(poses, seen, config.expected_error)
        ideal, weight = seen.of(places)
        drawn = at_places(self.drawn, places).movedim(2, 3).nan_to_num()
        points = torch.from_numpy(poses.xyz).double()
        valid = points.isfinite().all(dim=-1)
        size = seen.sizes(places)
        errors = reprojection_errors(points.nan_to_num(), ideal, rig.projections) / size[:, :, None]
        used = torch.from_numpy(poses.views_used)
        found = JointPoints(points.nan_to_num(), valid, used, errors)
        swapped = swapped_sides(ideal, weight, size, found, rig.projections, mirror, config.max_error)
        swapped &= used & used[:, :, torch.tensor(mirror)]
        drawn, ideal, weight = (exchanged(values, swapped, mirror) for values in (drawn, ideal, weight))
        return _Matched(drawn, ideal, weight, size, swapped)

    def errors(self) -> ViewErrors:
        """Errors of every view."""
        rig, matched = self.rig, self.matched(0.0)
        points = torch.from_numpy(self.poses.xyz).double()
        projected, before = rig.project(points.nan_to_num())
        error = radii(projected.movedim(0, -2) - matched.drawn)
        depth_m = rig.camera_from_world.apply(points.reshape(1, -1, 3))[..., 2].T.reshape(*points.shape[:3], len(rig))
        pixel_mm = 1000.0 * depth_m / rig.focal.mean(dim=-1)
        there = (matched.weight > 0) & before.movedim(0, -1) & points.isfinite().all(dim=-1)[..., None]
        return ViewErrors(
            torch.where(there, error, torch.nan).float().numpy(),
            matched.weight.float().numpy(),
            matched.swapped.numpy(),
            pixel_mm.float().numpy(),
            torch.where(there.any(dim=2), matched.size, torch.nan).float().numpy(),
        )

    def left_out(self) -> Float[np.ndarray, "T P J V"]:
        """Errors of views against the reconstruction without them."""
        rig, views = self.rig, len(self.rig)
        if views < 3:
            return np.full((*self.poses.xyz.shape[:3], views), np.nan, np.float32)
        matched = self.matched(self.config.min_confidence)
        rule = Agreement(max_error=self.config.max_error, min_views=2, window=0)
        # One instant per left-out view and frame, all of them triangulated together.
        others = matched.weight.expand(views, -1, -1, -1, -1).clone()
        others.diagonal(dim1=0, dim2=-1).zero_()
        instants = (matched.ideal.repeat(views, 1, 1, 1, 1), others.flatten(0, 1), matched.size.repeat(views, 1, 1))
        found = triangulate_joints(*instants, rig.projections, rule)
        points, valid = found.points.unflatten(0, (views, -1)), found.valid.unflatten(0, (views, -1))
        seen = [rig.select((name,)).project(own) for name, own in zip(rig.names, points, strict=True)]
        projected = torch.cat([pixels for pixels, _ in seen]).movedim(0, -2)
        there = (valid & torch.cat([before for _, before in seen])).movedim(0, -1) & (matched.weight > 0)
        off = radii(projected - matched.drawn)
        return torch.where(there, off, torch.nan).float().numpy()


def _places(poses: Poses3D, seen: Observations, expected_error: float) -> Int[Tensor, "T P V"]:
    bodies = torch.from_numpy(poses.xyz).double()
    known = bodies.isfinite().all(dim=-1)
    lifted = seen.weight.shape[1] == 1
    return shown_by(seen, bodies.nan_to_num(), known, LIFTED_ERROR if lifted else expected_error)[0]


def poses_at(poses: Poses3D, frames: slice | Int[np.ndarray, " n"]) -> Poses3D:
    """The poses in some of the frames."""
    return replace(poses, **{name: getattr(poses, name)[frames] for name in BY_FRAME})


def keypoints_at(keypoints: Keypoints2D, frames: slice | Int[np.ndarray, " n"]) -> Keypoints2D:
    """The 2D joints of some of the frames."""
    by_frame = ("xy", "confidence", "box", "box_score")
    detected = keypoints_at(keypoints.detected, frames) if keypoints.detected else None
    lifted = None if keypoints.lifted is None else keypoints.lifted[:, frames]
    arrays = {name: getattr(keypoints, name)[:, frames] for name in by_frame}
    return replace(keypoints, **arrays, detected=detected, lifted=lifted)
