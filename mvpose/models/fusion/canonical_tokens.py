"""Canonical fusion of joint tokens: a pretrained single-view network with information from the other views.

RTMPose's head has one token per joint before it classifies columns and rows. Here each view's tokens become latent
points. The feature transform layer carries them into the canonical frame, where all views are fused joint by joint.
The result returns through each camera as a correction of that view's own tokens, and as a doubt: the scale of the
error of that view's joint, whose inverse weights the view in the DLT. Backbone and head keep the weights trained on
photographs, and both changes start at zero, so an untrained network *is* RTMPose with triangulation.

The paper's Canonical Fusion (Remelli et al. 2020) fuses corresponding pixels, although a pixel shows different parts of
the scene in different cameras; tokens of one joint mean the same joint in every view.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from mvpose.confidence import RIGHT_WITHIN
from mvpose.geometry import DltMethod
from mvpose.losses import share_within
from mvpose.models.backbones.simcc_head import BINS_PER_PIXEL, SimCCHead
from mvpose.models.backbones.simple_baselines import Backbone
from mvpose.models.fusion.canonical_fusion import canonically_exchanged
from mvpose.models.fusion.fusion_blocks import Attention, Pooling, pointwise
from mvpose.models.multiview import MultiViewPrediction, Views, lift, open_tokens, open_views
from mvpose.models.network_settings import TokenFusionConfig

_MAP_STRIDE = 4
SCALE_PX = 2.0
"""Scale of the error of a joint of confidence 1, in pixels of the crop, before training. It is inversely proportional
to confidence."""
MIN_CONFIDENCE = 0.05
DOUBT_LIMIT = 4.0
"""Maximum logarithm of a learned change of scale: a factor of 55."""
NEAR_PX = RIGHT_WITHIN * 256 / 1.25
"""A joint's confidence is the probability that it is within this distance of the truth, for a person who fills the crop
of 256 pixels as RTMPose's rule has it."""


@dataclass(frozen=True, eq=False)
class _Decoded:
    """Joints of every view, read from their scores."""

    points: Float[Tensor, "B V J 2"]
    """Pixels of the crops."""
    peak: Float[Tensor, "B V J"]
    """RTMPose's confidence, 0..1."""


