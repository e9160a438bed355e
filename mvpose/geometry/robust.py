"""Triangulation with outlying views: consensus over view pairs, then iteratively reweighted least squares (IRLS).

The cost is bounded: at most `hypotheses` view pairs per point, each evaluated on every view, then a fixed number of
reweighted solutions; linear in the number of views.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mvpose.geometry.conditioning import Conditioned
from mvpose.geometry.consensus import best_pair_points
from mvpose.geometry.ray_planes import Located, RayPlanes
from mvpose.geometry.refinement import RobustLoss
from mvpose.geometry.triangulation import MIN_ANGLE, checked_weights

HYPOTHESES, ROUNDS = 10, 3


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
    hypotheses: int = HYPOTHESES,
    loss: RobustLoss = RobustLoss.HUBER,
    scale_px: float | Float[Tensor, "*#batch V"] = 10.0,
    rounds: int = ROUNDS,
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
    seen = _Observed.of(points, projections, checked_weights(points, projections, weights, mask, check))
    threshold, scale = seen.per_view(threshold_px), seen.per_view(scale_px)
    start = consensus(seen.planes.single(), seen.weights.float(), in_single(threshold), min_angle, hypotheses)
    last, used = reweighted(seen.planes, seen.weights, start, loss, scale, threshold, min_angle, rounds)
    return seen.judged(last, used, threshold, min_views)


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
    seen = _Observed.of(points, projections, checked_weights(points, projections, weights, mask, check))
    with torch.no_grad():
        start = seen.planes.single().located(seen.weights.float(), min_angle)
    last, used = reweighted(seen.planes, seen.weights, start, loss, scale_px, torch.inf, min_angle, rounds)
    return seen.judged(last, used, threshold_px, min_views)


@torch.no_grad()
def consensus(
    planes: RayPlanes,
    weights: Float[Tensor, "V n"],
    threshold_px: float | Float[Tensor, "V n"],
    min_angle: float,
    hypotheses: int = HYPOTHESES,
) -> Located:
    """The points of the best view pairs (`best_pair_points`), with the errors of all views."""
    x, valid = best_pair_points(planes, weights, threshold_px, hypotheses, min_angle)
    return Located(x, valid, *planes.errors(x))


def reweighted(
    planes: RayPlanes,
    weights: Float[Tensor, "V n"],
    start: Located,
    loss: RobustLoss,
    scale_px: float | Float[Tensor, "V n"],
    gate_px: float | Float[Tensor, "V n"],
    min_angle: float,
    rounds: int = ROUNDS,
) -> tuple[Located, Float[Tensor, "V n"]]:
    """Iteratively reweighted solutions on the views within the gate: the last one, which alone is differentiated, and
    its weights.

    The others are in single precision, as `start` is: an error of 0.001 px in the residuals changes the weights, and so
    the last solution, by a millionth.
    """
    rough, likely, scale, gate = planes.single(), weights.float(), in_single(scale_px), in_single(gate_px)
    possible = start.valid & (weights > 0)

    def factors(current: Located) -> tuple[Tensor, Tensor]:
        kept = loss.row_weight(current.residuals_px, scale) * (current.residuals_px <= gate) * possible
        return kept, rough.pixels_per_unit(current.depth) / scale

    current = start
    with torch.no_grad():
        for _ in range(rounds - 1):
            factor, in_units = factors(current)
            current = rough.located(likely * factor * in_units, min_angle)
        factor, in_units = factors(current)
    used = weights * factor
    return planes.located(used * in_units, min_angle), used


def in_single(limit: float | Tensor) -> float | Tensor:
    """A limit of all views, or of each, in single precision."""
    return limit.float() if isinstance(limit, Tensor) else limit


@dataclass(frozen=True, eq=False)
class _Observed:
    """The observations of a call, points last."""

    planes: RayPlanes
    weights: Float[Tensor, "V n"]
    conditioned: Conditioned
    batch: torch.Size

    @staticmethod
    def of(points: Tensor, projections: Tensor, weights: Tensor) -> _Observed:
        batch, views = points.shape[:-2], points.shape[-2]
        conditioned = Conditioned.of(projections, points.dtype)
        shared = math.prod(projections.shape[:-3]) == 1  # `Size.numel` would fix the batch under torch.export
        own = (1,) * len(batch) if shared else batch
        p = conditioned.projections.expand(*own, views, 3, 4).reshape(-1, views, 3, 4)
        planes = RayPlanes.of(points.reshape(-1, views, 2), p)
        present = torch.where(planes.there, weights.reshape(-1, views).T.contiguous().clamp_min(0.0), 0.0)
        return _Observed(planes, present, conditioned, batch)

    def per_view(self, limit: float | Tensor) -> float | Tensor:
        """A limit of all views, or of each (V n)."""
        views = len(self.weights)
        whole = isinstance(limit, Tensor)
        return limit.expand(*self.batch, views).reshape(-1, views).T.contiguous() if whole else limit

    def judged(self, last: Located, used: Tensor, threshold_px: float | Tensor, min_views: int) -> RobustTriangulation:
        inliers = (last.residuals_px <= threshold_px) & last.valid
        valid = last.valid & (inliers.sum(dim=0) >= min_views)
        world = self.conditioned.to_world(last.x.T.reshape(*self.batch, 3))
        residuals = torch.where(self.weights > 0, last.residuals_px, torch.inf)
        of_points = valid.reshape(self.batch)
        views_last = [values.T.reshape(*self.batch, len(used)) for values in (inliers & valid, used, residuals)]
        return RobustTriangulation(torch.where(of_points[..., None], world, 0.0), of_points, *views_last)
