"""Cameras of heatmaps: projection between world points in metres and pixels of cropped heatmaps.

`HeatmapCameras` are V cameras in B samples (frames), in pixels of the heatmaps: `project` maps the world to
the maps, `undistorted` maps heatmap pixels to pixels of ideal cameras, whose matrices are `projections`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mvpose.geometry.camera import CameraRig

NEAREST_M = 1e-3


@dataclass(frozen=True, eq=False)
class CropCameras:
    """Ideal cameras: matrices that map the world to heatmap pixels, one per sample and view."""

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

    def project(self, points_world: Float[Tensor, "B n 3"]) -> tuple[Float[Tensor, "B V n 2"], Bool[Tensor, "B V n"]]:
        """World points to heatmap pixels; a point nearer than 1 mm to the camera's plane, or behind it, is unseen."""
        matrix = self.projections
        image = points_world[:, None] @ matrix[..., :3].transpose(-1, -2) + matrix[..., None, :, 3]
        # The third row of K [R | t] is the unit axis of the camera only if the matrix has not been rescaled.
        depth = image[..., 2] / matrix[..., 2, :3].norm(dim=-1, keepdim=True)
        seen = depth > NEAREST_M
        pixels = image[..., :2] / torch.where(seen, image[..., 2], torch.ones_like(depth))[..., None]
        return torch.where(seen[..., None], pixels, torch.zeros_like(pixels)), seen

    def undistorted(self, points: Float[Tensor, "B V n 2"]) -> tuple[Float[Tensor, "B V n 2"], Bool[Tensor, "B V n"]]:
        """The points unchanged: there is no lens distortion."""
        return points, torch.ones_like(points[..., 0], dtype=torch.bool)


@dataclass(frozen=True, eq=False)
class RigCameras:
    """A rig with its lenses, and for each sample and view the affine map from image pixels to heatmap pixels."""

    rig: CameraRig
    map_from_image: Float[Tensor, "B V 2 3"]

    @property
    def projections(self) -> Float[Tensor, "B V 3 4"]:
        """The affine map applied after the rig's ideal cameras."""
        last = torch.tensor([0.0, 0.0, 1.0]).to(self.map_from_image).expand(*self.map_from_image.shape[:2], 1, 3)
        return torch.cat([self.map_from_image, last], dim=-2) @ self.rig.projections.to(self.map_from_image)

    def project(self, points_world: Float[Tensor, "B n 3"]) -> tuple[Float[Tensor, "B V n 2"], Bool[Tensor, "B V n"]]:
        """World points through lens and crop to heatmap pixels."""
        pixels, seen = self.rig.project(points_world)
        return self._to_map(pixels.transpose(0, 1)), seen.transpose(0, 1)

    def undistorted(self, points: Float[Tensor, "B V n 2"]) -> tuple[Float[Tensor, "B V n 2"], Bool[Tensor, "B V n"]]:
        """Back through crop and lens, then forward through the crop only."""
        matrix = self.map_from_image
        pixels = (points - matrix[..., None, :, 2]) @ torch.linalg.inv(matrix[..., :2]).transpose(-1, -2)
        ideal, valid = self.rig.undistorted(pixels.transpose(0, 1))
        return self._to_map(ideal.transpose(0, 1)), valid.transpose(0, 1)

    def _to_map(self, pixels: Float[Tensor, "B V n 2"]) -> Float[Tensor, "B V n 2"]:
        matrix = self.map_from_image
        return pixels @ matrix[..., :2].transpose(-1, -2) + matrix[..., None, :, 2]


HeatmapCameras = CropCameras | RigCameras
