"""Refine points to the minimum of their robust reprojection error: batched Levenberg-Marquardt, 3 unknowns each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mvpose.geometry.conditioning import Conditioned, adjugate
from mvpose.geometry.triangulation import checked_weights, reprojection_errors

# In units of the rig: 0.05 mm for cameras 5 m from their centre.
STEP_OF_CONVERGED = 1e-5
FIRST_DAMPING, MIN_DAMPING, LARGEST_DAMPING = 1e-3, 1e-9, 1e9


class RobustLoss(StrEnum):
    """The cost of a residual e at the scale s.

    `SQUARED`: e^2. `HUBER`: e^2 up to s, then s (2 e - s). `GEMAN_MCCLURE`: e^2 s^2 / (e^2 + s^2), never above s^2.
    """

    SQUARED = "squared"
    HUBER = "huber"
    GEMAN_MCCLURE = "geman_mcclure"

    def row_weight(
        self, residual: Float[Tensor, "*batch"], scale: float | Float[Tensor, "*#batch"]
    ) -> Float[Tensor, "*batch"]:
        """sqrt(cost'(e) / 2 e): the row factor with which least squares has the derivative of this cost."""
        if self == RobustLoss.SQUARED:
            return torch.ones_like(residual)
        if self == RobustLoss.HUBER:
            return (scale / residual.clamp_min(scale)).sqrt()
        return 1.0 / (1.0 + (residual / scale) ** 2)

    def cost(self, residual: Float[Tensor, "*batch"], scale: float) -> Float[Tensor, "*batch"]:
        """The cost itself; finite residuals only."""
        squared = residual**2
        if self == RobustLoss.SQUARED:
            return squared
        if self == RobustLoss.HUBER:
            return torch.where(residual <= scale, squared, scale * (2.0 * residual - scale))
        return squared / (1.0 + squared / scale**2)


@dataclass(frozen=True, eq=False)
class Refinement:
    """Refined world points, their residuals, and where the last step was negligible."""

    points: Float[Tensor, "*batch 3"]
    residuals_px: Float[Tensor, "*batch V"]
    converged: Bool[Tensor, "*batch"]


@torch.no_grad()
def refine(
    points_world: Float[Tensor, "*batch 3"],
    pixels: Float[Tensor, "*batch V 2"],
    projections: Float[Tensor, "*#batch V 3 4"],
    weights: Float[Tensor, "*batch V"] | None = None,
    mask: Bool[Tensor, "*batch V"] | None = None,
    *,
    loss: RobustLoss = RobustLoss.HUBER,
    scale_px: float = 5.0,
    steps: int = 10,
    check: bool = True,
) -> Refinement:
    """World points that minimise the sum over views of weight^2 loss(reprojection error), from initial positions.

    Every point takes `steps` steps with its own damping. A step that does not reduce its cost is reverted, so no point
    gets worse. Points seen by fewer than two views, or behind a camera that sees them, do not move and are not
    converged. `residuals_px` is infinite for absent views. Not differentiable. Raises the errors of `triangulate`.
    """
    weights = checked_weights(pixels, projections, weights, mask, check)
    conditioned = Conditioned.of(projections, pixels.dtype)
    seen = (weights > 0) & pixels.isfinite().all(dim=-1)
    target = torch.where(seen[..., None], pixels, torch.zeros_like(pixels))
    used = torch.where(seen, weights, torch.zeros_like(weights))
    x = conditioned.from_world(points_world.to(pixels.dtype))
    offsets, jacobian = _linearised(x, target, conditioned.projections)
    cost = _cost(offsets, used, loss, scale_px)
    movable = cost.isfinite() & (seen.sum(dim=-1) >= 2)
    damping, last = torch.full_like(cost, FIRST_DAMPING), torch.full_like(cost, torch.inf)
    for _ in range(steps):
        step = _damped_step(offsets, jacobian, used, loss, scale_px, damping)
        there, jacobian_there = _linearised(x + step, target, conditioned.projections)
        lower = _cost(there, used, loss, scale_px)
        better = movable & (lower <= cost)
        x = torch.where(better[..., None], x + step, x)
        offsets = torch.where(better[..., None, None], there, offsets)
        jacobian = torch.where(better[..., None, None, None], jacobian_there, jacobian)
        cost = torch.where(better, lower, cost)
        last = torch.where(movable, step.norm(dim=-1), last)
        damping = torch.where(better, damping / 10, damping * 10).clamp(MIN_DAMPING, LARGEST_DAMPING)
    world = torch.where(movable[..., None], conditioned.to_world(x), points_world.to(pixels.dtype))
    residuals = reprojection_errors(world, pixels, projections)
    residuals = torch.where(seen, residuals, torch.full_like(residuals, torch.inf))
    return Refinement(world, residuals, last < STEP_OF_CONVERGED)


def _linearised(x: Tensor, target: Tensor, projections: Tensor) -> tuple[Tensor, Tensor]:
    """Projected minus observed (... V 2), infinite behind the camera, and its derivative by x (... V 2 3)."""
    image = torch.einsum("...vij,...j->...vi", projections[..., :3], x) + projections[..., 3]
    front = image[..., 2:] > 0
    depth = torch.where(front, image[..., 2:], torch.ones_like(image[..., 2:]))
    projected = image[..., :2] / depth
    jacobian = (projections[..., :2, :3] - projected[..., None] * projections[..., 2:, :3]) / depth[..., None]
    return torch.where(front, projected - target, torch.inf), jacobian


def _cost(offsets: Tensor, weights: Tensor, loss: RobustLoss, scale_px: float) -> Float[Tensor, "*batch"]:
    squared = weights**2 * loss.cost(offsets.norm(dim=-1), scale_px)
    known = torch.where(squared.isfinite(), squared, torch.full_like(squared, torch.inf))
    return torch.where(weights > 0, known, torch.zeros_like(known)).sum(dim=-1)


def _damped_step(
    offsets: Tensor, jacobian: Tensor, weights: Tensor, loss: RobustLoss, scale_px: float, damping: Tensor
) -> Float[Tensor, "*batch 3"]:
    """-(J^T J + damping diag(J^T J))^-1 J^T r with rows weighted by the loss; zero if it is singular."""
    factor = weights * loss.row_weight(offsets.norm(dim=-1), scale_px)
    residual = torch.where(weights[..., None] > 0, offsets, torch.zeros_like(offsets)) * factor[..., None]
    rows = (jacobian * factor[..., None, None]).flatten(-3, -2)
    normal = rows.transpose(-1, -2) @ rows
    diagonal = normal.diagonal(dim1=-2, dim2=-1)
    # Scaled by its own size, the matrix has a determinant that float32 can represent.
    size = diagonal.sum(dim=-1).clamp_min(torch.finfo(rows.dtype).tiny)
    damped = (normal + torch.diag_embed(damping[..., None] * diagonal)) / size[..., None, None]
    cofactors, determinant = adjugate(damped)
    gradient = (rows.transpose(-1, -2) @ residual.flatten(-2)[..., None])[..., 0] / size[..., None]
    step = -(cofactors @ gradient[..., None])[..., 0] / determinant[..., None]
    return torch.where((determinant > 0)[..., None] & step.isfinite(), step, torch.zeros_like(step))
