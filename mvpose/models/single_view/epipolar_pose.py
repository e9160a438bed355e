"""EpipolarPose (Kocabas et al., CVPR 2019): a 3D pose network supervised by multi-view geometry, without ground truth.

A frozen network finds 2D joints in all views. Triangulation turns them into 3D labels (`make_labels`), which
`mvpose dataset label` stores as a table of samples; from these the network learns for each single view
(`volume_loss`). The teacher is frozen because labels that follow the trained network collapse to a point.

The cameras' poses may be known, or recovered up to scale by `mvpose.rigs.rig_recovery.recover_rig` from the same 2D
joints (RANSAC F, essential matrix, cheirality). Nothing below depends on the unit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mvpose.errors import TooFewViewsError
from mvpose.geometry.polynomial import triangulate_by_pairs
from mvpose.geometry.rigid import Rigid
from mvpose.geometry.triangulation import reprojection_errors
from mvpose.models.single_view.heads import back_project

NEAREST = 0.1
"""Minimum depth of a joint, as a share of the root's: no joint of the volume is behind the camera."""


@dataclass(frozen=True, eq=False)
class PoseLabels:
    """Poses on which the views agree, in the world and unit of the cameras' positions."""

    points_world: Float[Tensor, "F J 3"]
    """(0, 0, 0) if invalid."""
    valid: Bool[Tensor, "F J"]
    """Whether at least two views agree with the label."""


def make_labels(
    points: Float[Tensor, "F V J 2"],
    weights: Float[Tensor, "F V J"],
    intrinsics: Float[Tensor, "F V 3 3"],
    camera_from_world: Rigid,
    threshold_px: float = 15.0,
) -> PoseLabels:
    """2D joints of V views in F frames to 3D labels: polynomial triangulation of each pair, then the vector median.

    `points` are undistorted pixels of images or crops with these `intrinsics`; weight 0 means not found.
    `camera_from_world` holds V or F x V poses, in metres or up to scale. A label is valid if at least two views are
    within `threshold_px` of it. No gradient passes. TooFewViewsError for a single view.
    """
    if points.shape[1] < 2:
        raise TooFewViewsError(f"labels need at least two views, these 2D joints come from {points.shape[1]}")
    projections = (intrinsics @ camera_from_world.matrix().to(intrinsics))[:, None]
    pixels, weights = points.detach().transpose(1, 2), weights.detach().transpose(1, 2)
    found = triangulate_by_pairs(pixels, projections, weights)
    errors = reprojection_errors(found.points, pixels, projections)
    valid = found.valid & (((errors <= threshold_px) & (weights > 0)).sum(dim=-1) >= 2)
    return PoseLabels(torch.where(valid[..., None], found.points, torch.zeros_like(found.points)), valid)


def to_volume(
    points_camera: Float[Tensor, "n J 3"],
    intrinsics: Float[Tensor, "n 3 3"],
    size: tuple[int, int],
    root: Sequence[int],
) -> Float[Tensor, "n J 3"]:
    """Points of the camera frame to the network's normalised volume.

    x and y are those of the crop of (width, height) `size`, -0.5 to 0.5. z is the depth behind the root (the mean of
    these joints) at the crop's magnification at the root: f (Z - Z_root) / (Z_root width). For a crop that spans 2 m
    this is the paper's z / 2 m; it has no unit, so labels of unknown scale can be used. Points must be in front of the
    camera.
    """
    image = points_camera @ intrinsics.transpose(-1, -2)
    pixels = image[..., :2] / image[..., 2:]
    behind = points_camera[..., 2] / points_camera[:, list(root), 2].mean(dim=1, keepdim=True) - 1.0
    plane = (pixels + 0.5) / pixels.new_tensor(size) - 0.5
    return torch.cat([plane, (behind * magnification(intrinsics, size)[:, None])[..., None]], dim=-1)


def from_volume(
    volume_points: Float[Tensor, "n J 3"],
    intrinsics: Float[Tensor, "n 3 3"],
    size: tuple[int, int],
    root_depth: Float[Tensor, "n"],
) -> Float[Tensor, "n J 3"]:
    """The inverse of `to_volume`, given the depth of the root; points in the unit of that depth.

    A point nearer to the camera than a tenth of the root's depth is moved to it along its ray.
    """
    pixels = (volume_points[..., :2] + 0.5) * volume_points.new_tensor(size) - 0.5
    behind = volume_points[..., 2] / magnification(intrinsics, size)[:, None]
    return back_project(pixels, root_depth[:, None] * (1.0 + behind).clamp_min(NEAREST), intrinsics)


def volume_loss(
    predicted: Float[Tensor, "n J 3"], target: Float[Tensor, "n J 3"], valid: Bool[Tensor, "n J"]
) -> Float[Tensor, ""]:
    """Smooth L1 (beta 1) on the normalised volume, summed over valid joints, per sample (equation 2)."""
    target = torch.where(valid[..., None], target, torch.zeros_like(target))
    error = nn.functional.smooth_l1_loss(predicted, target, reduction="none").sum(dim=-1)
    return torch.where(valid, error, torch.zeros_like(error)).sum() / len(predicted)


def magnification(intrinsics: Float[Tensor, "n 3 3"], size: tuple[int, int]) -> Float[Tensor, "n"]:
    """Focal length over the width of the crop: the inverse of the crop's span at distance 1."""
    return (intrinsics[:, 0, 0] * intrinsics[:, 1, 1]).sqrt() / size[0]
