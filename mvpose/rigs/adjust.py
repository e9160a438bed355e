"""Adjust camera poses to the people seen, for footage whose calibration is slightly off; only on request.

The correction is estimated on some stretches of time and evaluated on others. It is kept only if it improves those.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mvpose.errors import NoPersonError, TooFewViewsError
from mvpose.geometry.camera import CameraRig
from mvpose.geometry.robust import triangulate_robust
from mvpose.geometry.triangulation import triangulate
from mvpose.reconstruction.association import associate
from mvpose.reconstruction.observations import at_places, observe
from mvpose.reconstruction.reconstruction_settings import AdjustmentConfig
from mvpose.reconstruction.view_errors import keypoints_at
from mvpose.records import Keypoints2D
from mvpose.rigs.bundle_adjustment import bundle_adjust
from mvpose.skeleton import BODY_JOINTS

# Views farther than this from the consensus are not used, in shares of the person's size: with the given cameras, and
# after correction.
GATES = (0.08, 0.04)
# Errors up to this share of the size count quadratically, larger ones linearly (Huber): 3 px of the demo's people.
SQUARED = 0.004
# Of 8 stretches of time, these are held out for evaluation.
STRETCHES, HELD_OUT = 8, (2, 5)


@dataclass(frozen=True, eq=False)
class AdjustmentReport:
    """The change of each camera, and the mean reprojection error over all views on held-out frames."""

    cameras: tuple[str, ...]
    kept: bool
    """Whether the correction reduced the error on held-out frames; if not, the original rig is returned."""
    moved_m: tuple[float, ...]
    turned_degrees: tuple[float, ...]
    before_px: float
    after_px: float
    learned_before_px: float
    """On the fitted poses: root mean square over the views used."""
    learned_after_px: float
    num_poses: int
    num_held_out: int

    def figures(self) -> dict[str, float]:
        """All figures as one flat dict."""
        flat = {
            "adjustment_kept": float(self.kept),
            "adjustment_held_out_before_px": self.before_px,
            "adjustment_held_out_after_px": self.after_px,
            "adjustment_learned_before_px": self.learned_before_px,
            "adjustment_learned_after_px": self.learned_after_px,
            "adjustment_poses": float(self.num_poses),
            "adjustment_held_out_poses": float(self.num_held_out),
        }
        for camera, moved, turned in zip(self.cameras, self.moved_m, self.turned_degrees, strict=True):
            flat[f"camera/{camera}/moved_m"] = moved
            flat[f"camera/{camera}/turned_degrees"] = turned
        return flat

    def __str__(self) -> str:
        cameras = "; ".join(
            f"{c} {1000 * m:.0f} mm and {t:.2f} degrees"
            for c, m, t in zip(self.cameras, self.moved_m, self.turned_degrees, strict=True)
        )
        return (
            f"extrinsics {'adjusted' if self.kept else 'unchanged'}: {self.before_px:.2f} -> "
            f"{self.after_px:.2f} px on held-out frames; {cameras}"
        )


def adjust_extrinsics(
    keypoints: Keypoints2D, rig: CameraRig, config: AdjustmentConfig
) -> tuple[CameraRig, AdjustmentReport]:
    """The rig with corrected camera poses, and a report; intrinsics, lenses, scale and world frame are kept.

    Robust bundle adjustment over the body joints (all joints if the skeleton lacks them) of well-spread poses. Only
    what images can determine is estimated: the cameras as a whole keep their place in the world. Raises
    NoPersonError if too few people are seen by two cameras, TooFewViewsError for a rig of one camera.
    """
    frames = frames_to_see(keypoints.xy.shape[1], config)
    return adjust_on_frames(keypoints_at(keypoints, frames), frames / keypoints.xy.shape[1], rig, config)


def frames_to_see(num_frames: int, config: AdjustmentConfig) -> Int[np.ndarray, " n"]:
    """The frames of a capture that are used to adjust its cameras, in order."""
    return np.unique(np.linspace(0, num_frames - 1, config.frames).round().astype(int))


def adjust_on_frames(
    keypoints: Keypoints2D, time: Float[np.ndarray, " T"], rig: CameraRig, config: AdjustmentConfig
) -> tuple[CameraRig, AdjustmentReport]:
    """`adjust_extrinsics` on the 2D joints of `frames_to_see`; `time` is each frame's fraction of the capture."""
    if len(rig) < 2:
        raise TooFewViewsError(
            f"one camera ({', '.join(rig.names)}) has no extrinsics to adjust; at least two are required"
        )
    poses = _seen_poses(keypoints, time, rig, config)
    learned = _largest_difference(poses, ~poses.held_out, config.poses)
    judged = torch.from_numpy(np.flatnonzero(poses.held_out))
    if len(learned) < 2 or len(judged) < 1:
        raise NoPersonError(
            f"only {len(poses.held_out)} poses are seen by two of the cameras {', '.join(rig.names)}, too few to "
            f"adjust the cameras: omit --adjust-extrinsics, or use longer footage"
        )
    adjusted = rig
    for gate in GATES:
        pixels, weights, sizes = poses.pixels[learned], poses.weights[learned], poses.sizes[learned]
        found = triangulate_robust(
            _ideal(pixels, adjusted),
            adjusted.projections,
            weights,
            threshold_px=gate * sizes,
            scale_px=config.expected_error * sizes,
            check=False,
        )
        weights = torch.where(found.inliers, weights, 0.0)
        adjusted, _, bundle = bundle_adjust(
            adjusted,
            _by_view(pixels),
            _by_view(weights),
            found.points.flatten(0, 1),
            scale_px=SQUARED * float(sizes[(weights > 0).any(dim=1, keepdim=True)].median()),
        )
        first = bundle if gate == GATES[0] else first
    before, after = (_mean_error(poses.pixels[judged], poses.weights[judged], r) for r in (rig, adjusted))
    moved = (adjusted.centres_world - rig.centres_world).norm(dim=-1)
    turned = _angle_degrees(adjusted.camera_from_world.rotation, rig.camera_from_world.rotation)
    report = AdjustmentReport(
        cameras=rig.names,
        kept=after < before,
        moved_m=tuple(moved.tolist()),
        turned_degrees=tuple(turned.tolist()),
        before_px=before,
        after_px=after,
        learned_before_px=first.rms_px_before,
        learned_after_px=bundle.rms_px_after,
        num_poses=len(learned),
        num_held_out=len(judged),
    )
    return adjusted if report.kept else rig, report


