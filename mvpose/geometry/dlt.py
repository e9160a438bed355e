"""The four DLT solvers in plain torch: the reference of the fused kernels, differentiable to any order.

One row per image axis: (u p3 - p1) x = 0 and (v p3 - p2) x = 0, each scaled to a unit plane normal, so that a residual
is the distance of the point from the plane of the ray (Hartley and Zisserman, 12.2, with that normalisation).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mvpose.geometry import DltMethod
from mvpose.geometry.conditioning import adjugate

# In units of the rig: a solution farther away than a million rigs is a direction, not a point.
MAX_DISTANCE = 1e6


def design_rows(
    points: Float[Tensor, "*batch V 2"], weights: Float[Tensor, "*batch V"], projections: Float[Tensor, "*#batch V 3 4"]
) -> Float[Tensor, "*batch W 4"]:
    """A of each point, W = 2 V weighted rows with unit normals before the weight; unobserved views give zero rows."""
    seen = torch.where(weights[..., None] > 0, points, torch.zeros_like(points))
    rows = seen[..., None] * projections[..., 2:3, :] - projections[..., :2, :]
    unit = rows / rows[..., :3].norm(dim=-1, keepdim=True)
    return (unit * weights[..., None, None]).flatten(-3, -2)


def determined(
    rows: Float[Tensor, "*batch W 4"], weights: Float[Tensor, "*batch V"], min_precision: float
) -> Bool[Tensor, "*batch"]:
    """Whether two or more views see the point under a sufficient angle.

    Precision is 1 / trace((sum w^2 n n^T)^-1) with the largest weight as unit: 1 - cos(angle) for two rays of equal
    weight under a small angle. Works for any number of views and weights, at the cost of one 3x3 adjugate.
    """
    normals = rows.detach()[..., :3]
    cofactors, determinant = adjugate(normals.transpose(-1, -2) @ normals)
    total = cofactors.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    unit = weights.detach().amax(dim=-1) ** 2
    enough = determinant > min_precision * unit * total
    return enough & ((weights > 0).sum(dim=-1) >= 2) & rows.detach().isfinite().all(dim=-1).all(dim=-1)


def solve(
    rows: Float[Tensor, "*batch W 4"],
    ok: Bool[Tensor, "*batch"],
    method: DltMethod,
    start: Float[Tensor, "*#batch 3"] | None,
    iterations: int,
    shift: float,
) -> tuple[Float[Tensor, "*batch 3"], Bool[Tensor, "*batch"]]:
    """The point of each A and whether it is finite; systems that are not `ok` are replaced to avoid NaN."""
    rows = torch.where(ok[..., None, None], rows, _harmless(rows))
    if method == DltMethod.NORMAL:
        return _normal(rows), ok
    if method == DltMethod.SVD:
        x = torch.linalg.svd(rows, full_matrices=False).Vh[..., -1, :]
    elif method == DltMethod.EIGH:
        x = torch.linalg.eigh(rows.transpose(-1, -2) @ rows).eigenvectors[..., 0]
    else:
        x = _shifted_iterations(rows, start, iterations, shift)
    finite = ok & (x.detach()[..., 3].abs() * MAX_DISTANCE > x.detach()[..., :3].norm(dim=-1))
    w = torch.where(finite, x[..., 3], torch.ones_like(x[..., 3]))
    return x[..., :3] / w[..., None], finite


def _harmless(rows: Tensor) -> Tensor:
    """A system with four distinct singular values, safe for every method and its derivative."""
    stand_in = torch.zeros_like(rows)
    stand_in[..., torch.arange(4), torch.arange(4)] = torch.tensor([4.0, 3.0, 2.0, 1.0]).to(rows)
    return stand_in


def _normal(rows: Tensor) -> Tensor:
    normals, offsets = rows[..., :3], rows[..., 3:]
    cofactors, determinant = adjugate(normals.transpose(-1, -2) @ normals)
    right = (normals.transpose(-1, -2) @ offsets)[..., 0]
    return -(cofactors @ right[..., None])[..., 0] / determinant[..., None]


def _shifted_iterations(rows: Tensor, start: Tensor | None, iterations: int, shift: float) -> Tensor:
    """x <- (A^T A + shift trace(A^T A) I)^-1 x, from the homogeneous `start`; scaled only against overflow."""
    gram = rows.transpose(-1, -2) @ rows
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    factor, _ = torch.linalg.cholesky_ex(gram + (shift * trace)[..., None, None] * torch.eye(4).to(gram))
    origin = torch.zeros_like(rows[..., 0, :3]) if start is None else start.expand_as(rows[..., 0, :3])
    x = torch.cat([origin, torch.ones_like(origin[..., :1])], dim=-1)
    for _ in range(iterations):
        x = torch.cholesky_solve(x[..., None], factor)[..., 0]
        x = x / x.detach().norm(dim=-1, keepdim=True)
    return x
