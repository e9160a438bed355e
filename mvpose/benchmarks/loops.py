"""Slow references: unprojection and triangulation as in public code, one sample, one view, one joint at a time."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mvpose.models.volumes.cube import Cube


def unprojected(
    features: Float[Tensor, "B V c h w"], projections: Float[Tensor, "B V 3 4"], size: tuple[int, int], cube: Cube
) -> Float[Tensor, "B c n n n"]:
    """Softmax aggregation of features of crops of (width, height) `size`, by a loop over samples and views."""
    volumes = []
    line = torch.linspace(-0.5, 0.5, cube.count, device=features.device) * cube.side
    axes = torch.stack(torch.meshgrid(line, line, line, indexing="ij"), dim=-1).reshape(-1, 3)
    half = torch.tensor([0.5, 0.5], device=features.device)
    extent = torch.tensor(size, dtype=torch.float32, device=features.device)
    for b in range(len(features)):
        voxels = axes @ cube.rotation[b].T + cube.centre[b]
        homogeneous = torch.cat([voxels, torch.ones_like(voxels[:, :1])], dim=1)
        sampled = []
        for v in range(features.shape[1]):
            image = homogeneous @ projections[b, v].T
            behind = image[:, 2] <= 0
            depth = torch.where(behind, 1.0, image[:, 2])
            place = (image[:, :2] / depth[:, None] + half) / extent * 2 - 1
            values = nn.functional.grid_sample(features[b, v][None], place[None, None], align_corners=False)[0, :, 0]
            values[:, behind] = 0.0
            sampled.append(values)
        stack = torch.stack(sampled)
        volumes.append((stack * torch.softmax(stack, dim=0)).sum(dim=0))
    return torch.stack(volumes).unflatten(-1, (cube.count,) * 3)


def triangulated(
    points: Float[Tensor, "B V J 2"], projections: Float[Tensor, "B V 3 4"], weights: Float[Tensor, "B V J"]
) -> Float[Tensor, "B J 3"]:
    """Weighted DLT by SVD, one joint of one sample at a time."""
    joints = torch.empty(points.shape[0], points.shape[2], 3, device=points.device)
    for b in range(points.shape[0]):
        for j in range(points.shape[2]):
            rows = []
            for v in range(points.shape[1]):
                camera = projections[b, v]
                u, w = points[b, v, j], weights[b, v, j]
                rows += [w * (u[0] * camera[2] - camera[0]), w * (u[1] * camera[2] - camera[1])]
            solution = torch.linalg.svd(torch.stack(rows))[2][-1]
            joints[b, j] = solution[:3] / solution[3]
    return joints
