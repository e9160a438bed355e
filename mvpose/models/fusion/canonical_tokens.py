"""Canonical fusion of joint tokens: a pretrained single-view network with information from the other views.

RTMPose's head has one token per joint before it classifies columns and rows. Here each view's tokens become latent
points. The feature transform layer carries them into the canonical frame, where all views are fused joint by joint.
The result returns through each camera as a correction of that view's own tokens. Backbone and head keep the weights
trained on photographs, and the correction starts at zero, so an untrained network *is* RTMPose with triangulation.

The paper's Canonical Fusion (Remelli et al. 2020) fuses corresponding pixels, although a pixel shows different parts of
the scene in different cameras; tokens of one joint mean the same joint in every view.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from mvpose.models.backbones.simcc_head import BINS_PER_PIXEL, SimCCHead
from mvpose.models.backbones.simple_baselines import Backbone
from mvpose.models.fusion.canonical_fusion import canonically_exchanged
from mvpose.models.fusion.fusion_blocks import Attention, Pooling, pointwise
from mvpose.models.multiview import MultiViewPrediction, Views, lift, open_views
from mvpose.models.network_settings import TokenFusionConfig

_MAP_STRIDE = 4


class CanonicalTokens(nn.Module):
    """RTMPose-s in every view, joint tokens fused in the canonical frame, weighted DLT. Any number of views."""

    def __init__(self, backbone: Backbone, head: SimCCHead, config: TokenFusionConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.head = head.requires_grad_(False)
        width, points = head.width, config.points
        self.reduce = nn.Sequential(pointwise(width, width), nn.Conv2d(width, 3 * points, 1))
        self.fuse = (Attention if config.fusion == "attention" else Pooling)(4 * points, 4 * points)
        self.correct = nn.Sequential(pointwise(width + 3 * points, width), nn.Conv2d(width, width, 1))
        last = self.correct[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(
        self,
        crops: Float[Tensor, "B V 3 H W"] | UInt8[Tensor, "B V 3 H W"],
        projections: Float[Tensor, "B V 3 4"],
        present: Bool[Tensor, "B V"] | None = None,
        keep_maps: bool = False,
    ) -> MultiViewPrediction:
        """See `mvpose.models.multiview`. ValueError if crops do not have the head's size."""
        if (crops.shape[-1], crops.shape[-2]) != self.head.size:
            raise ValueError(
                f"this head takes crops of {self.head.size} (width, height), not {tuple(crops.shape[-2:])}"
            )
        views = open_views(crops, projections, present, self.config.extent)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.backbone.frozen):
            own = self.head.tokens(self.backbone(views.images.flatten(0, 1)))
        return self.predicted(self.fused(own.unflatten(0, views.present.shape), views), views, keep_maps)

    def fused(self, own: Float[Tensor, "B V J d"], views: Views) -> Float[Tensor, "B V J d"]:
        """Every view's tokens, corrected by all present views."""
        tokens = own.transpose(2, 3)[..., None].flatten(0, 1)
        points = self.reduce(tokens).unflatten(0, own.shape[:2])
        exchanged = canonically_exchanged(points, views, self.fuse).flatten(0, 1)
        correction = self.correct(torch.cat([tokens, exchanged], dim=1))
        return own + correction.unflatten(0, own.shape[:2])[..., 0].transpose(2, 3)

    def predicted(self, tokens: Float[Tensor, "B V J d"], views: Views, keep_maps: bool) -> MultiViewPrediction:
        """Tokens to a prediction: classify, decode every view, then DLT weighted by confidence."""
        columns, rows = self.head.classified(tokens)
        x, x_peak = self._decoded(columns)
        y, y_peak = self._decoded(rows)
        confidence = torch.minimum(x_peak, y_peak).clamp(0, 1)
        points = torch.stack([x, y], dim=-1)
        joints, valid = lift(points, confidence, views, self.config.solver)
        used = views.present[..., None] & (confidence > 0) & valid[:, None]
        return MultiViewPrediction(
            joints=joints,
            valid=valid,
            confidence=(confidence * used).sum(dim=1) / used.sum(dim=1).clamp_min(1),
            joints_2d=points,
            confidence_2d=confidence * views.present[..., None],
            views_used=used,
            heatmaps=self._maps(columns, rows) if keep_maps else None,
        )

    def _decoded(self, scores: Float[Tensor, "B V J n"]) -> tuple[Float[Tensor, "B V J"], Float[Tensor, "B V J"]]:
        """Position in pixels, and the highest score. In training it is an expectation, which is differentiable."""
        peak, at = scores.detach().max(dim=-1)
        if self.training:
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
