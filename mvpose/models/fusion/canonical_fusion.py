"""Baseline, Fusion and Canonical Fusion of Remelli et al. 2020: per-view heatmaps, then triangulation.

They differ in the step between encoder and decoder: nothing; a mix of all views without cameras; or a mix in a
canonical frame, to and from which the cameras transform features (FTL). The defaults are the paper's sizes, agreed
by its re-implementations: 2048 -> 300 channels = 100 points, 400 = 100 homogeneous points, two 1x1 convolutions.

The feature transform layer (FTL, section 3.2 of the paper) treats the channels of a pixel as vectors of k consecutive
numbers and multiplies each by the same matrix. It has no parameters and no division: depth stays latent. The paper
writes P^-1 for a 3x4 matrix without defining it. Here it is the right inverse P^T (P P^T)^-1, so that FTL(P) undoes
FTL(P^-1) exactly; in the other order a point moves along its ray towards the camera, never across it. Matrices are
those of the canonical frame, whose numbers are near 1.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from mvpose.geometry.conditioning import inverse_3x3
from mvpose.models.backbones.simple_baselines import Backbone, HeatmapHead
from mvpose.models.fusion.fusion_blocks import Attention, Concatenation, Pooling, pointwise
from mvpose.models.multiview import MultiViewPrediction, Views, open_views, triangulated
from mvpose.models.network_settings import FusionConfig


def feature_transform(
    features: Float[Tensor, "*b C h w"], matrix: Float[Tensor, "*b m k"]
) -> Float[Tensor, "*b D h w"]:
    """FTL(features | matrix): C channels, C a multiple of k, to D = C / k * m channels."""
    k = matrix.shape[-1]
    if features.shape[-3] % k:
        raise ValueError(f"{features.shape[-3]} channels are not a multiple of {k}, the numbers per point")
    points = features.unflatten(-3, (-1, k))
    return torch.einsum("...mk,...gkhw->...gmhw", matrix.to(features), points).flatten(-4, -3)


def right_inverse(projections: Float[Tensor, "*b 3 4"]) -> Float[Tensor, "*b 4 3"]:
    """P^T (P P^T)^-1: the Moore-Penrose inverse of matrices of rank 3, with `P right_inverse(P) = I`.

    Products are written out, because autocast would round those of `@` to bfloat16.
    """
    gram = (projections[..., :, None, :] * projections[..., None, :, :]).sum(dim=-1)
    return (projections[..., :, :, None] * inverse_3x3(gram)[..., :, None, :]).sum(dim=-3)


class Baseline(nn.Module):
    """Independent views: encode, decode, triangulate."""

    def __init__(self, backbone: Backbone, num_joints: int, config: FusionConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.head = HeatmapHead(backbone.channels, num_joints, config.head_width)

    def forward(
        self,
        crops: Float[Tensor, "B V 3 H W"] | UInt8[Tensor, "B V 3 H W"],
        projections: Float[Tensor, "B V 3 4"],
        present: Bool[Tensor, "B V"] | None = None,
        keep_maps: bool = False,
    ) -> MultiViewPrediction:
        """See `mvpose.models.multiview`."""
        views = open_views(crops, projections, present, self.config.extent)
        return triangulated(self.heatmaps(views), views, self.config.decoding, keep_maps=keep_maps)

    def heatmaps(self, views: Views) -> Float[Tensor, "B V J h w"]:
        """Raw heatmaps of every view."""
        features = self.backbone(views.images.flatten(0, 1))
        return self.head(features)[1].unflatten(0, views.images.shape[:2])


class _Fusing(nn.Module):
    """Common steps of Fusion and Canonical Fusion: reduce, exchange between views, expand, decode, triangulate."""

    def __init__(self, backbone: Backbone, num_joints: int, config: FusionConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.reduce = pointwise(backbone.channels, 3 * config.points)
        self.expand = pointwise(3 * config.points, backbone.channels)
        self.head = HeatmapHead(backbone.channels, num_joints, config.head_width)

    def forward(
        self,
        crops: Float[Tensor, "B V 3 H W"] | UInt8[Tensor, "B V 3 H W"],
        projections: Float[Tensor, "B V 3 4"],
        present: Bool[Tensor, "B V"] | None = None,
        keep_maps: bool = False,
    ) -> MultiViewPrediction:
        """See `mvpose.models.multiview`. Samples that the fusion does not support have no valid joint."""
        views = open_views(crops, projections, present, self.config.extent)
        heatmaps, served = self.heatmaps(views)
        weights = served[:, None, None].expand(heatmaps.shape[:3]).to(heatmaps)
        return triangulated(heatmaps, views, self.config.decoding, weights, keep_maps)

    def heatmaps(self, views: Views) -> tuple[Float[Tensor, "B V J h w"], Bool[Tensor, "B"]]:
        """Raw heatmaps of every view, and a mask of the samples that the fusion supports."""
        served = self.serves(views.present)
        features = self.backbone(views.images.flatten(0, 1))
        reduced = self.reduce(features).unflatten(0, views.images.shape[:2])
        expanded = self.expand(self.exchange(reduced, views).flatten(0, 1))
        expanded = expanded + features if self.config.keep_own_view else expanded
        return self.head(expanded)[1].unflatten(0, views.images.shape[:2]), served

    def serves(self, present: Bool[Tensor, "B V"]) -> Bool[Tensor, "B"]:
        """Mask of the samples whose views the fusion supports."""
        raise NotImplementedError

    def exchange(self, features: Float[Tensor, "B V C h w"], views: Views) -> Float[Tensor, "B V C h w"]:
        """Every view's features after exchange with the others."""
        raise NotImplementedError


