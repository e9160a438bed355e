"""A cube of voxels in the world, one per sample, and probabilities over it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Cube:
    """n^3 voxels about `centre`; the outer voxels' centres are on the faces (step `side` / (n - 1)).

    Voxel (i, j, k) is at `centre + rotation ((i, j, k) / (n - 1) - 0.5) side`.
    """

    centre: Float[Tensor, "B 3"]
    rotation: Float[Tensor, "B 3 3"]
    side: float
    """Metres."""
    count: int
    """Voxels along a side."""

    def world_of(self, index: Float[Tensor, "B J 3"]) -> Float[Tensor, "B J 3"]:
        """World position, in metres, of (fractional) voxel indices."""
        local = (index / (self.count - 1) - 0.5) * self.side
        return self.centre[:, None] + (self.rotation[:, None] * local[..., None, :]).sum(dim=-1)

    def index_of(self, points: Float[Tensor, "B J 3"]) -> Float[Tensor, "B J 3"]:
        """(Fractional) voxel indices of world points; outside 0..n-1 beyond the cube."""
        away = (points - self.centre[:, None])[..., None]
        return ((self.rotation[:, None] * away).sum(dim=-2) / self.side + 0.5) * (self.count - 1)

    def index_projections(self, unit_projections: Float[Tensor, "B V 3 4"]) -> Float[Tensor, "B V 3 4"]:
        """Projections, in double precision, of voxel indices (i, j, k, 1) instead of positions."""
        matrix, step = unit_projections.double(), self.side / (self.count - 1)
        corner = self.centre.double() - self.rotation.double().sum(dim=-1) * self.side / 2
        linear = matrix[..., :3] @ self.rotation.double()[:, None]
        last = (matrix[..., :3] * corner[:, None, None]).sum(dim=-1) + matrix[..., 3]
        return torch.cat([linear * step, last[..., None]], dim=-1)

    def image_points(
        self, unit_projections: Float[Tensor, "B V 3 4"]
    ) -> tuple[Float[Tensor, "B V N 2"], Bool[Tensor, "B V N"]]:
        """Projection of all N = n^3 voxels in each image (-1..1 over it), and a mask of those in front of the camera.

        `unit_projections` as by `image_units`. A point behind a camera is set to (2, 2), outside its image.
        """
        matrix = unit_projections[..., :3] @ self.rotation[:, None]
        at_centre = (unit_projections[..., :3] * self.centre[:, None, None]).sum(dim=-1) + unit_projections[..., 3]
        line = torch.linspace(-0.5, 0.5, self.count).to(unit_projections) * self.side
        # Each voxel's homogeneous pixel is a sum over its three indices: n^3 numbers are added, never multiplied.
        x, y, z = (matrix[..., axis, None] * line for axis in range(3))
        x = x + at_centre[..., None]
        homogeneous = x[..., :, None, None] + y[..., None, :, None] + z[..., None, None, :]
        x, y, depth = homogeneous.flatten(3).unbind(2)
        front = depth > 1e-3
        outside = depth.new_tensor(2.0)
        plane = torch.stack([torch.where(front, axis / depth, outside) for axis in (x, y)], dim=-1)
        return plane, front


@dataclass(frozen=True, eq=False)
class Volume:
    """Log-probability of each joint over a cube (sums to 1 over the voxels, in probability)."""

    log_probability: Float[Tensor, "B J n n n"]
    cube: Cube

    def at(
        self, points: Float[Tensor, "B J 3"], *, trilinear: bool = False
    ) -> tuple[Float[Tensor, "B J"], Bool[Tensor, "B J"]]:
        """Log-probability at each world point, and a mask of the points inside the cube.

        It is that of the nearest voxel, or the mean of the eight voxels about the point by their trilinear shares. The
        latter is the negative cross-entropy to the only target over those voxels whose mean is the point itself.
        """
        last = self.cube.count - 1
        index = self.cube.index_of(points)
        inside = ((index >= -0.5) & (index <= last + 0.5)).all(dim=-1)
        index = index.clamp(0, last)
        if not trilinear:
            return self._of(index.round().long()), inside
        low = index.floor().clamp(max=last - 1)
        share = torch.stack([1 - (index - low), index - low])
        value = torch.zeros_like(share[0, ..., 0])
        for corner in product((0, 1), repeat=3):
            weight = torch.stack([share[c, ..., axis] for axis, c in enumerate(corner)]).prod(dim=0)
            value = value + weight * self._of(low.long() + torch.tensor(corner, device=low.device))
        return value, inside

    def _of(self, index: Int[Tensor, "B J 3"]) -> Float[Tensor, "B J"]:
        n = self.cube.count
        i, j, k = index.unbind(-1)
        return self.log_probability.flatten(2).gather(2, ((i * n + j) * n + k)[..., None])[..., 0]


def about_vertical(angle: Float[Tensor, "B"]) -> Float[Tensor, "B 3 3"]:
    """Rotations by `angle` radians about the world's vertical, +Z."""
    c, s, zero, one = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([c, -s, zero, s, c, zero, zero, zero, one], dim=-1).unflatten(-1, (3, 3))
