"""Rigid transforms named `a_from_b`, so that names cancel: `a_from_c = a_from_b @ b_from_c`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Rigid:
    """Rotation and translation, batched: `x_a = rotation x_b + translation`."""

    rotation: Float[Tensor, "*batch 3 3"]
    translation: Float[Tensor, "*batch 3"]

    @staticmethod
    def identity(*batch: int, dtype: torch.dtype = torch.float64) -> Rigid:
        """The identity transform, of the given batch shape."""
        return Rigid(torch.eye(3, dtype=dtype).expand(*batch, 3, 3), torch.zeros(*batch, 3, dtype=dtype))

    @staticmethod
    def from_rotation_vector(vector: Float[Tensor, "*batch 3"], translation: Float[Tensor, "*batch 3"]) -> Rigid:
        """From a rotation vector (axis times angle in radians; Rodrigues) and a translation."""
        return Rigid(torch.linalg.matrix_exp(cross_matrix(vector)), translation)

    def __matmul__(self, other: Rigid) -> Rigid:
        """Composition: `(a_from_b @ b_from_c).apply(x_c) == a_from_b.apply(b_from_c.apply(x_c))`."""
        moved = (self.rotation @ other.translation[..., None])[..., 0]
        return Rigid(self.rotation @ other.rotation, moved + self.translation)

    def inverse(self) -> Rigid:
        """`b_from_a` of an `a_from_b`."""
        back = self.rotation.transpose(-1, -2)
        return Rigid(back, -(back @ self.translation[..., None])[..., 0])

    def apply(self, points: Float[Tensor, "*#batch n 3"]) -> Float[Tensor, "*batch n 3"]:
        """Points of frame b in frame a; the batch axes broadcast."""
        return points @ self.rotation.transpose(-1, -2) + self.translation[..., None, :]

    def matrix(self) -> Float[Tensor, "*batch 3 4"]:
        """The 3x4 matrix [rotation | translation]."""
        return torch.cat([self.rotation, self.translation[..., None]], dim=-1)

    def to(self, target: torch.dtype | torch.device | str) -> Rigid:
        """The same transform with another dtype or on another device."""
        return Rigid(self.rotation.to(target), self.translation.to(target))


def cross_matrix(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The matrix [v]x with `[v]x w = v x w`."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    rows = [zero, -z, y, z, zero, -x, -y, x, zero]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))
