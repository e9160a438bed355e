"""Losses of the multi-view methods, in metres and pixels, and the schedule that brings the 3D terms in.

`weight` (0 or 1, or anything between) says which joints count; where it is 0 the target may be NaN, and no gradient
comes of it. A loss over nothing is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

SOFT_MSE_FROM_M = 0.2
"""Iskakov et al. 2019 flatten the squared error beyond (20 cm)^2 per coordinate."""


def heatmap_mse(
    heatmaps: Float[Tensor, "*batch h w"], targets: Float[Tensor, "*batch h w"], weight: Float[Tensor, "*batch"]
) -> Float[Tensor, ""]:
    """Mean squared difference of maps (Simple Baselines)."""
    return weighted_mean((heatmaps - _where(weight[..., None, None], targets)).square().mean(dim=(-2, -1)), weight)


def point_distance(
    predicted: Float[Tensor, "*batch d"], truth: Float[Tensor, "*batch d"], weight: Float[Tensor, "*batch"]
) -> Float[Tensor, ""]:
    """Mean Euclidean distance: MPJPE as a loss (Remelli et al. 2020), in the points' unit."""
    offset = torch.where(weight[..., None] > 0, predicted - truth, torch.ones_like(predicted))
    # At 0 the norm's gradient is taken as 0, so exact points are no trap.
    return weighted_mean(offset.norm(dim=-1), weight)


def mean_absolute_error(
    predicted: Float[Tensor, "*batch d"], truth: Float[Tensor, "*batch d"], weight: Float[Tensor, "*batch"]
) -> Float[Tensor, ""]:
    """Mean absolute difference per coordinate (volumetric triangulation)."""
    return weighted_mean((predicted - _where(weight[..., None], truth)).abs().mean(dim=-1), weight)


def soft_mse(
    predicted: Float[Tensor, "*batch d"],
    truth: Float[Tensor, "*batch d"],
    weight: Float[Tensor, "*batch"],
    start: float = SOFT_MSE_FROM_M,
) -> Float[Tensor, ""]:
    """Squared error per coordinate, flattened beyond `start`: s for s < eps, s^0.1 eps^0.9 above, eps = start^2.

    Equation 15 of Iskakov et al. 2019: a joint that is metres off must not drown the others.
    """
    square = (predicted - _where(weight[..., None], truth)).square()
    limit = start**2
    # The power's gradient is infinite at 0; the branch that is not taken must not see it.
    far = square > limit
    flattened = torch.where(far, square, torch.full_like(square, limit)) ** 0.1 * limit**0.9
    return weighted_mean(torch.where(far, flattened, square).mean(dim=-1), weight)


def cross_entropy_at(log_probability: Float[Tensor, "*batch"], weight: Float[Tensor, "*batch"]) -> Float[Tensor, ""]:
    """Mean of -log p at the true voxel (volumetric triangulation)."""
    return weighted_mean(-log_probability, weight)


def weighted_mean(values: Float[Tensor, "*batch"], weight: Float[Tensor, "*batch"]) -> Float[Tensor, ""]:
    """Mean by weight; 0 where all weights are, and blind to what has none."""
    total = weight.sum()
    return (torch.where(weight > 0, values, torch.zeros_like(values)) * weight).sum() / total.clamp_min(1e-9)


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """When a term that goes through triangulation comes in.

    Untrained points send the DLT far away, and its gradients with it: both known re-implementations of Canonical Fusion
    train the 2D term alone first. Progress is the share of training done, 0..1.
    """

    start: float = 0.4
    """Before this the term has no weight (20 of 50 epochs)."""
    full: float = 0.5
    """From here on it has its full weight; in between it grows in a straight line."""

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.full:
            raise ValueError(f"a warm-up starts before it ends, not at {self.start} and {self.full}")

    def share(self, progress: float) -> float:
        """Share of the term's full weight, 0..1."""
        if progress >= self.full:
            return 1.0
        return max(0.0, (progress - self.start) / (self.full - self.start)) if progress > self.start else 0.0


def _where(weight: Tensor, truth: Tensor) -> Tensor:
    return torch.where(weight > 0, truth, torch.zeros_like(truth))
