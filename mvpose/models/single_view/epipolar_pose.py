"""EpipolarPose (Kocabas et al., CVPR 2019): a 3D pose network supervised by multi-view geometry, without ground truth.

A frozen copy of the network finds 2D joints in all views. Triangulation turns them into 3D labels (`make_labels`), from
which the network learns for each single view. The copy must be frozen: labels that follow the trained network collapse
to a point.

The cameras' poses may be known up to scale only, as recovered by `mvpose.rigs.rig_recovery.recover_rig` from the same
2D joints (RANSAC F, essential matrix, cheirality) without extrinsics. Nothing below depends on the unit.
Labels can be made in the training loop (`EpipolarPose.loss`), or once by a batch job and stored.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mvpose import heatmaps as maps
from mvpose.errors import TooFewViewsError
from mvpose.geometry.polynomial import triangulate_by_pairs
from mvpose.geometry.rigid import Rigid
from mvpose.geometry.triangulation import reprojection_errors
from mvpose.models.backbones.simple_baselines import Backbone
from mvpose.models.single_view.heads import IntegralHead, back_project, integral_3d

PEAK_RADIUS_PX = 2.0


@dataclass(frozen=True, eq=False)
class PoseLabels:
    """Poses on which the views agree, in the unit of the cameras' positions. Invalid joints are (0, 0, 0)."""

    points_world: Float[Tensor, "F J 3"]
    points_camera: Float[Tensor, "F V J 3"]
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
    `camera_from_world` holds V poses, in metres or up to scale. A label is valid if at least two views are within
    `threshold_px` of it. No gradient passes. TooFewViewsError for a single view.
    """
    if points.shape[1] < 2:
        raise TooFewViewsError(f"labels need at least two views, these 2D joints come from {points.shape[1]}")
    projections = (intrinsics @ camera_from_world.matrix().to(intrinsics))[:, None]
    pixels, weights = points.detach().transpose(1, 2), weights.detach().transpose(1, 2)
    found = triangulate_by_pairs(pixels, projections, weights)
    errors = reprojection_errors(found.points, pixels, projections)
    valid = found.valid & (((errors <= threshold_px) & (weights > 0)).sum(dim=-1) >= 2)
    world = torch.where(valid[..., None], found.points, torch.zeros_like(found.points))
    pose = Rigid(camera_from_world.rotation.to(world), camera_from_world.translation.to(world))
    in_cameras = pose.apply(world[:, None])
    return PoseLabels(world, torch.where(valid[:, None, :, None], in_cameras, torch.zeros_like(in_cameras)), valid)


def to_volume(
    points_camera: Float[Tensor, "n J 3"], intrinsics: Float[Tensor, "n 3 3"], size: tuple[int, int], root: int
) -> Float[Tensor, "n J 3"]:
    """Points of the camera frame to the network's normalised volume.

    x and y are those of the crop of (width, height) `size`, -0.5 to 0.5. z is the depth behind the root at the
    crop's magnification at the root: f (Z - Z_root) / (Z_root width). For a crop that spans 2 m this is the paper's
    z / 2 m; it has no unit, so labels of unknown scale can be used. Points must be in front of the camera.
    """
    image = points_camera @ intrinsics.transpose(-1, -2)
    pixels = image[..., :2] / image[..., 2:]
    behind = points_camera[..., 2] / points_camera[:, root : root + 1, 2] - 1.0
    plane = (pixels + 0.5) / pixels.new_tensor(size) - 0.5
    return torch.cat([plane, (behind * _magnification(intrinsics, size)[:, None])[..., None]], dim=-1)


def from_volume(
    volume_points: Float[Tensor, "n J 3"],
    intrinsics: Float[Tensor, "n 3 3"],
    size: tuple[int, int],
    root_depth: Float[Tensor, "n"],
) -> Float[Tensor, "n J 3"]:
    """The inverse of `to_volume`, given the depth of the root; points in the unit of that depth.

    ValueError if a point would be behind the camera.
    """
    pixels = (volume_points[..., :2] + 0.5) * volume_points.new_tensor(size) - 0.5
    behind = volume_points[..., 2] / _magnification(intrinsics, size)[:, None]
    return back_project(pixels, root_depth[:, None] * (1.0 + behind), intrinsics)


def volume_loss(
    predicted: Float[Tensor, "n J 3"], target: Float[Tensor, "n J 3"], valid: Bool[Tensor, "n J"]
) -> Float[Tensor, ""]:
    """Smooth L1 (beta 1) on the normalised volume, summed over valid joints, per sample (equation 2)."""
    target = torch.where(valid[..., None], target, torch.zeros_like(target))
    error = nn.functional.smooth_l1_loss(predicted, target, reduction="none").sum(dim=-1)
    return torch.where(valid, error, torch.zeros_like(error)).sum() / len(predicted)


class IntegralPose(nn.Module):
    """Backbone, three deconvolutions and J volumes; the mean of each is a joint."""

    def __init__(self, backbone: Backbone, num_joints: int, depth: int = 64, width: int = 256) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = IntegralHead(backbone.channels, num_joints, depth, width)

    def forward(self, images: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n J 3"]:
        """Map normalised images of one person to joints in the normalised volume."""
        return self.head(self.backbone(images))

    def joints_2d(self, images: Float[Tensor, "n 3 H W"]) -> tuple[Float[Tensor, "n J 2"], Float[Tensor, "n J"]]:
        """The same joints in pixels of the images, and the concentration of each in them (0..1)."""
        volumes = self.head.volumes(self.backbone(images))
        plane = torch.softmax(volumes.flatten(2).float(), dim=-1).unflatten(-1, volumes.shape[2:]).sum(dim=2)
        size = images.new_tensor([images.shape[-1], images.shape[-2]])
        pixels = (integral_3d(volumes)[..., :2] + 0.5) * size - 0.5
        return pixels, maps.concentration(plane, maps.expectation(plane), PEAK_RADIUS_PX)


class EpipolarPose(nn.Module):
    """The trained network, and its frozen copy that finds the 2D joints for the labels."""

    def __init__(self, pretrained: IntegralPose, root: int, min_confidence: float = 0.0) -> None:
        """`pretrained` already finds 2D joints; its depth is not used.

        Joints below `min_confidence` are not triangulated. The maps of an integral network can be broad and
        their means correct (2 px off at 0.09), so by default all are: agreement between views decides.
        """
        super().__init__()
        self.pupil, self.frozen = pretrained, copy.deepcopy(pretrained).requires_grad_(False)
        self.root, self.min_confidence = root, min_confidence
        self.frozen.eval()

    def train(self, mode: bool = True) -> EpipolarPose:
        """Like any module's `train`, but the frozen copy stays in evaluation mode."""
        super().train(mode)
        self.frozen.eval()
        return self

    def forward(self, images: Float[Tensor, "n 3 H W"]) -> Float[Tensor, "n J 3"]:
        """Joints in the normalised volume, from single images."""
        return self.pupil(images)

    def loss(
        self, images: Float[Tensor, "F V 3 H W"], intrinsics: Float[Tensor, "F V 3 3"], camera_from_world: Rigid
    ) -> Float[Tensor, ""]:
        """Loss of each view against labels from the frozen copy's 2D joints in all views.

        `images` are undistorted crops with these `intrinsics`. A frame whose root has no label is ignored.
        """
        frames, views = images.shape[:2]
        size = images.shape[-1], images.shape[-2]
        flat = images.flatten(0, 1)
        with torch.no_grad():
            points, confidence = self.frozen.joints_2d(flat)
            weights = torch.where(confidence >= self.min_confidence, confidence, torch.zeros_like(confidence))
            found = make_labels(
                points.unflatten(0, (frames, views)),
                weights.unflatten(0, (frames, views)),
                intrinsics,
                camera_from_world,
            )
            target, valid = volume_targets(found, intrinsics, size, self.root)
        return volume_loss(self.pupil(flat), target.flatten(0, 1), valid.flatten(0, 1))


def volume_targets(
    labels: PoseLabels, intrinsics: Float[Tensor, "F V 3 3"], size: tuple[int, int], root: int
) -> tuple[Float[Tensor, "F V J 3"], Bool[Tensor, "F V J"]]:
    """Labels in each view's normalised volume, and their mask: joint and root valid and in front of the camera."""
    depth = labels.points_camera[..., 2]
    valid = labels.valid[:, None] & labels.valid[:, None, root : root + 1] & (depth > 0) & (depth[..., root, None] > 0)
    somewhere = labels.points_camera.new_tensor([0.0, 0.0, 1.0])
    points = torch.where(valid[..., None], labels.points_camera, somewhere)
    volume = to_volume(points.flatten(0, 1), intrinsics.flatten(0, 1), size, root)
    return volume.unflatten(0, depth.shape[:2]), valid


def _magnification(intrinsics: Float[Tensor, "n 3 3"], size: tuple[int, int]) -> Float[Tensor, "n"]:
    """Focal length over the width of the crop: the inverse of the crop's span at distance 1."""
    return (intrinsics[:, 0, 0] * intrinsics[:, 1, 1]).sqrt() / size[0]
