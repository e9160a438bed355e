"""Learnable algebraic triangulation (Iskakov et al. 2019, section 3.1), and its RANSAC baseline."""

from __future__ import annotations

from dataclasses import replace

from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from mvpose.geometry.robust import triangulate_robust
from mvpose.geometry.triangulation import DltMethod
from mvpose.models.backbones.simple_baselines import Backbone, HeatmapHead
from mvpose.models.fusion.canonical_fusion import Baseline
from mvpose.models.multiview import (
    MultiViewPrediction,
    Views,
    lift,
    open_views,
    read_heatmaps,
    triangulated,
)
from mvpose.models.network_settings import AlgebraicConfig, RansacConfig


class AlgebraicTriangulation(nn.Module):
    """Soft-argmax points and learned confidences per view and joint, then weighted DLT."""

    def __init__(self, backbone: Backbone, num_joints: int, config: AlgebraicConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.head = HeatmapHead(backbone.channels, num_joints, config.head_width)
        self.confidence = confidence_head(backbone.channels, num_joints, config.confidence_widths)

    def forward(
        self,
        crops: Float[Tensor, "B V 3 H W"] | UInt8[Tensor, "B V 3 H W"],
        projections: Float[Tensor, "B V 3 4"],
        present: Bool[Tensor, "B V"] | None = None,
        keep_maps: bool = False,
    ) -> MultiViewPrediction:
        """See `mvpose.models.multiview`."""
        views = open_views(crops, projections, present, self.config.extent)
        return self.from_features(self.backbone(views.images.flatten(0, 1)), views, keep_maps)[0]

    def from_features(
        self, features: Float[Tensor, "BV C h w"], views: Views, keep_maps: bool
    ) -> tuple[MultiViewPrediction, Float[Tensor, "B V W a b"]]:
        """The prediction from a backbone's features, and the upsampled features behind its heatmaps."""
        if min(features.shape[-2:]) < 4:
            raise ValueError(f"the algebraic method's confidences need crops of 128 pixels or more, not {views.size}")
        batch = views.images.shape[:2]
        fine, heatmaps = self.head(features)
        weights = view_weights(self.confidence(features).unflatten(0, batch), views.present, self.config.floor)
        prediction = triangulated(
            heatmaps.unflatten(0, batch), views, self.config.decoding, weights, keep_maps=keep_maps
        )
        return prediction, fine.unflatten(0, batch)


class RansacTriangulation(nn.Module):
    """Classical baseline: maximum of every view's map, consensus over view pairs, Huber refinement.

    It has no learned parameters, and its outputs carry no gradient: the per-view network is trained by its maps alone
    (`ObjectiveConfig.heatmaps`), here or as a Baseline.
    """

    def __init__(self, network: Baseline, config: RansacConfig) -> None:
        super().__init__()
        self.network = network
        self.config = config

    def forward(
        self,
        crops: Float[Tensor, "B V 3 H W"] | UInt8[Tensor, "B V 3 H W"],
        projections: Float[Tensor, "B V 3 4"],
        present: Bool[Tensor, "B V"] | None = None,
        keep_maps: bool = False,
    ) -> MultiViewPrediction:
        """See `mvpose.models.multiview`. The views used are the inliers."""
        views = open_views(crops, projections, present, self.network.config.extent)
        heatmaps = self.network.heatmaps(views)
        decoding = replace(self.network.config.decoding, kind="argmax")
        points, confidence = read_heatmaps(heatmaps.detach(), views.size, decoding)
        return consensus(points, confidence, views, self.config, heatmaps if keep_maps else None)


def consensus(
    points: Float[Tensor, "B V J 2"],
    confidence: Float[Tensor, "B V J"],
    views: Views,
    config: RansacConfig,
    heatmaps: Float[Tensor, "B V J h w"] | None = None,
) -> MultiViewPrediction:
    """Robust triangulation of 2D points (pixels of the crops), all samples and joints in one batch."""
    side = max(views.size)
    seen = views.present[..., None].expand(confidence.shape)
    if points.shape[1] < 2:
        joints, valid = lift(points, confidence, views, DltMethod.NORMAL)
        used = seen & False
    else:
        found = triangulate_robust(
            points.to(views.projections).transpose(1, 2),
            views.projections[:, None],
            mask=seen.transpose(1, 2),
            threshold_px=config.threshold * side,
            scale_px=config.huber * side,
            rounds=config.rounds,
            check=False,
        )
        joints, valid = found.points, found.valid
        used = (found.inliers & valid[..., None]).transpose(1, 2)
    return MultiViewPrediction(
        joints=joints,
        valid=valid,
        confidence=(confidence * used).sum(dim=1) / used.sum(dim=1).clamp_min(1),
        joints_2d=points,
        confidence_2d=confidence * seen,
        views_used=used,
        heatmaps=heatmaps,
    )


def confidence_head(channels: int, outputs: int, widths: tuple[int, int]) -> nn.Sequential:
    """A number in 0..1 per output and image, from features of at least 4 x 4."""
    wide, narrow = widths
    return nn.Sequential(
        nn.Conv2d(channels, wide, 3, padding=1),
        nn.BatchNorm2d(wide),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(wide, narrow, 3, padding=1),
        nn.BatchNorm2d(narrow),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(narrow, wide),
        nn.ReLU(),
        nn.Linear(wide, narrow),
        nn.ReLU(),
        nn.Linear(narrow, outputs),
        nn.Sigmoid(),
    )


def view_weights(
    confidence: Float[Tensor, "B V J"], present: Bool[Tensor, "B V"], floor: float
) -> Float[Tensor, "B V J"]:
    """Confidences scaled to sum 1 over the present views, plus `floor`; 0 for an absent view.

    A joint that a single view trusts has an answer only by a floor of about 0.01 or more; by the paper's 1e-5, the
    shares of the other views vanish when they are squared.
    """
    seen = confidence * present[..., None]
    return (seen / seen.sum(dim=1, keepdim=True).clamp_min(1e-12) + floor) * present[..., None]
