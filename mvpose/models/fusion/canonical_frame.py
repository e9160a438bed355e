"""Canonical frame about the subject, with well-scaled coordinates for networks and solvers.

Pixels become -1..1 over the crop (half a pixel beyond the outer pixel centres is +-1), which is the same at every
resolution of its feature maps. The world origin moves to a centre near the subject, in units of half the crop's extent.
Each projection matrix is divided by the centre's depth. A matrix in metres and pixels spans 1e0..1e6; here its
entries are about 1 and its singular values about equal.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mvpose.geometry.conditioning import inverse_3x3

PULL = 1e-3
"""Weight of the assumed depth against the rays' intersection: decides if rays do not meet, else an effect of mm."""


@dataclass(frozen=True, eq=False)
class CanonicalFrame:
    """A sample's canonical frame, and its cameras in this frame. World axes are kept."""

    centre: Float[Tensor, "B 3"]
    """World, metres."""
    projections: Float[Tensor, "B V 3 4"]
    """Canonical point to homogeneous image coordinates in -1..1; the third is 1 at the centre."""


def canonical_frame(
    projections: Float[Tensor, "B V 3 4"], present: Bool[Tensor, "B V"], size: tuple[int, int], extent: float
) -> CanonicalFrame:
    """Frame about the point nearest to all rays through the crop centres.

    `projections` map world metres to pixels of crops of (width, height) `size`. If rays do not meet (one view, or
    parallel rays), the depth of the centre is such that the crop's longer side spans `extent` metres. Absent views are
    ignored, but must have finite matrices.
    """
    unit = image_units(projections, size)
    origins, directions, depth = _central_rays(unit)
    guess = origins + directions * (depth * extent / 2)[..., None]
    weight = present.to(unit)[..., None]
    mean = (weight * guess).sum(dim=1) / weight.sum(dim=1).clamp_min(1.0)
    across = torch.eye(3).to(unit) - directions[..., :, None] * directions[..., None, :]
    towards = (across * (origins - mean[:, None])[..., None, :]).sum(dim=-1)
    normal = (weight[..., None] * (across + PULL * torch.eye(3).to(unit))).sum(dim=1)
    # Without any view the matrix is zero; the identity keeps its inverse finite.
    normal = torch.where(present.any(dim=1)[:, None, None], normal, torch.eye(3).to(unit))
    centre = mean + (inverse_3x3(normal) * (weight * towards).sum(dim=1)[..., None, :]).sum(dim=-1)
    half = extent / 2
    linear = unit[..., :3]
    last = (linear * centre[:, None, None, :]).sum(dim=-1) + unit[..., 3]
    moved = torch.cat([linear * half, last[..., None]], dim=-1)
    return CanonicalFrame(centre, moved / last[..., 2].clamp_min(0.1)[..., None, None])


def image_units(projections: Float[Tensor, "B V 3 4"], size: tuple[int, int]) -> Float[Tensor, "B V 3 4"]:
    """Projections to -1..1 over the crop, scaled so that the third coordinate is the depth."""
    linear = projections[..., :3]
    handedness = (torch.linalg.cross(linear[..., 0, :], linear[..., 1, :]) * linear[..., 2, :]).sum(dim=-1)
    depth_scale = linear[..., 2, :].norm(dim=-1).clamp_min(1e-12) * torch.where(handedness < 0, -1.0, 1.0)
    scale = projections.new_tensor([2 / size[0], 2 / size[1], 1.0])
    shift = projections.new_tensor([1 / size[0] - 1, 1 / size[1] - 1, 0.0])
    moved = projections * scale[:, None] + projections[..., 2:3, :] * shift[:, None]
    return moved / depth_scale[..., None, None]


def _central_rays(
    unit: Float[Tensor, "B V 3 4"],
) -> tuple[Float[Tensor, "B V 3"], Float[Tensor, "B V 3"], Float[Tensor, "B V"]]:
    """Camera centres, unit directions through the crops' centres, and the depth at which a crop's half side is 1 m."""
    back = inverse_3x3(unit[..., :3])
    origins = -(back * unit[..., None, :, 3]).sum(dim=-1)
    along = back[..., 2]
    skew = (unit[..., :2, :3] * unit[..., 2:3, :3]).sum(dim=-1)
    focal = (unit[..., :2, :3].square().sum(dim=-1) - skew.square()).clamp_min(1e-12).sqrt()
    return origins, along / along.norm(dim=-1, keepdim=True), focal.amin(dim=-1)
