"""Rescale projections so that float32 is sufficient: origin between the cameras, the size of the rig as unit.

3x3 matrices are inverted by cofactors. Without a solver call, the code compiles, exports and batches without GPU
synchronisation. Of 18 ms for 16 samples of 4 cameras and 17 joints on a CPU, LAPACK's batched solver and determinant
took 17; cofactors take 0.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


def adjugate(matrix: Float[Tensor, "*b 3 3"]) -> tuple[Float[Tensor, "*b 3 3"], Float[Tensor, "*b"]]:
    """Adjugates and determinants: matrix^-1 = adjugate / determinant."""
    a, b, c = matrix.unbind(-2)
    columns = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], dim=-1)
    return columns, (a * columns[..., 0]).sum(dim=-1)


def inverse_3x3(matrix: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """Inverses; not finite where a matrix is singular."""
    columns, determinant = adjugate(matrix)
    return columns / determinant[..., None, None]


# |det M| of a pinhole camera's left 3x3 block with rows of length 1 is cos(angle to the principal point's ray), near 1;
# for a singular one in float32 it is about 1e-7.
SINGULAR = 1e-6


@dataclass(frozen=True, eq=False)
class Conditioned:
    """`x_world = scale x + centre`; the third row of each projection has unit direction and gives depth over scale."""

    projections: Float[Tensor, "*batch V 3 4"]
    centre: Float[Tensor, "*batch 3"]
    scale: Float[Tensor, "*batch"]

    @staticmethod
    def of(projections: Float[Tensor, "*batch V 3 4"], dtype: torch.dtype) -> Conditioned:
        """Centre on the mean of the camera centres, scale by their mean distance from it; computed in float64."""
        exact = projections.double()
        left, right = exact[..., :3], exact[..., 3]
        columns, determinant = adjugate(left)
        centres = -(columns @ right[..., None])[..., 0] / determinant[..., None]
        centre = centres.mean(dim=-2)
        spread = (centres - centre[..., None, :]).norm(dim=-1).mean(dim=-1)
        scale = torch.where(spread > 0, spread, torch.ones_like(spread))
        sign = torch.where(determinant.detach() < 0, -1.0, 1.0)
        unit = sign / left.detach()[..., 2, :].norm(dim=-1)
        moved = (left @ centre[..., None, :, None])[..., 0] + right
        shifted = torch.cat([left, (moved / scale[..., None, None])[..., None]], dim=-1)
        return Conditioned((shifted * unit[..., None, None]).to(dtype), centre.to(dtype), scale.to(dtype))

    def from_world(self, points_world: Float[Tensor, "*#batch 3"]) -> Float[Tensor, "*#batch 3"]:
        """World points to conditioned coordinates."""
        return (points_world - self.centre) / self.scale[..., None]

    def to_world(self, points: Float[Tensor, "*#batch 3"]) -> Float[Tensor, "*#batch 3"]:
        """Conditioned coordinates to world points."""
        return points * self.scale[..., None] + self.centre


def singular(projections: Float[Tensor, "*batch V 3 4"]) -> Tensor:
    """Which cameras have no centre: the left 3x3 block is singular or not finite; shape (*batch V)."""
    left = projections.detach()[..., :3].double()
    rows = left.norm(dim=-1, keepdim=True)
    determinant = adjugate(left / rows)[1].abs()
    return ~((determinant > SINGULAR) & projections.detach().isfinite().all(dim=-1).all(dim=-1))