class Fusion(_Fusing):
    """Views concatenated and mixed without cameras: tied to one rig, one number and one order of views."""

    def __init__(self, backbone: Backbone, num_joints: int, config: FusionConfig) -> None:
        if config.fusion != "concatenation":
            raise ValueError("Fusion has no cameras and supports only concatenation; use Canonical Fusion for pooling")
        super().__init__(backbone, num_joints, config)
        channels = 3 * config.points
        self.fuse = Concatenation(config.views, channels, config.views * channels)

    def serves(self, present: Bool[Tensor, "B V"]) -> Bool[Tensor, "B"]:
        """Mask of the samples with every view."""
        return self.fuse.serves(present)

    def exchange(self, features: Float[Tensor, "B V C h w"], views: Views) -> Float[Tensor, "B V C h w"]:
        """Two 1x1 convolutions over all views' channels, split into views again."""
        return self.fuse(features, views.present).unflatten(1, features.shape[1:3])


class CanonicalFusion(_Fusing):
    """Features transformed into one frame by the cameras, fused there, and transformed back to every view."""

    def __init__(self, backbone: Backbone, num_joints: int, config: FusionConfig) -> None:
        super().__init__(backbone, num_joints, config)
        width = 4 * config.points
        match config.fusion:
            case "concatenation":
                self.fuse = Concatenation(config.views, width, width)
            case "pooling":
                self.fuse = Pooling(width, width)
            case "attention":
                self.fuse = Attention(width, width)

    def serves(self, present: Bool[Tensor, "B V"]) -> Bool[Tensor, "B"]:
        """Mask of the samples whose views the fusion block supports."""
        return self.fuse.serves(present)

    def exchange(self, features: Float[Tensor, "B V C h w"], views: Views) -> Float[Tensor, "B V C h w"]:
        """See `canonically_exchanged`."""
        return canonically_exchanged(features, views, self.fuse)


def canonically_exchanged(
    features: Float[Tensor, "B V C h w"], views: Views, fuse: Concatenation | Pooling | Attention
) -> Float[Tensor, "B V C h w"]:
    """FTL to the canonical frame, fusion, FTL back into every view: equations 2 to 4 of the paper."""
    cameras = views.frame.projections
    fused = fuse(feature_transform(features, right_inverse(cameras)), views.present)
    return feature_transform(fused[:, None].expand(-1, cameras.shape[1], -1, -1, -1), cameras)
