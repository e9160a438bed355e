"""Recover camera poses from body joints alone: no calibration object, known intrinsics, result up to scale.

The joints of one frame are nearly coplanar and too few for a fundamental matrix. Pooled over the frames of a static
rig, they fill the room. Pairwise poses (RANSAC, essential matrix, cheirality) are chained camera by camera, with the
scale of each from points already known; then everything is adjusted together.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mvpose.errors import CalibrationError
from mvpose.geometry.camera import CameraRig
from mvpose.geometry.epipolar import essential_from_fundamental, fundamental_by_consensus, relative_pose
from mvpose.geometry.rigid import Rigid
from mvpose.geometry.robust import RobustTriangulation, triangulate_robust
from mvpose.rigs.bundle_adjustment import BundleReport, bundle_adjust

# Eight points determine F; with fewer agreeing points than this, the result is unreliable.
MIN_COMMON = 30


@dataclass(frozen=True, eq=False)
class RigRecovery:
    """The rig in the frame of its first camera; the unit of length is the mean distance of the others from it.

    `points` are zero where not `valid`. `links` names each camera placed after the first two and its reference camera.
    Lengths in `report` are in units of the first pair's baseline.
    """

    rig: CameraRig
    points: Float[Tensor, "N 3"]
    valid: Bool[Tensor, " N"]
    report: BundleReport
    links: tuple[tuple[str, str], ...]


@dataclass(frozen=True, eq=False)
class _Pair:
    """Pose of the right camera relative to the left one, translation of length 1, and the agreeing joints."""

    left: int
    right: int
    right_from_left: Rigid
    agreeing: Bool[Tensor, " N"]


def recover_rig(
    rig: CameraRig,
    pixels: Float[Tensor, "V N 2"],
    weights: Float[Tensor, "V N"],
    *,
    threshold_px: float = 5.0,
    seed: int = 0,
) -> RigRecovery:
    """Poses of V static cameras of known focal length, centre and lens from N joints pooled over frames and people.

    The poses in `rig` are ignored. `pixels` are those of the images; weight 0 means not seen. Column n is one joint of
    one person at one time in every view. Raises CalibrationError if the cameras are not connected, that is, if a camera
    shares fewer than 30 agreeing joints with each of the others.
    """
    rig = rig.to(torch.float64)
    seen = weights > 0
    ideal, exists = rig.undistorted(torch.where(seen[..., None], pixels.double(), rig.centre[:, None]))
    seen = seen & exists
    pairs = _related_pairs(rig, ideal, seen, threshold_px, seed)
    pose, links = _chained(rig, ideal, seen, pairs, threshold_px)
    placed = replace(rig, camera_from_world=pose)
    found = _points(placed, ideal, seen, threshold_px)
    used = found.inliers.T & found.valid
    adjusted, points, report = bundle_adjust(placed, pixels.double(), used.double(), found.points)
    return _normalised(adjusted, points, found.valid, report, links)


def _related_pairs(rig: CameraRig, ideal: Tensor, seen: Tensor, threshold_px: float, seed: int) -> list[_Pair]:
    """The pairs of cameras with enough agreeing joints, most agreement first."""
    plane = (ideal - rig.centre[:, None]) / rig.focal[:, None]
    pairs = []
    for i, j in itertools.combinations(range(len(rig)), 2):
        common = (seen[i] & seen[j]).nonzero()[:, 0]
        if len(common) < MIN_COMMON:
            continue
        fit = fundamental_by_consensus(ideal[i, common], ideal[j, common], threshold_px=threshold_px, seed=seed)
        essential = essential_from_fundamental(fit.fundamental, rig.intrinsics[i], rig.intrinsics[j])
        kept = common[fit.inliers]
        if len(kept) < MIN_COMMON:
            continue
        relative = relative_pose(essential, plane[i, kept], plane[j, kept])
        agreeing = torch.zeros_like(seen[0])
        agreeing[kept[relative.in_front]] = True
        if int(agreeing.sum()) >= MIN_COMMON:
            pairs.append(_Pair(i, j, relative.right_from_left, agreeing))
    return sorted(pairs, key=lambda pair: -int(pair.agreeing.sum()))


def _chained(
    rig: CameraRig, ideal: Tensor, seen: Tensor, pairs: list[_Pair], threshold_px: float
) -> tuple[Rigid, tuple[tuple[str, str], ...]]:
    """All cameras in the frame of one camera of the best pair; the baseline of that pair is the unit."""
    if not pairs:
        raise CalibrationError(f"no two of the cameras {list(rig.names)} share {MIN_COMMON} agreeing joints")
    first = pairs[0]
    poses = {first.left: Rigid.identity(), first.right: first.right_from_left}
    links = []
    while len(poses) < len(rig):
        link = next((p for p in pairs if (p.left in poses) != (p.right in poses)), None)
        if link is None:
            apart = [name for i, name in enumerate(rig.names) if i not in poses]
            raise CalibrationError(
                f"cameras {apart} share fewer than {MIN_COMMON} agreeing joints with each of the others; "
                "use more frames, or footage in which a person crosses the view of all cameras"
            )
        if link.left in poses:
            old, new, new_from_old = link.left, link.right, link.right_from_left
        else:
            inverse = link.right_from_left.inverse()
            old, new = link.right, link.left
            new_from_old = Rigid(inverse.rotation, inverse.translation / inverse.translation.norm())
        known = sorted(poses)
        sub = replace(rig.select(tuple(rig.names[i] for i in known)), camera_from_world=_stacked(poses, known))
        found = _points(sub, ideal[known], seen[known], threshold_px)
        usable = found.valid & link.agreeing
        scale = _baseline(poses[old].apply(found.points[usable]), new_from_old, rig, new, ideal[new, usable])
        poses[new] = Rigid(new_from_old.rotation, scale * new_from_old.translation) @ poses[old]
        links.append((rig.names[new], rig.names[old]))
    return _stacked(poses, list(range(len(rig)))), tuple(links)


def _baseline(points: Tensor, new_from_old: Rigid, rig: CameraRig, camera: int, ideal: Tensor) -> Tensor:
    """Length of the translation that maps known points onto their pixels: the median over the points' estimates.

    x ~ R X + s t, so x cross (R X) + s (x cross t) = 0, solved for s for each point.
    """
    if len(points) == 0:
        raise CalibrationError(f"camera {rig.names[camera]} sees no joint that two placed cameras see; use more frames")
    plane = (ideal - rig.centre[camera]) / rig.focal[camera]
    ray = torch.cat([plane, torch.ones_like(plane[:, :1])], dim=-1)
    turned = points @ new_from_old.rotation.T
    along = torch.linalg.cross(ray, new_from_old.translation.expand_as(ray))
    across = torch.linalg.cross(ray, turned)
    votes = -(across * along).sum(dim=-1) / along.square().sum(dim=-1).clamp_min(1e-12)
    return votes.median()


def _points(rig: CameraRig, ideal: Tensor, seen: Tensor, threshold_px: float) -> RobustTriangulation:
    return triangulate_robust(
        ideal.transpose(0, 1), rig.projections, mask=seen.T, threshold_px=4 * threshold_px, min_angle=0.02
    )


def _stacked(poses: dict[int, Rigid], order: list[int]) -> Rigid:
    rotation = torch.stack([poses[i].rotation for i in order])
    return Rigid(rotation, torch.stack([poses[i].translation for i in order]))


def _normalised(
    rig: CameraRig, points: Tensor, valid: Tensor, report: BundleReport, links: tuple[tuple[str, str], ...]
) -> RigRecovery:
    """First camera at the origin, mean distance of the others from it 1."""
    world_from_first = rig.select(rig.names[:1]).camera_from_world.inverse()
    first_from_world = Rigid(rig.camera_from_world.rotation[0], rig.camera_from_world.translation[0])
    pose = rig.camera_from_world @ Rigid(world_from_first.rotation[0], world_from_first.translation[0])
    size = pose.inverse().translation[1:].norm(dim=-1).mean()
    scaled = replace(rig, camera_from_world=Rigid(pose.rotation, pose.translation / size))
    moved = first_from_world.apply(points) / size
    return RigRecovery(scaled, torch.where(valid[:, None], moved, 0.0), valid, report, links)
