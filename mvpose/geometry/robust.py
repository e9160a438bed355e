"""Triangulation with outlying views: consensus over view pairs, then iteratively reweighted least squares (IRLS).

The cost is bounded: at most `hypotheses` view pairs per point, each evaluated on every view, then a fixed number of
reweighted solutions; linear in the number of views.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mvpose.geometry.consensus import best_pair_points
from mvpose.geometry.refinement import RobustLoss
from mvpose.geometry.triangulation import (
    MIN_ANGLE,
    Triangulation,
    checked_weights,
    pixels_per_metre,
    reprojection_errors,
    triangulate,
)


@dataclass(frozen=True, eq=False)
class RobustTriangulation:
    """Points with the role of each view; a point that is not `valid` is (0, 0, 0).

    `residuals_px`: reprojection error of every observed view, infinite for a view that is absent or faces away.
    `inliers`: observed views within the threshold. `weights`: the given weight times that of the loss, as used in the
    last solution; 0 for unused views.
    """

    points: Float[Tensor, "*batch 3"]
    valid: Bool[Tensor, "*batch"]
    inliers: Bool[Tensor, "*batch V"]
    weights: Float[Tensor, "*batch V"]
    residuals_px: Float[Tensor, "*batch V"]


def triangulate_robust(
    points: Float[Tensor, "*batch V 2"],
    projections: Float[Tensor, "*#batch V 3 4"],
    weights: Float[Tensor, "*batch V"] | None = None,
    mask: Bool[Tensor, "*batch V"] | None = None,
    *,
    threshold_px: float | Float[Tensor, "*#batch V"] = 15.0,
    hypotheses: int = 10,
    loss: RobustLoss = RobustLoss.HUBER,
    scale_px: float | Float[Tensor, "*#batch V"] = 10.0,
    rounds: int = 3,
    min_views: int = 2,
    min_angle: float = MIN_ANGLE,
    check: bool = True,
) -> RobustTriangulation:
    """Undistorted pixels to the world points on which the views agree most.

    Up to `hypotheses` view pairs are triangulated, spread over the views with the highest weights (all six pairs of
    four views). The point with the minimum truncated squared error over all views wins. Then follow `rounds` reweighted
    solutions on the views within `threshold_px`, with rows in units of `scale_px`, so they converge to the minimum of
    the robust reprojection error. If threshold and scale are those of each view's resolution, all views count equally.

    A valid point has at least `min_views` views within the threshold and is determined as in `triangulate`. Nothing is
    random. Gradients reach points and weights through the last solution. Raises the errors of `triangulate`.
    """
    weights = checked_weights(points, projections, weights, mask, check)
    with torch.no_grad():
        found = best_pair_points(points, projections, weights, threshold_px, hypotheses, min_angle)
    last, used, residuals = _reweighted(
        points, projections, weights, found, loss, scale_px, rounds, threshold_px, min_angle
    )
    return _judged(last, used, residuals, threshold_px, min_views)


def triangulate_irls(
    points: Float[Tensor, "*batch V 2"],
    projections: Float[Tensor, "*#batch V 3 4"],
    weights: Float[Tensor, "*batch V"] | None = None,
    mask: Bool[Tensor, "*batch V"] | None = None,
    *,
    threshold_px: float = 15.0,
    loss: RobustLoss = RobustLoss.GEMAN_MCCLURE,
    scale_px: float = 5.0,
    rounds: int = 10,
    min_views: int = 2,
    min_angle: float = MIN_ANGLE,
    check: bool = True,
) -> RobustTriangulation:
    """Like `triangulate_robust` without the consensus: reweighting starts from all views, and none is excluded.

    Sufficient for noise with a long tail. One grossly wrong view of three or four can keep it at a wrong position.
    """
    weights = checked_weights(points, projections, weights, mask, check)
    with torch.no_grad():
        first = triangulate(points, projections, weights, min_angle=min_angle, check=False)
    last, used, residuals = _reweighted(
        points, projections, weights, first, loss, scale_px, rounds, torch.inf, min_angle
    )
    return _judged(last, used, residuals, threshold_px, min_views)


def _reweighted(
    points: Tensor,
    projections: Tensor,
    weights: Tensor,
    start: Triangulation,
    loss: RobustLoss,
    scale_px: float | Tensor,
    rounds: int,
    gate_px: float | Tensor,
    min_angle: float,
) -> tuple[Triangulation, Tensor, Tensor]:
    """The last solution, its weights and its residuals; only the last solution is differentiated."""
    current, used = start, weights
    for last in [False] * (rounds - 1) + [True]:
        with torch.no_grad():
            residuals = reprojection_errors(current.points, points, projections)
            factor = loss.row_weight(residuals, scale_px) * (residuals <= gate_px)
            in_units = pixels_per_metre(current.points, projections) / scale_px
        with torch.set_grad_enabled(last and torch.is_grad_enabled()):
            used = torch.where(start.valid[..., None] & (weights > 0), weights * factor, torch.zeros_like(weights))
            current = triangulate(points, projections, used * in_units, min_angle=min_angle, check=False)
    residuals = reprojection_errors(current.points, points, projections)
    return current, used, torch.where(weights > 0, residuals, torch.full_like(residuals, torch.inf))


def _judged(
    last: Triangulation, used: Tensor, residuals: Tensor, threshold_px: float | Tensor, min_views: int
) -> RobustTriangulation:
    inliers = (residuals <= threshold_px) & last.valid[..., None]
    valid = last.valid & (inliers.sum(dim=-1) >= min_views)
    points = torch.where(valid[..., None], last.points, torch.zeros_like(last.points))
    return RobustTriangulation(points, valid, inliers & valid[..., None], used, residuals)
