"""Cameras for the tests of this folder: the four of Human3.6M's room, rings, and near-opposing pairs."""

import math

import torch

from mvpose.geometry.camera import CameraRig
from mvpose.geometry.lens import Lens, LensModel
from mvpose.geometry.rigid import Rigid

# Intrinsics of Human3.6M's cameras 54138969, 55011271, 58860488, 60457274; places as in its room: 1 and 4, and 2 and 3,
# stand almost opposite each other.
H36M_INTRINSICS = [
    [1145.05, 1143.78, 512.54, 515.45],
    [1149.68, 1147.59, 508.85, 508.06],
    [1149.14, 1148.79, 519.82, 501.40],
    [1145.51, 1144.77, 514.97, 501.88],
]
H36M_CENTRES = [[1.76, -5.08, 1.60], [2.10, 4.88, 1.56], [-1.97, -4.58, 1.40], [-1.63, 4.90, 1.50]]


def looking_at(centres: torch.Tensor, target: torch.Tensor) -> Rigid:
    """Poses of cameras at `centres` (V 3), upright, with the target in the middle of their images."""
    z = torch.nn.functional.normalize(target - centres, dim=-1)
    x = torch.nn.functional.normalize(torch.linalg.cross(z, torch.tensor([0.0, 0.0, 1.0]).to(z).expand_as(z)), dim=-1)
    rotation = torch.stack([x, torch.linalg.cross(z, x), z], dim=-2)
    return Rigid(rotation, -(rotation @ centres[..., None])[..., 0])


def rig(intrinsics: torch.Tensor, centres: torch.Tensor, lens: Lens | None = None) -> CameraRig:
    views = len(centres)
    pose = looking_at(centres, torch.tensor([0.0, 0.0, 0.9], dtype=torch.float64))
    names = tuple(f"camera{i}" for i in range(views))
    size = torch.full((views, 2), 1000)
    return CameraRig(names, intrinsics[:, :2], intrinsics[:, 2:], lens or Lens.none(views), pose, size)


def h36m(lens: Lens | None = None) -> CameraRig:
    return rig(
        torch.tensor(H36M_INTRINSICS, dtype=torch.float64), torch.tensor(H36M_CENTRES, dtype=torch.float64), lens
    )


def ring(views: int, lens: Lens | None = None) -> CameraRig:
    turn = torch.arange(views, dtype=torch.float64) * (2 * math.pi / views) + 0.2
    centres = torch.stack([5 * turn.cos(), 5 * turn.sin(), 1.5 + 0.5 * (3 * turn).sin()], dim=-1)
    intrinsics = torch.tensor([1145.0, 1145.0, 512.0, 512.0], dtype=torch.float64).expand(views, 4).contiguous()
    return rig(intrinsics, centres, lens)


def distorted(views: int) -> Lens:
    """Real lenses' distortion, another in every camera."""
    rows = [[-0.2 + 0.02 * i, 0.15 - 0.01 * i, 0.001, -0.0012, -0.01] for i in range(views)]
    return Lens.of(LensModel.BROWN_CONRADY, rows)


def people_points(num: int, seed: int = 0) -> torch.Tensor:
    """World points (num 3) where people are: a 3 x 3 x 1.8 m box."""
    generator = torch.Generator().manual_seed(seed)
    box = torch.tensor([3.0, 3.0, 1.8], dtype=torch.float64)
    return (torch.rand(num, 3, generator=generator, dtype=torch.float64) - 0.5) * box + torch.tensor([0.0, 0.0, 0.9])


def ideal_pixels(points: torch.Tensor, projections: torch.Tensor) -> torch.Tensor:
    """Pixels (num V 2) of world points (num 3), straight from the definition."""
    homogeneous = torch.cat([points, torch.ones_like(points[:, :1])], dim=-1)
    image = torch.einsum("vij,nj->nvi", projections, homogeneous)
    return image[..., :2] / image[..., 2:]


def noisy(pixels: torch.Tensor, sigma: float, seed: int = 1) -> torch.Tensor:
    return pixels + sigma * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(seed), dtype=pixels.dtype)
