"""Direct linear transformation (DLT): rays of several views to one point, batched and weighted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Triangulation:
    """Points and where they are determined; an undetermined point is (0, 0, 0) with `valid` false, never a guess."""

    points: Float[Tensor, "*batch 3"]
    valid: Bool[Tensor, "*batch"]


def triangulate(
    points: Float[Tensor, "*batch V 2"],
    projections: Float[Tensor, "*#batch V 3 4"],
    weights: Float[Tensor, "*batch V"] | None = None,
) -> Triangulation:
    """Weighted DLT by the eigenvector of the smallest eigenvalue (first draft; the full interface follows)."""
    weights = torch.ones_like(points[..., 0]) if weights is None else weights
    observed = torch.where(weights[..., None] > 0, points, torch.zeros_like(points))
    rows = observed[..., None] * projections[..., 2:3, :] - projections[..., :2, :]
    rows = rows / rows[..., :3].norm(dim=-1, keepdim=True) * weights[..., None, None]
    a = rows.flatten(-3, -2)
    x = torch.linalg.eigh(a.transpose(-1, -2) @ a).eigenvectors[..., 0]
    valid = ((weights > 0).sum(dim=-1) >= 2) & (x[..., 3].abs() > 1e-9)
    w = torch.where(valid, x[..., 3], torch.ones_like(x[..., 3]))
    return Triangulation(torch.where(valid[..., None], x[..., :3] / w[..., None], torch.zeros_like(x[..., :3])), valid)
