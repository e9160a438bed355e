"""Synthetic data of the triangulation benchmark: points in a ring of cameras, with noise and outliers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mvpose.geometry.camera import CameraRig
from mvpose.geometry.lens import Lens
from mvpose.geometry.rigid import Rigid


@dataclass(frozen=True, eq=False)
class DrawnObservations:
    """Observations of known points by the cameras of a rig."""

    points_world: Float[Tensor, "N 3"]
    pixels: Float[Tensor, "N V 2"]
    rig: CameraRig

    def first(self, num: int) -> DrawnObservations:
        """The first points only."""
        return DrawnObservations(self.points_world[:num], self.pixels[:num], self.rig)


def room_ring(num_views: int) -> CameraRig:
    """Cameras without distortion on a circle of 5 m, 1 to 2 m high, looking at its middle; 1000 x 1000 pixels."""
    turn = torch.arange(num_views, dtype=torch.float64) * (2.0 * math.pi / num_views) + 0.2
    centres = torch.stack([5.0 * turn.cos(), 5.0 * turn.sin(), 1.5 + 0.5 * (3.0 * turn).sin()], dim=-1)
    z = torch.nn.functional.normalize(torch.tensor([0.0, 0.0, 0.9]) - centres, dim=-1)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand_as(z)
    x = torch.nn.functional.normalize(torch.linalg.cross(z, up), dim=-1)
    rotation = torch.stack([x, torch.linalg.cross(z, x), z], dim=-2)
    pose = Rigid(rotation, -(rotation @ centres[..., None])[..., 0])
    focal = torch.full((num_views, 2), 1145.0, dtype=torch.float64)
    centre = torch.full((num_views, 2), 499.5, dtype=torch.float64)
    names = tuple(f"camera{i:02}" for i in range(num_views))
    return CameraRig(names, focal, centre, Lens.none(num_views), pose, torch.full((num_views, 2), 1000))


def observe(
    num_points: int,
    num_views: int,
    *,
    dtype: torch.dtype,
    device: str,
    noise_px: float,
    outlier_share: float,
    outlier_px: float,
    seed: int = 0,
) -> DrawnObservations:
    """Points in a box of 3 x 3 x 1.8 m, observed with noise; a share are outliers by `outlier_px` in any direction."""
    generator = torch.Generator(device).manual_seed(seed)
    rig = room_ring(num_views)
    box, low = torch.tensor([3.0, 3.0, 1.8], device=device), torch.tensor([-1.5, -1.5, 0.0], device=device)
    points = torch.rand(num_points, 3, generator=generator, device=device) * box + low
    pixels = torch.empty(num_points, num_views, 2, dtype=dtype, device=device)
    # View by view: at 100 million points, all views in float64 would not fit in memory with the result.
    for view, projection in enumerate(rig.projections.to(device).float()):
        image = points @ projection[:, :3].T + projection[:, 3]
        seen = image[:, :2] / image[:, 2:] + noise_px * torch.randn(num_points, 2, generator=generator, device=device)
        wrong = torch.rand(num_points, generator=generator, device=device) < outlier_share
        angle = 2.0 * math.pi * torch.rand(num_points, generator=generator, device=device)
        pixels[:, view] = seen + outlier_px * wrong[:, None] * torch.stack([angle.cos(), angle.sin()], dim=-1)
    return DrawnObservations(points, pixels, rig)
