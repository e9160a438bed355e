"""Losses of the multi-view methods, in metres and pixels, and the schedule that introduces the 3D terms.

`weight` (0, 1 or anything in between) states how much a joint counts. Where it is 0, the target may be NaN and has no
gradient. A loss over nothing is 0.

Multi-view consistency is weak supervision. The pose of view 1 is rotated into view 2, scaled to the size of view 2's
own pose, moved to its root and projected; the loss is the residual against view 2's 2D joints. It needs no 3D ground
truth. However, the equation alone allows a collapse: if the 2D joints or the size may follow the poses, a single point
satisfies it. The guard makes both constants.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

SIMCC_SHARPNESS = 10.0
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
    # The norm's gradient at 0 is defined as 0, so exact points are safe.
    return weighted_mean(offset.norm(dim=-1), weight)


DEGREES_OF_FREEDOM = 3.0
"""Of the distribution of 2D errors: most are small, but a joint of the wrong side or person is a hundred pixels off."""


def likelihood(
    predicted: Float[Tensor, "*batch 2"],
    truth: Float[Tensor, "*batch 2"],
    scale: Float[Tensor, "*batch"],
    weight: Float[Tensor, "*batch"],
) -> Float[Tensor, ""]:
    """Mean negative logarithm of the density of 2D points under Student's t about the truth, of a predicted scale.

    The bivariate t with nu = `DEGREES_OF_FREEDOM`: density (1 + r^2 / (nu s^2))^(-(nu + 2) / 2) / (2 pi s^2) at
    distance r. Points and scale have the same unit.
    """
    offset = torch.where(weight[..., None] > 0, predicted - truth, torch.ones_like(predicted))
    ratio = offset.square().sum(dim=-1) / (DEGREES_OF_FREEDOM * scale.square())
    density = (DEGREES_OF_FREEDOM + 2) / 2 * torch.log1p(ratio) + 2 * scale.log() + math.log(2 * math.pi)
    return weighted_mean(density, weight)


def share_within(distance: float, scale: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Probability that a point of `likelihood`'s distribution is within a distance of the truth."""
    ratio = distance**2 / (DEGREES_OF_FREEDOM * scale.square())
    return 1 - (1 + ratio) ** (-DEGREES_OF_FREEDOM / 2)


def scale_with(share: Float[Tensor, "*batch"], distance: float) -> Float[Tensor, "*batch"]:
    """The scale of `likelihood`'s distribution with this share within a distance: the inverse of `share_within`.

    0 for a share of 1, infinite for 0.
    """
    ratio = (1 - share) ** (-2 / DEGREES_OF_FREEDOM) - 1
    return distance / (DEGREES_OF_FREEDOM * ratio).sqrt()


def simcc_divergence(
    scores: Float[Tensor, "*batch n"], bins: Float[Tensor, "*batch"], weight: Float[Tensor, "*batch"], sigma: float
) -> Float[Tensor, ""]:
    """Divergence of the softmax of scores from that of a Gaussian of height 1 about the true bin (Jiang et al. 2023).

    Both are sharpened by `SIMCC_SHARPNESS`. `sigma` is in bins; a target outside the bins must have weight 0.
    """
    at = torch.arange(scores.shape[-1], device=scores.device, dtype=scores.dtype)
    gaussian = torch.exp(-0.5 * ((at - torch.where(weight > 0, bins, 0.0)[..., None]) / sigma).square())
    wanted = torch.softmax(SIMCC_SHARPNESS * gaussian, dim=-1)
    found = torch.log_softmax(SIMCC_SHARPNESS * scores, dim=-1)
    return weighted_mean((wanted * (wanted.clamp_min(1e-12).log() - found)).sum(dim=-1), weight)


LOG_DISTANCE_M = 0.01


