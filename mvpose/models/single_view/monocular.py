"""Networks that take one image of a person, with the call of `mvpose.models.multiview` and V = 1.

The crop's projection matrix K [R | t] gives the intrinsics and the camera's axes. The head predicts each joint's pixel
and its depth behind the root at the crop's magnification (`epipolar_pose.to_volume`): a pose up to scale. One image
does not determine the scale, so a rule sets it: the network also estimates how many metres the crop spans at the root,
which follows from the pose and the size of the people of the training set (`ObjectiveConfig.span`). Without 3D labels
the span stays at `MonocularConfig.span_m`. The root's depth is span x focal length / width of the crop. A person 5 %
taller than those of the training set is therefore placed 5 % too near, and 5 % too small.
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

EXTENT_M = 2.0
"""Depth in metres of the volume of `ray_volume`."""
PEAK_RADIUS_PX = 2.0
"""Radius around the point, in pixels of the map, within which probability counts towards its confidence."""


class Monocular(nn.Module):
    """Backbone and head to a pose in the camera's axes, placed by the rule above; then a refinement unit, if any.

    With a refinement unit, backbone and head are frozen: it learns to correct their poses (EpipolarPose, section 3.3).
    """

    def __init__(self, backbone: Backbone, joints: int, config: MonocularConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        # Not `head`: its volumes are not the maps that other methods load from a saved network.
        self.decoder = _head(backbone.channels, joints, config)
        self.log_span = nn.Linear(backbone.channels, 1)
        nn.init.zeros_(self.log_span.weight)
        nn.init.constant_(self.log_span.bias, math.log(config.span_m))
        self.unit = RefinementUnit(joints, config.refinement, config.dropout) if config.refinement else None
        if self.unit is not None:
            self.backbone.freeze()
            self.decoder.requires_grad_(False)
            self.log_span.requires_grad_(False)

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
        views = open_views(crops, projections, present, self.config.span_m)
        intrinsics, camera_from_world = pinhole_of(views.projections[:, 0])
        features = self.backbone(views.images[:, 0])
        span_m = self.log_span(features.mean(dim=(-2, -1)))[:, 0].exp()
        depth = span_m * magnification(intrinsics, views.size)
        points, plane = self._volume(features, intrinsics, views.size, depth.detach())
        pose = from_volume(points, intrinsics, views.size, depth)
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
        kept = CameraPose(points, stages[-1], span_m, intrinsics, camera_from_world)
        return replace(prediction, camera_pose=kept, coarse=coarse)

    def _volume(
        self,
        features: Float[Tensor, "B c h w"],
        intrinsics: Float[Tensor, "B 3 3"],
        size: tuple[int, int],
        depth: Float[Tensor, "B"],
    ) -> tuple[Float[Tensor, "B J 3"], Float[Tensor, "B J _ _"] | None]:
        """The head's answer; a volume along the rays is about the root's `depth`, and wholly before the camera."""
        if not isinstance(self.decoder, RayDecoder):
            return self.decoder(features)
        points, plane = self.decoder(features, intrinsics, size, depth.clamp_min(0.6 * EXTENT_M))
        return to_volume(points, intrinsics, size, self.config.root), plane

    def _refined(self, pose: Float[Tensor, "B J 3"], unit: RefinementUnit) -> list[Float[Tensor, "B J 3"]]:
        """The poses of both stages, with the root where it was."""
        root = list(self.config.root)
        place = pose[:, root].mean(dim=1, keepdim=True)
        return [each - each[:, root].mean(dim=1, keepdim=True) + place for each in unit(pose - place)]


def _head(channels: int, joints: int, config: MonocularConfig) -> nn.Module:
    match config.head:
        case "integral":
            return IntegralHead(channels, joints, config.depth, config.width, config.sharpness)
        case "regression":
            return RegressionHead(channels, joints)
        case "two_and_half_d":
            return DepthHead(channels, joints, config.width, config.sharpness)
        case "volume":
            return ReshapeDecoder(channels, joints, config.depth // 2, config.width, config.sharpness)
        case "ray_volume":
            return RayDecoder(channels, joints, config.depth // 2, config.width, EXTENT_M, config.sharpness)


def _concentration(plane: Float[Tensor, "B J h w"]) -> Float[Tensor, "B J"]:
    fixed = plane.detach()
    return maps.concentration(fixed, maps.expectation(fixed), PEAK_RADIUS_PX)
