"""Direct linear transformation (DLT): rays of several views to one point, batched, weighted and differentiable."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mvpose.geometry.conditioning import Conditioned, singular
from mvpose.geometry.dlt import DltMethod, design_rows, determined, solve
from mvpose.geometry.kernels import fused

__all__ = [
    "DltMethod",
    "Kernel",
    "Triangulation",
    "chosen_engine",
    "explain",
    "reprojection_errors",
    "triangulate",
]

# At 5 m from the cameras, rays half a degree apart turn 1 mm of lateral error into 0.1 m along the ray.
MIN_ANGLE = math.radians(0.5)
FUSED_METHODS = (DltMethod.NORMAL, DltMethod.SII)


class Kernel(StrEnum):
    """The implementation: one fused kernel for the device (numba or Triton), or plain torch, its reference."""

    FUSED = "fused"
    TORCH = "torch"


@dataclass(frozen=True, eq=False)
class Triangulation:
    """Points and whether they are determined; an undetermined point is (0, 0, 0) with `valid` false, never a guess."""

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
    engine: Kernel | None = None,
    check: bool = True,
) -> Triangulation:
    """Undistorted pixels of V views to world points in metres, in the dtype of `points` (float32 or float64).

    A view with weight 0 or mask false is absent: its pixel may be anything, including NaN. Weights multiply the rows of
    a view. A point is valid if at least two views see it, their rays are as well spread as two rays `min_angle` radians
    apart, and it is in front of every camera that sees it. Gradients reach points, weights and projections; they are
    zero for invalid points.

    `iterations`, `shift` (a fraction of trace(A^T A)) and `start` (world, a constant; the centre of the rig if None)
    belong to SII. Internally, rows are normalised and the world is centred on the rig, so float32 is sufficient at any
    offset that the projections themselves can represent: pass projections in float64 for a rig far from its origin.

    `engine` None selects as `chosen_engine` does; `explain` reports the choice. Raises ValueError for inconsistent
    shapes, dtypes or settings, ImportError if a fused kernel cannot run. With `check`, also ValueError for negative or
    NaN weights and cameras without a centre: one pass over weights and projections, and one synchronisation on a GPU.
    Without it, such points are not valid, and a negative weight counts as 0.
    """
    weights = _masked(points, projections, weights, mask, check)
    _check_settings(method, iterations, shift)
    engine = chosen_engine(points, projections, method) if engine is None else engine
    conditioned = Conditioned.of(projections, points.dtype)
    start = None if start is None else conditioned.from_world(start.detach().to(points.dtype))
    minimum = 1.0 - math.cos(min_angle)
    if engine == Kernel.FUSED:
        if method not in FUSED_METHODS or projections.requires_grad:
            raise ValueError(f"the fused kernels solve {[*FUSED_METHODS]} with constant projections, not {method} here")
        solver = fused.Solver(method == DltMethod.SII, iterations, shift, minimum)
        return Triangulation(*fused.triangulate(points, conditioned, weights, start, solver))
    weights = torch.ones_like(points[..., 0]) if weights is None else weights.clamp_min(0.0)
    rows = design_rows(points, weights, conditioned.projections)
    x, ok = solve(rows, determined(rows, weights, minimum), method, start, iterations, shift)
    valid = ok & _before_the_cameras(x, weights, conditioned.projections)
    world = conditioned.to_world(x)
    return Triangulation(torch.where(valid[..., None], world, torch.zeros_like(world)), valid)


def chosen_engine(points: Tensor, projections: Tensor, method: DltMethod) -> Kernel:
    """The default kernel of `triangulate`: the fused kernel of the device if it supports the arguments.

    It does for NORMAL and SII on the CPU and on CUDA, unless the projections need a gradient, or torch.compile or
    torch.export are tracing, to which a kernel is opaque.
    """
    fits = method in FUSED_METHODS and points.device.type in ("cpu", "cuda") and not projections.requires_grad
    return Kernel.FUSED if fits and not torch.compiler.is_compiling() else Kernel.TORCH


def explain(points: Tensor, projections: Tensor, method: DltMethod = DltMethod.NORMAL) -> str:
    """One sentence on which implementation `triangulate` runs for these arguments, and where."""
    where = f"{method} in {str(points.dtype).removeprefix('torch.')} on {points.device}"
    if chosen_engine(points, projections, method) == Kernel.TORCH:
        return f"{where}: plain torch operations"
    if points.device.type == "cuda":
        return f"{where}: fused Triton kernel"
    return f"{where}: fused kernel compiled by numba, up to {torch.get_num_threads()} threads"


def reprojection_errors(
    points_world: Float[Tensor, "*batch 3"],
    pixels: Float[Tensor, "*batch V 2"],
    projections: Float[Tensor, "*#batch V 3 4"],
) -> Float[Tensor, "*batch V"]:
    """Distance in pixels between undistorted pixels and the projected points.

    Infinite, with zero gradient, if the point is behind the camera or the pixel is not finite. Raises ValueError for
    inconsistent shapes or dtypes.
    """
    _check_shapes(pixels, projections, None, None, min_views=1)
    conditioned = Conditioned.of(projections, pixels.dtype)
    x = conditioned.from_world(points_world)
    image = _image(x, conditioned.projections)
    depth = image[..., 2]
    seen = (depth > 0) & pixels.isfinite().all(dim=-1)
    projected = image[..., :2] / torch.where(seen, depth, torch.ones_like(depth))[..., None]
    offset = torch.where(seen[..., None], projected - pixels, torch.ones_like(pixels))
    # torch defines the norm's derivative at exactly 0 as 0, so a perfect point is safe.
    return torch.where(seen, offset.norm(dim=-1), torch.full_like(depth, torch.inf))


def checked_weights(
    points: Tensor, projections: Tensor, weights: Tensor | None, mask: Tensor | None, check: bool
) -> Float[Tensor, "*batch V"]:
    """The weight of each view including the mask, after the checks documented in `triangulate`."""
    weights = _masked(points, projections, weights, mask, check)
    return torch.ones_like(points[..., 0]) if weights is None else weights


def _masked(
    points: Tensor, projections: Tensor, weights: Tensor | None, mask: Tensor | None, check: bool
) -> Tensor | None:
    """Weights including the mask, None if all views count equally; checked."""
    _check_shapes(points, projections, weights, mask)
    if check:
        _check_values(projections, weights)
    if weights is None:
        return None if mask is None else mask.to(points.dtype)
    return weights.to(points.dtype) if mask is None else torch.where(mask, weights.to(points.dtype), 0.0)


def _image(x: Tensor, projections: Tensor) -> Float[Tensor, "*batch V 3"]:
    """Homogeneous pixels of conditioned points; the third entry has the sign of the depth."""
    return torch.einsum("...vij,...j->...vi", projections[..., :3], x) + projections[..., 3]


def _before_the_cameras(x: Tensor, weights: Tensor, projections: Tensor) -> Tensor:
    depth = _image(x.detach(), projections.detach())[..., 2]
    return ((depth > 0) | (weights <= 0)).all(dim=-1)


def _check_shapes(
    points: Tensor, projections: Tensor, weights: Tensor | None, mask: Tensor | None, min_views: int = 2
) -> None:
    """Raises ValueError naming the argument and its shape; reads no values."""
    for name, tensor in (("points", points), ("projections", projections), ("weights", weights)):
        if tensor is not None and tensor.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"{name} of shape {_shape(tensor)} are {tensor.dtype}; give float32 or float64")
    if points.ndim < 2 or points.shape[-1] != 2 or points.shape[-2] < min_views:
        raise ValueError(f"points have shape {_shape(points)}; give (..., V, 2) with V of {min_views} or more views")
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


def _check_settings(method: DltMethod, iterations: int, shift: float) -> None:
    if method == DltMethod.SII and (iterations < 1 or not shift > 0.0):
        raise ValueError(f"SII needs at least 1 iteration and a positive shift; got {iterations} and {shift}")


def _check_values(projections: Tensor, weights: Tensor | None) -> None:
    """Raises ValueError for a camera without a centre or a weight that is negative or NaN."""
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