def log_distance(
    predicted: Float[Tensor, "*batch d"], truth: Float[Tensor, "*batch d"], weight: Float[Tensor, "*batch"]
) -> Float[Tensor, ""]:
    """Mean of log(1 + distance / `LOG_DISTANCE_M`): joints that hardly any view shows do not decide."""
    offset = torch.where(weight[..., None] > 0, predicted - truth, torch.ones_like(predicted))
    return weighted_mean(torch.log1p(offset.norm(dim=-1) / LOG_DISTANCE_M), weight)


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

    Equation 15 of Iskakov et al. 2019: a joint with an error of metres must not dominate the others.
    """
    square = (predicted - _where(weight[..., None], truth)).square()
    limit = start**2
    # The power's gradient is infinite at 0, so the unused branch must not see it.
    far = square > limit
    flattened = torch.where(far, square, torch.full_like(square, limit)) ** 0.1 * limit**0.9
    return weighted_mean(torch.where(far, flattened, square).mean(dim=-1), weight)


def cross_entropy_at(log_probability: Float[Tensor, "*batch"], weight: Float[Tensor, "*batch"]) -> Float[Tensor, ""]:
    """Mean of -log p at the true voxel (volumetric triangulation)."""
    return weighted_mean(-log_probability, weight)


def weighted_mean(values: Float[Tensor, "*batch"], weight: Float[Tensor, "*batch"]) -> Float[Tensor, ""]:
    """Weighted mean; 0 if all weights are 0. Values with weight 0 are ignored, even NaN.

    Processes of one training divide by the mean of their total weights: averaged over them, the loss and its gradients
    are those of the whole batch, however unevenly its labels are spread.
    """
    total = _over_processes(weight.sum())
    return (torch.where(weight > 0, values, torch.zeros_like(values)) * weight).sum() / total.clamp_min(1e-9)


def _over_processes(total: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """The mean of a number over the processes of a training."""
    if not (dist.is_available() and dist.is_initialized()):
        return total
    mean = total.detach().clone()
    dist.all_reduce(mean)
    return mean / dist.get_world_size()


def _where(weight: Tensor, truth: Tensor) -> Tensor:
    return torch.where(weight > 0, truth, torch.zeros_like(truth))


SMALLEST_LIMB_M = 1e-3


def consistency_loss(
    pose_1: Float[Tensor, "B J 3"],
    pose_2: Float[Tensor, "B J 3"],
    rotation_2_from_1: Float[Tensor, "B 3 3"],
    intrinsics_2: Float[Tensor, "B 3 3"],
    points_2: Float[Tensor, "B J 2"],
    weights: Float[Tensor, "B J"],
    limbs: Sequence[tuple[int, int]],
    root: int,
    guarded: bool = True,
) -> Float[Tensor, ""]:
    """Mean squared distance, in pixels, between view 2's joints and the projected pose of view 1.

    Poses are in metres in the axes of their cameras. `pose_2` is at the person's position; `pose_1` may be anywhere,
    since its root is subtracted. The size is the sum of the lengths of `limbs`: with a single limb, a network can
    satisfy the scale by that limb alone. A joint with `weights` 0 is ignored, and its 2D point may be anything; so is
    one placed behind camera 2.

    If guarded, no gradient reaches `points_2` or goes through `pose_2`: take the points from a frozen detector, and
    call twice with the views exchanged. Unguarded, it is the bare equation, which collapses (a test shows it).
    Raises ValueError for fewer than two limbs, and if a pose has already collapsed.
    """
    if len(limbs) < 2:
        raise ValueError(f"the size of a pose needs at least two limbs, got {len(limbs)}: a single one can be cheated")
    if guarded:
        pose_2, points_2 = pose_2.detach(), points_2.detach()
    relative = (pose_1 - pose_1[:, root : root + 1]) @ rotation_2_from_1.transpose(-1, -2)
    scale = _size(pose_2, limbs) / _size(relative, limbs)
    placed = relative * scale[:, None, None] + pose_2[:, root : root + 1]
    before = placed[..., 2] > 0
    seen = (weights > 0) & before
    image = torch.where(before[..., None], placed, torch.ones_like(placed)) @ intrinsics_2.transpose(-1, -2)
    target = torch.where(seen[..., None], points_2, torch.zeros_like(points_2))
    error = (image[..., :2] / image[..., 2:] - target).square().sum(dim=-1)
    weights = weights * seen
    return (torch.where(seen, error, torch.zeros_like(error)) * weights).sum() / weights.sum().clamp_min(1e-9)


def _size(pose: Float[Tensor, "B J 3"], limbs: Sequence[tuple[int, int]]) -> Float[Tensor, "B"]:
    """Sum of the lengths of the limbs."""
    ends = torch.tensor(list(limbs), device=pose.device)
    size = (pose[:, ends[:, 0]] - pose[:, ends[:, 1]]).norm(dim=-1).sum(dim=-1)
    smallest = float(size.detach().min())
    if smallest < SMALLEST_LIMB_M * len(limbs):
        raise ValueError(f"a pose has shrunk to {smallest * 1000:.2f} mm of limbs: it has collapsed to a point")
    return size
