"""Networks that take one image of a person, with the call of `mvpose.models.multiview` and V = 1.

The crop's projection matrix K [R | t] gives the intrinsics and the camera's axes. The head predicts each joint's pixel
and its depth behind the root at the crop's magnification (`epipolar_pose.to_volume`): a pose up to scale. One image
does not determine the scale, so a rule sets it: everybody's bones have the same sum of lengths in metres. It is learned
from the training set (`ObjectiveConfig.size`) and stored with the weights; without 3D labels it stays at
`MonocularConfig.size_m`. The root's depth follows from the pose's size in the image. A person 5 % taller than those of
the training set is therefore placed 5 % too near.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from mvpose import heatmaps as maps
from mvpose.geometry.camera import pinhole_of
from mvpose.models.backbones.simple_baselines import Backbone
from mvpose.models.multiview import CameraPose, MultiViewPrediction, open_views
from mvpose.models.network_settings import MonocularConfig
from mvpose.models.single_view.epipolar_pose import from_volume, magnification, to_volume
from mvpose.models.single_view.heads import DepthHead, IntegralHead, RayDecoder, RegressionHead, ReshapeDecoder
from mvpose.models.single_view.refinement_unit import RefinementUnit
from mvpose.skeleton import Skeleton

EXTENT_M = 2.0
"""Metres that a crop is taken to span at the person, for the canonical frame and the position of `ray_volume`."""
PEAK_RADIUS_PX = 2.0
"""Radius around the point, in pixels of the map, within which probability counts towards its confidence."""
SMALLEST = 0.2
"""Minimum sum of the bones' lengths of a pose, in widths of the crop. A person in a crop has about 2; an untrained
network puts all joints into one point, which no depth makes a person."""


class Monocular(nn.Module):
    """Backbone and head to a pose in the camera's axes, placed by the rule above; then a refinement unit, if any.

    With a refinement unit, backbone and head are frozen: it learns to correct their poses (EpipolarPose, section 3.3).
    """

    def __init__(self, backbone: Backbone, skeleton: Skeleton, config: MonocularConfig) -> None:
        super().__init__()
        joints = len(skeleton.joints)
        self.config = config
        self.backbone = backbone
        # Not `head`: its volumes are not the maps that other methods load from a saved network.
        self.decoder = _head(backbone.channels, joints, config)
        self.log_size = nn.Parameter(torch.tensor(math.log(config.size_m)))
        self.bones = skeleton.bone_indices
        self.unit = RefinementUnit(joints, config.refinement, config.dropout) if config.refinement else None
        if self.unit is not None:
            self.backbone.freeze()
            self.decoder.requires_grad_(False)
            self.log_size.requires_grad_(False)

    def train(self, mode: bool = True) -> Monocular:
        """Like any module's `train`, but what a refinement unit corrects stays in evaluation mode."""
        super().train(mode)
        if self.unit is not None:
            self.backbone.eval()
            self.decoder.eval()
        return self

    def forward(
        self,
        crops: Float[Tensor, "B V 3 H W"] | UInt8[Tensor, "B V 3 H W"],
        projections: Float[Tensor, "B V 3 4"],
        present: Bool[Tensor, "B V"] | None = None,
        keep_maps: bool = False,
    ) -> MultiViewPrediction:
        """See `mvpose.models.multiview`. ValueError for more than one view.

        The confidence of a regression is 1: it has no maps to judge by. `joints_2d` are those of the head, before
        refinement; `camera_pose` and, with a refinement unit, its first stage (`coarse`) are kept on request.
        """
        if crops.shape[1] != 1:
            raise ValueError(f"a monocular network takes one view, not {crops.shape[1]}")
        views = open_views(crops, projections, present, EXTENT_M)
        intrinsics, camera_from_world = pinhole_of(views.projections[:, 0])
        points, plane = self._volume(views.images[:, 0], intrinsics, views.size)
        unplaced = from_volume(points, intrinsics, views.size, torch.ones_like(points[:, 0, 0]))
        size_m = self.log_size.exp()
        depth = size_m / self._reach(unplaced, intrinsics, views.size).detach()
        pose = unplaced * depth[:, None, None]
        stages = [pose] if self.unit is None else self._refined(pose, self.unit)
        confidence = torch.ones_like(points[..., 0]) if plane is None else _concentration(plane)
        seen = views.present.expand(-1, points.shape[1])
        prediction = MultiViewPrediction(
            joints=camera_from_world.inverse().apply(stages[-1]),
            valid=seen,
            confidence=confidence * seen,
            joints_2d=((points[..., :2] + 0.5) * points.new_tensor(views.size) - 0.5)[:, None],
            confidence_2d=(confidence * seen)[:, None],
            views_used=seen[:, None],
        )
        if not keep_maps:
            return prediction
        coarse = replace(prediction, joints=camera_from_world.inverse().apply(stages[0])) if self.unit else None
        kept = CameraPose(points, stages[-1], size_m, intrinsics, camera_from_world)
        return replace(prediction, camera_pose=kept, coarse=coarse)

    def _volume(
        self, images: Float[Tensor, "B 3 H W"], intrinsics: Float[Tensor, "B 3 3"], size: tuple[int, int]
    ) -> tuple[Float[Tensor, "B J 3"], Float[Tensor, "B J _ _"] | None]:
        features = self.backbone(images)
        if not isinstance(self.decoder, RayDecoder):
            return self.decoder(features)
        # Wider than a right angle, a crop of the assumed span would reach behind the camera.
        depth = (EXTENT_M * magnification(intrinsics, size)).clamp_min(0.6 * EXTENT_M)
        points, plane = self.decoder(features, intrinsics, size, depth)
        return to_volume(points, intrinsics, size, self.config.root), plane

    def _reach(
        self, unplaced: Float[Tensor, "B J 3"], intrinsics: Float[Tensor, "B 3 3"], size: tuple[int, int]
    ) -> Float[Tensor, "B"]:
        """Sum of the bones' lengths of a pose whose root has depth 1."""
        ends = torch.tensor(self.bones, device=unplaced.device)
        lengths = (unplaced[:, ends[:, 0]] - unplaced[:, ends[:, 1]]).norm(dim=-1).sum(dim=-1)
        return torch.maximum(lengths, SMALLEST / magnification(intrinsics, size))

    def _refined(self, pose: Float[Tensor, "B J 3"], unit: RefinementUnit) -> list[Float[Tensor, "B J 3"]]:
        """The poses of both stages, with the root where it was."""
        root = list(self.config.root)
        place = pose[:, root].mean(dim=1, keepdim=True)
        return [each - each[:, root].mean(dim=1, keepdim=True) + place for each in unit(pose - place)]


def _head(channels: int, joints: int, config: MonocularConfig) -> nn.Module:
    match config.head:
        case "integral":
            return IntegralHead(channels, joints, config.depth, config.width)
        case "regression":
            return RegressionHead(channels, joints)
        case "two_and_half_d":
            return DepthHead(channels, joints, config.width)
        case "volume":
            return ReshapeDecoder(channels, joints, config.depth // 2, config.width)
        case "ray_volume":
            return RayDecoder(channels, joints, config.depth // 2, config.width, EXTENT_M)


def _concentration(plane: Float[Tensor, "B J h w"]) -> Float[Tensor, "B J"]:
    fixed = plane.detach()
    return maps.concentration(fixed, maps.expectation(fixed), PEAK_RADIUS_PX)