class CanonicalTokens(nn.Module):
    """RTMPose-s in every view, joint tokens fused in the canonical frame, weighted DLT. Any number of views."""

    def __init__(self, backbone: Backbone, head: SimCCHead, config: TokenFusionConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.head = head.requires_grad_(False)
        width, points = head.width, config.points
        # A token, the position that it is read at (-1..1 over the crop), and its confidence.
        own = width + 3
        # Beside the fused points: where the views' first 3D joint is in this view, how far that is from the view's own
        # position, and the first doubt.
        fused = own + 3 * points + 5
        self.reduce = nn.Sequential(pointwise(own, width), nn.Conv2d(width, 3 * points, 1))
        self.fuse = (Attention if config.fusion == "attention" else Pooling)(4 * points, 4 * points)
        self.first_doubt = nn.Sequential(pointwise(own, width // 4), _nothing(width // 4, 1))
        self.correct = nn.Sequential(pointwise(fused, width), pointwise(width, width), _nothing(width, width))
        self.doubt = nn.Sequential(pointwise(fused, width // 4), _nothing(width // 4, 1))

    def forward(
        self,
        crops: Float[Tensor, "B V 3 H W"] | UInt8[Tensor, "B V 3 H W"] | Float[Tensor, "B V J d"],
        projections: Float[Tensor, "B V 3 4"],
        present: Bool[Tensor, "B V"] | None = None,
        keep_maps: bool = False,
    ) -> MultiViewPrediction:
        """See `mvpose.models.multiview`. In place of crops, their tokens, if backbone and head have seen the crops.

        ValueError if crops do not have the head's size.
        """
        if crops.ndim == 4:
            views = open_tokens(crops, projections, present, self.head.size, self.config.extent)
            return self.predicted(views.images, views, keep_maps)
        if (crops.shape[-1], crops.shape[-2]) != self.head.size:
            raise ValueError(
                f"this head takes crops of {self.head.size} (width, height), not {tuple(crops.shape[-2:])}"
            )
        views = open_views(crops, projections, present, self.config.extent)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.backbone.frozen):
            own = self.head.tokens(self.backbone(views.images.flatten(0, 1)))
        return self.predicted(own.unflatten(0, views.present.shape), views, keep_maps)

    def predicted(self, own: Float[Tensor, "B V J d"], views: Views, keep_maps: bool) -> MultiViewPrediction:
        """Every view's tokens to a prediction: fuse, classify and decode each view, then DLT weighted by doubt."""
        tokens, doubt = self.fused(own, views)
        columns, rows = self.head.classified(tokens)
        read = self._decoded(columns, rows, soft=self.training)
        scale = _scale(read.peak, doubt)
        joints, valid = lift(read.points, _weights(scale), views, self.config.solver)
        confidence = share_within(NEAR_PX, scale)
        used = views.present[..., None].expand(scale.shape) & valid[:, None]
        return MultiViewPrediction(
            joints=joints,
            valid=valid,
            confidence=(confidence * used).sum(dim=1) / used.sum(dim=1).clamp_min(1),
            joints_2d=read.points,
            confidence_2d=confidence * views.present[..., None],
            views_used=used,
            scale_2d=scale,
            scores=(columns, rows) if keep_maps else None,
            heatmaps=self._maps(columns, rows) if keep_maps else None,
        )

    def fused(
        self, own: Float[Tensor, "B V J d"], views: Views
    ) -> tuple[Float[Tensor, "B V J d"], Float[Tensor, "B V J"]]:
        """Every view's tokens, corrected by all present views, and the logarithm of the change of their scale."""
        with torch.no_grad():
            read = self._decoded(*self.head.classified(own), soft=False)
        half = own.new_tensor(self.head.size) / 2
        place = (read.points + 0.5) / half - 1
        tokens = _columns(torch.cat([own, place, read.peak[..., None]], dim=-1))
        exchanged = canonically_exchanged(self.reduce(tokens).unflatten(0, own.shape[:2]), views, self.fuse)
        first = self._limited(self.first_doubt(tokens), own)
        seen = self._seen(read, first, views)
        apart = torch.where(seen.isfinite(), (seen + 0.5) / half - 1 - place, 0.0).clamp(-2, 2)
        hints = torch.cat([place + apart, apart, first[..., None]], dim=-1)
        features = torch.cat([tokens, exchanged.flatten(0, 1), _columns(hints)], dim=1)
        correction = self.correct(features).unflatten(0, own.shape[:2])[..., 0].transpose(2, 3)
        return own + correction, first + self._limited(self.doubt(features), own)

    def _seen(self, read: _Decoded, doubt: Float[Tensor, "B V J"], views: Views) -> Float[Tensor, "B V J 2"]:
        """Where each view should see the joints that all views' own positions give; NaN where they give none."""
        # Shifted iterations would start from the middle of the rig, which an absent camera moves.
        joints, valid = lift(read.points, _weights(_scale(read.peak, doubt)), views, DltMethod.NORMAL)
        matrix = views.projections
        image = torch.einsum("bvik,bjk->bvji", matrix[..., :3], joints) + matrix[:, :, None, :, 3]
        front = valid[:, None] & (image[..., 2] > 1e-6)
        pixels = image[..., :2] / torch.where(front, image[..., 2], 1.0)[..., None]
        return torch.where(front[..., None], pixels, torch.nan)

    @staticmethod
    def _limited(doubt: Float[Tensor, "BV 1 J 1"], own: Float[Tensor, "B V J d"]) -> Float[Tensor, "B V J"]:
        return DOUBT_LIMIT * torch.tanh(doubt[:, 0, :, 0].unflatten(0, own.shape[:2]) / DOUBT_LIMIT)

    def _decoded(self, columns: Float[Tensor, "B V J X"], rows: Float[Tensor, "B V J Y"], *, soft: bool) -> _Decoded:
        """Positions, and the smaller of the two highest scores. Expectations if `soft`, which are differentiable."""
        (x, x_peak), (y, y_peak) = (self._peak(scores, soft) for scores in (columns, rows))
        return _Decoded(torch.stack([x, y], dim=-1), torch.minimum(x_peak, y_peak).clamp(0, 1))

    def _peak(
        self, scores: Float[Tensor, "B V J n"], soft: bool
    ) -> tuple[Float[Tensor, "B V J"], Float[Tensor, "B V J"]]:
        peak, at = scores.detach().max(dim=-1)
        if soft:
            bins = torch.arange(scores.shape[-1], device=scores.device, dtype=scores.dtype)
            return (torch.softmax(self.config.sharpness * scores, dim=-1) * bins).sum(dim=-1) / BINS_PER_PIXEL, peak
        middle = at.clamp(1, scores.shape[-1] - 2)
        before, centre, after = (scores.gather(-1, (middle + k)[..., None])[..., 0] for k in (-1, 0, 1))
        curvature = before - 2 * centre + after
        bent = (at == middle) & (curvature < 0)
        shift = torch.where(bent, (before - after) / (2 * torch.where(bent, curvature, 1.0)), 0.0)
        return (at + shift) / BINS_PER_PIXEL, peak

    @staticmethod
    def _maps(columns: Float[Tensor, "B V J X"], rows: Float[Tensor, "B V J Y"]) -> Float[Tensor, "B V J h w"]:
        """Products of row and column scores at a quarter of the crop's size, like the heatmaps of other methods."""
        pool = nn.AvgPool1d(_MAP_STRIDE * BINS_PER_PIXEL)
        x, y = (pool(scores.flatten(0, 1)).unflatten(0, scores.shape[:2]) for scores in (columns, rows))
        return y[..., :, None] * x[..., None, :]


def _scale(peak: Float[Tensor, "B V J"], doubt: Float[Tensor, "B V J"]) -> Float[Tensor, "B V J"]:
    return SCALE_PX / peak.clamp_min(MIN_CONFIDENCE) * doubt.exp()


def _weights(scale: Float[Tensor, "B V J"]) -> Float[Tensor, "B V J"]:
    """Weights of the DLT's rows: inverse scales, 1 for the best view."""
    return scale.amin(dim=1, keepdim=True) / scale


def _columns(values: Float[Tensor, "B V J d"]) -> Float[Tensor, "BV d J 1"]:
    """Joints as pixels of a map of one column, as fusion blocks take them."""
    return values.transpose(2, 3)[..., None].flatten(0, 1)


def _nothing(channels: int, width: int) -> nn.Conv2d:
    """A layer whose output is 0 before it is trained."""
    layer = nn.Conv2d(channels, width, 1)
    assert layer.bias is not None
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
