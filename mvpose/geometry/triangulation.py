"""Direct linear transformation (DLT): rays of several views to one point, batched, weighted and differentiable."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mvpose.geometry.conditioning import Conditioned, singular
from mvpose.geometry.dlt import DltMethod, design_rows, determined, solve

__all__ = ["DltMethod", "Triangulation", "reprojection_errors", "triangulate"]

# At 5 m from the cameras, rays half a degree apart turn 1 mm of error across into 0.1 m along.
MIN_ANGLE = math.radians(0.5)


@dataclass(frozen=True, eq=False)
class Triangulation:
    """Points and where they are determined; an undetermined point is (0, 0, 0) with `valid` false, never a guess."""

    points: Float[Tensor, "*batch 3"]
    valid: Bool[Tensor, "*batch"]


def triangulate(
    points: Float[Tensor, "*batch V 2"],
    projections: Float[Tensor, "*#batch V 3 4"],
    weights: Float[Tensor, "*batch V"] | None = None,
    mask: Bool[Tensor, "*batch V"] | None = None,
    *,
    method: DltMethod = DltMethod.NORMAL,
    iterations: int = 2,
    shift: float = 1e-5,
    start: Float[Tensor, "*#batch 3"] | None = None,
    min_angle: float = MIN_ANGLE,
    check: bool = True,
) -> Triangulation:
    """Undistorted pixels of V views to world points in metres, in the dtype of `points` (float32 or float64).

    A view whose weight is 0 or whose mask is false is absent: its pixel may be anything, NaN too. Weights multiply the
    rows of a view. A point is valid when two views or more see it, their rays are as well spread as two rays
    `min_angle` radians apart, and it lies before every camera that sees it. Gradients reach points, weights and
    projections; they are zero for points that are not valid.

    `iterations`, `shift` (a share of trace(A^T A)) and `start` (world; the middle of the rig when None) belong to SII.
    Inside, rows are normalised and the world is centred on the rig, so that float32 serves at any offset that the
    projections themselves can hold: give projections in float64 for a rig far from its origin.

    Raises ValueError for shapes or dtypes that do not fit. With `check`, also for negative or NaN weights and cameras
    without a centre: one pass over weights and projections, and on a GPU one synchronisation. Without it such points
    come back not valid, or are nonsense where a weight is negative.
    """
    weights = checked_weights(points, projections, weights, mask, check)
    conditioned = Conditioned.of(projections, points.dtype)
    start = None if start is None else conditioned.from_world(start)
    rows = design_rows(points, weights, conditioned.projections)
    ok = determined(rows, weights, 1.0 - math.cos(min_angle))
    x, ok = solve(rows, ok, method, start, iterations, shift)
    valid = ok & _before_the_cameras(x, weights, conditioned.projections)
    world = conditioned.to_world(x)
    return Triangulation(torch.where(valid[..., None], world, torch.zeros_like(world)), valid)


def reprojection_errors(
    points_world: Float[Tensor, "*batch 3"],
    pixels: Float[Tensor, "*batch V 2"],
    projections: Float[Tensor, "*#batch V 3 4"],
) -> Float[Tensor, "*batch V"]:
    """Distance in pixels between undistorted pixels and the projected points.

    Infinite, with zero gradient, where there is nothing to compare: the point is behind the camera or the pixel is not
    finite. Raises ValueError for shapes or dtypes that do not fit.
    """
    _check_shapes(pixels, projections, None, None)
    conditioned = Conditioned.of(projections, pixels.dtype)
    x = conditioned.from_world(points_world)
    image = _image(x, conditioned.projections)
    depth = image[..., 2]
    seen = (depth > 0) & pixels.isfinite().all(dim=-1)
    projected = image[..., :2] / torch.where(seen, depth, torch.ones_like(depth))[..., None]
    offset = torch.where(seen[..., None], projected - pixels, torch.ones_like(pixels))
    # The norm's derivative at exactly 0 is taken as 0 by torch, so a perfect point is no trap.
    return torch.where(seen, offset.norm(dim=-1), torch.full_like(depth, torch.inf))


def pixels_per_metre(
    points_world: Float[Tensor, "*batch 3"], projections: Float[Tensor, "*#batch V 3 4"]
) -> Float[Tensor, "*batch V"]:
    """Focal length over depth at a point, up to one factor for all views: what makes rows of unit normal pixels.

    Zero where the point is behind the camera.
    """
    conditioned = Conditioned.of(projections, points_world.dtype)
    p = conditioned.projections
    focal = torch.linalg.cross(p[..., 0, :3], p[..., 2, :3]).norm(dim=-1)
    depth = _image(conditioned.from_world(points_world), p)[..., 2]
    return torch.where(depth > 0, focal / depth, torch.zeros_like(depth))


def checked_weights(
    points: Tensor, projections: Tensor, weights: Tensor | None, mask: Tensor | None, check: bool
) -> Float[Tensor, "*batch V"]:
    """The weight of each view with the mask in it, after the checks that `triangulate` promises."""
    _check_shapes(points, projections, weights, mask)
    if check:
        _check_values(projections, weights)
    weights = torch.ones_like(points[..., 0]) if weights is None else weights
    return weights if mask is None else torch.where(mask, weights, torch.zeros_like(weights))


def _image(x: Tensor, projections: Tensor) -> Float[Tensor, "*batch V 3"]:
    """Homogeneous pixels of conditioned points; the third entry has the sign of the depth."""
    return (projections[..., :3] @ x[..., None, :, None])[..., 0] + projections[..., 3]


def _before_the_cameras(x: Tensor, weights: Tensor, projections: Tensor) -> Tensor:
    depth = _image(x.detach(), projections.detach())[..., 2]
    return ((depth > 0) | (weights <= 0)).all(dim=-1)


def _check_shapes(points: Tensor, projections: Tensor, weights: Tensor | None, mask: Tensor | None) -> None:
    """ValueError naming the argument and its shape; reads no value."""
    for name, tensor in (("points", points), ("projections", projections), ("weights", weights)):
        if tensor is not None and tensor.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"{name} of shape {_shape(tensor)} are {tensor.dtype}; give float32 or float64")
    if points.ndim < 2 or points.shape[-1] != 2 or points.shape[-2] < 2:
        raise ValueError(f"points have shape {_shape(points)}; give (..., V, 2) with V of 2 or more views")
    batch, views = points.shape[:-2], points.shape[-2]
    if projections.ndim < 3 or projections.shape[-3:] != (views, 3, 4):
        raise ValueError(
            f"projections have shape {_shape(projections)} but points {_shape(points)}: give (..., {views}, 3, 4)"
        )
    outer = projections.shape[:-3]
    fits = len(outer) <= len(batch) and all(p in (1, b) for p, b in zip(outer[::-1], batch[::-1], strict=False))
    if not fits:
        raise ValueError(f"projections of shape {_shape(projections)} do not broadcast to points {_shape(points)}")
    for name, tensor in (("weights", weights), ("mask", mask)):
        if tensor is not None and tensor.shape != points.shape[:-1]:
            raise ValueError(
                f"{name} have shape {_shape(tensor)}; points {_shape(points)} need {_shape(points[..., 0])}"
            )
    if mask is not None and mask.dtype != torch.bool:
        raise ValueError(f"mask of shape {_shape(mask)} is {mask.dtype}; give torch.bool")


def _check_values(projections: Tensor, weights: Tensor | None) -> None:
    """ValueError for a camera without a centre or a weight that is negative or NaN."""
    without_centre = singular(projections)
    if bool(without_centre.any()):
        where = without_centre.nonzero()[0].tolist()
        raise ValueError(
            f"projections of shape {_shape(projections)}: the left 3x3 block at index {where} is singular or not "
            "finite, so this camera has no centre"
        )
    if weights is not None and weights.numel() > 0 and not bool(weights.detach().amin() >= 0):
        where = (~(weights >= 0)).nonzero()[0].tolist()
        raise ValueError(
            f"weights of shape {_shape(weights)} are negative or NaN at index {where}; an absent view has weight 0"
        )


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
