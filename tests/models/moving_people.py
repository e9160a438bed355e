"""People of 17 joints in random poses, seen by a ring of cameras, and their heatmaps."""

import math

import torch
from torch import Tensor

from mvpose.heatmaps import gaussian_targets
from mvpose.skeleton import HUMAN36M17

# Metres from each joint's parent in a person that stands, facing +Y, in the order of HUMAN36M17.
_REST = torch.tensor([
    [0, 0, 0.95], [0.13, 0, 0], [0, 0, -0.44], [0, 0, -0.43], [-0.13, 0, 0], [0, 0, -0.44], [0, 0, -0.43],
    [0, 0, 0.24], [0, 0, 0.25], [0, 0.06, 0.10], [0, -0.03, 0.11],
    [-0.15, 0, 0], [-0.02, 0, -0.28], [0, 0, -0.25], [0.15, 0, 0], [0.02, 0, -0.28], [0, 0, -0.25],
], dtype=torch.float64)  # fmt: skip
LENGTHS = torch.stack([_REST[child].norm() for _, child in HUMAN36M17.bone_indices])


def rotations(vectors: Tensor) -> Tensor:
    """Rotation vectors (... 3) to matrices."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.linalg.matrix_exp(torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3)))


def people(count: int, seed: int = 0, bend: float = 0.5) -> Tensor:
    """(count 17 3) metres, world, Z up; each joint bends by a normal rotation vector of `bend` radians."""
    generator = torch.Generator().manual_seed(seed)
    bends = rotations(torch.randn(count, 17, 3, dtype=torch.float64, generator=generator) * bend)
    turn = torch.zeros(count, 3, dtype=torch.float64)
    turn[:, 2] = torch.rand(count, dtype=torch.float64, generator=generator) * 2 * math.pi
    turned = rotations(turn)
    points, frames = [_REST[0].expand(count, 3)], [turned]
    for joint, parent in list(enumerate(HUMAN36M17.parents))[1:]:
        points.append(points[parent] + (frames[parent] @ _REST[joint]))
        frames.append(frames[parent] @ bends[:, joint])
    return torch.stack(points, dim=1)


def smooth_people(count: int, frames: int, seed: int = 0, bend: float = 0.5) -> Tensor:
    """(count frames 17 3): each walks in a straight line from one random pose towards another, bone by bone."""
    start, stop = people(count, seed, bend), people(count, seed + 1000, bend)
    blend = torch.linspace(0, 1, frames, dtype=torch.float64)[:, None, None]
    return start[:, None] * (1 - blend) + stop[:, None] * blend


def ring(views: int, size: int, distance: float = 4.5, span: float = 2.4, turn: float = 0.4) -> Tensor:
    """(V 3 4): cameras on a ring that look at (0, 0, 0.95) m; an image of size^2 pixels spans `span` metres there."""
    angle = turn + torch.arange(views, dtype=torch.float64) * 2 * math.pi / views
    height = 1.6 + 0.4 * torch.arange(views).remainder(2)
    middle = torch.tensor([0.0, 0.0, 0.95], dtype=torch.float64)
    centre = torch.stack([distance * angle.cos(), distance * angle.sin(), height], dim=-1)
    forward = torch.nn.functional.normalize(middle - centre, dim=-1)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand_as(forward)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=-1)
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=-2)
    focal = distance * size / span
    k = torch.tensor([[focal, 0, (size - 1) / 2], [0, focal, (size - 1) / 2], [0, 0, 1]], dtype=torch.float64)
    return k @ torch.cat([rotation, -(rotation @ centre[..., None])], dim=-1)


def project(projections: Tensor, points: Tensor) -> Tensor:
    """(V 3 4) or (B V 3 4), (B J 3) -> (B V J 2)."""
    homogeneous = torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)
    x = homogeneous[:, None] @ projections.transpose(-1, -2)
    return x[..., :2] / x[..., 2:]


def noisy_heatmaps(pixels: Tensor, size: int, offset_px: float, level: float, seed: int = 0, sigma: float = 2.0):
    """Gaussian maps about pixels that are off by a normal `offset_px`, under smooth background of `level`."""
    generator = torch.Generator().manual_seed(seed)
    moved = pixels + offset_px * torch.randn(pixels.shape, dtype=pixels.dtype, generator=generator)
    maps = gaussian_targets(moved, (size, size), sigma).float()
    return maps + level * torch.rand(maps.shape, generator=generator)
