"""Cameras of heatmaps: projection of world points in metres to pixels of the maps of undistorted crops."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

NEAREST_M = 1e-3


@dataclass(frozen=True, eq=False)
class CropCameras:
    """Matrices that map the world to heatmap pixels, one per sample and view."""

    projections: Float[Tensor, "B V 3 4"]

    @staticmethod
    def of_crops(
        projections: Float[Tensor, "B V 3 4"], size: tuple[int, int], map_size: tuple[int, int]
    ) -> CropCameras:
        """Cameras of heatmaps of (width, height) `map_size` from those of undistorted crops of `size`."""
        scale = [m / s for m, s in zip(map_size, size, strict=True)]
        shift = [0.5 * (s - 1.0) for s in scale]
        resize = torch.tensor([[scale[0], 0.0, shift[0]], [0.0, scale[1], shift[1]], [0.0, 0.0, 1.0]])
        return CropCameras(resize.to(projections) @ projections)

    @property
    def centres(self) -> Float[Tensor, "B V 3"]:
        """Positions of the cameras in the world, metres."""
        return -torch.linalg.solve(self.projections[..., :3], self.projections[..., 3])

    def project(self, points_world: Float[Tensor, "B n 3"]) -> tuple[Float[Tensor, "B V n 2"], Bool[Tensor, "B V n"]]:
        """World points to heatmap pixels; a point nearer than 1 mm to the camera's plane, or behind it, is unseen."""
        matrix = self.projections
        image = points_world[:, None] @ matrix[..., :3].transpose(-1, -2) + matrix[..., None, :, 3]
        # The third row of K [R | t] is the unit axis of the camera only if the matrix has not been rescaled.
        depth = image[..., 2] / matrix[..., 2, :3].norm(dim=-1, keepdim=True)
        seen = depth > NEAREST_M
        pixels = image[..., :2] / torch.where(seen, image[..., 2], torch.ones_like(depth))[..., None]
        return torch.where(seen[..., None], pixels, torch.zeros_like(pixels)), seen
