"""CameraRig: one type for one or many calibrated cameras."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mvpose.geometry.conditioning import inverse_3x3
from mvpose.geometry.lens import Lens, planar, radii
from mvpose.geometry.rigid import Rigid


@dataclass(frozen=True, eq=False)
class CameraRig:
    """V fully calibrated cameras: `pixel = focal * distort(x / z) + centre`, with `x = camera_from_world x_world`.

    Focal length and centre are in pixels with the centre of the top-left pixel at (0, 0); sizes are (width, height).
    Axes of a camera are OpenCV's: +X right, +Y down, +Z forward. The world is in metres, Z up.
    """

    names: tuple[str, ...]
    focal: Float[Tensor, "V 2"]
    centre: Float[Tensor, "V 2"]
    lens: Lens
    camera_from_world: Rigid
    size: Int[Tensor, "V 2"]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def intrinsics(self) -> Float[Tensor, "V 3 3"]:
        """K of each camera."""
        k = torch.zeros(len(self), 3, 3, dtype=self.focal.dtype, device=self.focal.device)
        k[:, 0, 0], k[:, 1, 1] = self.focal.unbind(-1)
        k[:, :2, 2] = self.centre
        k[:, 2, 2] = 1.0
        return k

    @property
    def projections(self) -> Float[Tensor, "V 3 4"]:
        """K [R | t] of the ideal cameras: they map the world to *undistorted* pixels."""
        return self.intrinsics @ self.camera_from_world.matrix()

    @property
    def centres_world(self) -> Float[Tensor, "V 3"]:
        """Positions of the cameras, in metres."""
        return self.camera_from_world.inverse().translation

    def project(self, points_world: Float[Tensor, "*n 3"]) -> tuple[Float[Tensor, "V *n 2"], Bool[Tensor, "V *n"]]:
        """World points to distorted pixels of every camera, and whether the camera can see them.

        A point is not visible if it is behind the camera or outside the region where the lens is one-to-one; its pixel
        is then finite but meaningless. That of a missing point (NaN) is NaN. `inside` tells whether it is on the image.
        """
        shape = points_world.shape[:-1]
        points = self.camera_from_world.apply(points_world.reshape(1, -1, 3))
        depth = points[..., 2]
        front = depth > 1e-6
        ideal = planar(*(points[..., i] / torch.where(front, depth, 1.0) for i in range(2)))
        one_to_one = radii(ideal.detach()) <= self.lens.limit().to(ideal)[:, None]
        seen = front & one_to_one
        meaningless = torch.where(depth.isnan(), torch.nan, torch.zeros_like(depth))
        ideal = torch.where(seen[..., None], ideal, meaningless[..., None])
        pixels = self.lens.distort(ideal) * self.focal[:, None] + self.centre[:, None]
        return pixels.reshape(len(self), *shape, 2), seen.reshape(len(self), *shape)

    def inside(self, pixels: Float[Tensor, "V *n 2"]) -> Bool[Tensor, "V *n"]:
        """Whether pixels are on the image (pixel centres span 0 .. size - 1, their areas half a pixel more)."""
        size = self.size.to(pixels).reshape(len(self), *[1] * (pixels.ndim - 2), 2)
        x, y = ((pixels >= -0.5) & (pixels <= size - 0.5)).unbind(-1)
        return x & y

    def undistorted(self, pixels: Float[Tensor, "V *n 2"]) -> tuple[Float[Tensor, "V *n 2"], Bool[Tensor, "V *n"]]:
        """Image pixels to pixels of the ideal cameras (`projections`), and where the lens is invertible."""
        flat = pixels.reshape(len(self), -1, 2)
        plane = (flat - self.centre[:, None]) / self.focal[:, None]
        ideal, valid = self.lens.undistort(plane)
        out = ideal * self.focal[:, None] + self.centre[:, None]
        return out.reshape(pixels.shape), valid.reshape(pixels.shape[:-1])

    def rays(self, pixels: Float[Tensor, "V *n 2"]) -> tuple[Float[Tensor, "V *n 3"], Bool[Tensor, "V *n"]]:
        """Unit directions in the world from `centres_world` through distorted pixels, and where they exist."""
        ideal, valid = self.undistorted(pixels)
        flat = (ideal.reshape(len(self), -1, 2) - self.centre[:, None]) / self.focal[:, None]
        directions = torch.cat([flat, torch.ones_like(flat[..., :1])], dim=-1) @ self.camera_from_world.rotation
        unit = directions / directions.norm(dim=-1, keepdim=True)
        return unit.reshape(*pixels.shape[:-1], 3), valid

    def cropped(self, origin: Float[Tensor, "V 2"], size: Int[Tensor, "V 2"]) -> CameraRig:
        """The rig of images cut out at `origin` (the pixel, possibly fractional, that becomes (0, 0))."""
        return replace(self, centre=self.centre - origin, size=size)

    def resized(self, scale: Float[Tensor, "V 2"], size: Int[Tensor, "V 2"]) -> CameraRig:
        """The rig of images scaled by (sx, sy): a pixel c goes to (c + 0.5) s - 0.5."""
        return replace(self, focal=self.focal * scale, centre=(self.centre + 0.5) * scale - 0.5, size=size)

    def select(self, names: tuple[str, ...]) -> CameraRig:
        """The cameras of these names, in this order. Raises KeyError for a name that is not in the rig."""
        position = {name: i for i, name in enumerate(self.names)}
        chosen = [position[name] for name in names]
        pose = Rigid(self.camera_from_world.rotation[chosen], self.camera_from_world.translation[chosen])
        return CameraRig(
            tuple(names),
            self.focal[chosen],
            self.centre[chosen],
            self.lens.select(chosen),
            pose,
            self.size[chosen],
        )

    def moved(self, world_from_new_world: Rigid) -> CameraRig:
        """The same cameras in another world frame."""
        return replace(self, camera_from_world=self.camera_from_world @ world_from_new_world)

    def to(self, target: torch.dtype | torch.device | str) -> CameraRig:
        """The same rig with another floating dtype or on another device."""
        return replace(
            self,
            focal=self.focal.to(target),
            centre=self.centre.to(target),
            lens=self.lens.to(target),
            camera_from_world=self.camera_from_world.to(target),
            size=self.size if isinstance(target, torch.dtype) else self.size.to(target),
        )


def pinhole_of(projections: Float[Tensor, "*n 3 4"]) -> tuple[Float[Tensor, "*n 3 3"], Rigid]:
    """K and camera_from_world of K [R | t]: the RQ decomposition, rows orthogonalised from the last to the first.

    K has a positive diagonal and 1 in its corner; a matrix of either sign is accepted. The 3x3 block must be regular.
    """
    first, second, third = projections[..., :3].unbind(-2)
    handedness = (torch.linalg.cross(first, second) * third).sum(dim=-1)
    sign = torch.where(handedness < 0, -1.0, 1.0)[..., None]
    first, second, third = sign * first, sign * second, sign * third
    forward = third / third.norm(dim=-1, keepdim=True)
    skew_y = (second * forward).sum(dim=-1, keepdim=True)
    down = second - skew_y * forward
    down = down / down.norm(dim=-1, keepdim=True)
    right = torch.linalg.cross(down, forward)
    rotation = torch.stack([right, down, forward], dim=-2)
    # Exact zeros below the diagonal.
    intrinsics = torch.triu((sign[..., None] * projections[..., :3]) @ rotation.transpose(-1, -2))
    intrinsics = intrinsics / intrinsics[..., 2:, 2:]
    last = (sign * projections[..., 3]) / third.norm(dim=-1, keepdim=True)
    return intrinsics, Rigid(rotation, (inverse_3x3(intrinsics) @ last[..., None])[..., 0])
