"""Similarity between two corresponding point sets: batched least squares of Umeyama (PAMI 13(4), 1991)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Similarity:
    """`x_target = scale rotation x_source + translation`, batched."""

    scale: Float[Tensor, "*batch"]
    rotation: Float[Tensor, "*batch 3 3"]
    translation: Float[Tensor, "*batch 3"]

    def apply(self, points: Float[Tensor, "*#batch n 3"]) -> Float[Tensor, "*batch n 3"]:
        """Source points in the target's frame and unit."""
        turned = points @ self.rotation.transpose(-1, -2)
        return self.scale[..., None, None] * turned + self.translation[..., None, :]


def align(
    source: Float[Tensor, "*batch n 3"],
    target: Float[Tensor, "*batch n 3"],
    weights: Float[Tensor, "*batch n"] | None = None,
    *,
    scaled: bool = True,
) -> Similarity:
    """The similarity (or, without `scaled`, the rigid motion) that brings `source` nearest to `target`.

    Minimises the weighted sum of squared distances. The rotation is proper, even if a mirror image would fit better.
    Points of weight 0 may be anything, including NaN. The scale is 1 if the source points coincide or all weights are
    0.
    """
    weights = torch.ones_like(source[..., 0]) if weights is None else weights
    used = (weights > 0)[..., None]
    source, target = torch.where(used, source, 0.0), torch.where(used, target, 0.0)
    total = weights.sum(dim=-1, keepdim=True)
    share = (weights / torch.where(total > 0, total, torch.ones_like(total)))[..., None]
    source_mean, target_mean = (share * source).sum(dim=-2), (share * target).sum(dim=-2)
    centred = source - source_mean[..., None, :]
    covariance = (share * (target - target_mean[..., None, :])).transpose(-1, -2) @ centred
    left, singular, right = torch.linalg.svd(covariance)
    handedness = torch.ones_like(singular)
    handedness[..., 2] = torch.where(torch.linalg.det(left.detach() @ right.detach()) < 0, -1.0, 1.0)
    rotation = (left * handedness[..., None, :]) @ right
    scale = torch.ones_like(source_mean[..., 0])
    if scaled:
        variance = (share * centred**2).sum(dim=(-1, -2))
        spread = variance > 0
        fitted = (singular * handedness).sum(dim=-1) / torch.where(spread, variance, 1.0)
        scale = torch.where(spread, fitted, scale)
    moved = scale[..., None] * (rotation @ source_mean[..., None])[..., 0]
    return Similarity(scale, rotation, target_mean - moved)