@dataclass(frozen=True, eq=False)
class _Poses:
    """People of single frames, in order of time."""

    pixels: Float[Tensor, "N J V 2"]
    """Pixels of the images."""
    weights: Float[Tensor, "N J V"]
    sizes: Float[Tensor, "N 1 V"]
    """Of the people in the images, pixels."""
    points: Float[Tensor, "N J 3"]
    held_out: Bool[np.ndarray, " N"]


def _seen_poses(
    keypoints: Keypoints2D, time: Float[np.ndarray, " T"], rig: CameraRig, config: AdjustmentConfig
) -> _Poses:
    """All people, also those that only two cameras see: often bystanders, who show other parts of the images.

    Without the bystander of the single-person demo, the adjusted cameras misfit that person by 5.9 px instead of 1.6.
    """
    seen = observe(keypoints, rig, config.min_confidence)
    if not seen.weight.any():
        raise NoPersonError(f"no person was found by any of the cameras {', '.join(rig.names)}")
    people = associate(seen, rig, config.expected_error, GATES[0])
    joints = [i for i, joint in enumerate(keypoints.skeleton.joints) if joint in BODY_JOINTS]
    joints = joints if len(joints) == len(BODY_JOINTS) else list(range(len(keypoints.skeleton.joints)))
    _, weights = seen.of(people.places)
    drawn = at_places(torch.from_numpy(keypoints.xy).double().movedim(0, 1), people.places).movedim(2, 3)
    frame, person = (people.places >= 0).any(dim=-1).nonzero(as_tuple=True)
    stretch = np.floor(time[frame.numpy()] * STRETCHES)
    return _Poses(
        pixels=drawn[frame, person][:, joints].nan_to_num(),
        weights=weights[frame, person][:, joints],
        sizes=seen.sizes(people.places)[frame, person][:, None],
        points=people.bodies[frame, person][:, joints],
        held_out=np.isin(stretch, HELD_OUT),
    )


def _largest_difference(poses: _Poses, allowed: Bool[np.ndarray, " N"], count: int) -> Int[Tensor, " n"]:
    """Farthest-point sampling: the most confident pose first, then always the one least similar to those taken."""
    candidates = torch.from_numpy(np.flatnonzero(allowed))
    if not len(candidates):
        return candidates
    points = poses.points[candidates]
    taken = [int(poses.weights[candidates].sum(dim=(1, 2)).argmax())]
    nearest = (points - points[taken[0]]).norm(dim=-1).mean(dim=-1)
    while len(taken) < min(count, len(candidates)):
        taken.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (points - points[taken[-1]]).norm(dim=-1).mean(dim=-1))
        nearest[taken] = -1.0
    return candidates[sorted(taken)]


def _mean_error(pixels: Float[Tensor, "N J V 2"], weights: Float[Tensor, "N J V"], rig: CameraRig) -> float:
    """Mean error of the weighted DLT from all views, without rejection, in pixels of the images."""
    found = triangulate(_ideal(pixels, rig), rig.projections, weights, check=False)
    projected, before = rig.project(found.points)
    error = (projected - pixels.movedim(2, 0)).norm(dim=-1)
    there = found.valid & before & (weights > 0).movedim(2, 0)
    return float(error[there].mean()) if there.any() else float("inf")


def _ideal(pixels: Float[Tensor, "N J V 2"], rig: CameraRig) -> Float[Tensor, "N J V 2"]:
    return rig.undistorted(pixels.movedim(2, 0).contiguous())[0].movedim(0, 2).contiguous()


def _by_view(values: Tensor) -> Tensor:
    """(N J V *rest) to (V N*J *rest), contiguous."""
    return values.flatten(0, 1).movedim(1, 0).contiguous()


def _angle_degrees(a: Float[Tensor, "V 3 3"], b: Float[Tensor, "V 3 3"]) -> Float[Tensor, " V"]:
    """Angle of the rotation between two orientations."""
    trace = torch.einsum("vij,vij->v", a, b)
    return torch.rad2deg(torch.arccos(((trace - 1.0) / 2.0).clamp(-1.0, 1.0)))
