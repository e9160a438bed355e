"""Rings of cameras about a person, and images in which every joint is a blob of a colour of its own."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from mvpose.heatmaps import gaussian_targets


@dataclass(frozen=True)
class Samples:
    """B poses of J joints seen by V cameras."""

    crops: Tensor
    projections: Tensor
    joints: Tensor
    joints_2d: Tensor


def ring_projections(views: int, size=(128, 128), radius=4.0, height=2.0, turn=0.3) -> Tensor:
    """(V 3 4) cameras on a ring about the vertical, looking at (0, 0, 1) m; crops span 2 m there."""
    angle = turn + torch.arange(views, dtype=torch.float64) * 2 * math.pi / views
    centre = torch.stack([radius * angle.cos(), radius * angle.sin(), torch.full_like(angle, height)], dim=-1)
    forward = torch.nn.functional.normalize(torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64) - centre, dim=-1)
    right = torch.linalg.cross(forward, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand_as(forward))
    right = torch.nn.functional.normalize(right, dim=-1)
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=-2)
    focal = math.hypot(radius, height - 1.0) * max(size) / 2
    k = torch.tensor([[focal, 0, (size[0] - 1) / 2], [0, focal, (size[1] - 1) / 2], [0, 0, 1]], dtype=torch.float64)
    return (k @ torch.cat([rotation, -(rotation @ centre[..., None])], dim=-1)).float()


def project(projections: Tensor, points: Tensor) -> Tensor:
    """(B V 3 4), (B J 3) -> (B V J 2)."""
    homogeneous = torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)
    x = torch.einsum("bvij,bnj->bvni", projections, homogeneous)
    return x[..., :2] / x[..., 2:]


def blob_samples(batch=2, views=4, joints=3, size=(128, 128), seed=0, turn=0.3) -> Samples:
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(batch, joints, 3, generator=generator) * 1.2 + torch.tensor([-0.6, -0.6, 0.4])
    projections = ring_projections(views, size, turn=turn).expand(batch, -1, -1, -1).contiguous()
    pixels = project(projections, points)
    colours = torch.rand(joints, 3, generator=torch.Generator().manual_seed(99))
    blobs = gaussian_targets(pixels, size, 5.0)
    crops = torch.einsum("bvjhw,jc->bvchw", blobs, colours).clamp(0, 1)
    return Samples(crops, projections, points, pixels)


@pytest.fixture(scope="session")
def blobs():
    """`blobs(batch, views, joints, size, seed, turn) -> Samples`."""
    return blob_samples


@pytest.fixture(scope="session")
def ring():
    """`ring(views, size, radius, height, turn) -> (V 3 4)`."""
    return ring_projections


@pytest.fixture
def unchecked():
    """Shape checks off: for messages that users see, and for tracing."""
    from jaxtyping import config

    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)
