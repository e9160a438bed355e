"""Multi-view consistency as weak supervision: one view's 3D pose must fit the 2D joints of another view.

The pose of view 1 is turned into view 2, given the size that view 2's own pose has, put at its root, and projected;
what is left is compared with view 2's 2D joints. No truth in 3D is needed, but nothing in the equation holds the poses
apart: if the 2D joints, or the size, may follow the poses, a point satisfies it. The guard makes both constants.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

SMALLEST_LIMB_M = 1e-3


def consistency_loss(
    pose_1: Float[Tensor, "B J 3"],
    pose_2: Float[Tensor, "B J 3"],
    rotation_2_from_1: Float[Tensor, "B 3 3"],
    intrinsics_2: Float[Tensor, "B 3 3"],
    points_2: Float[Tensor, "B J 2"],
    weights: Float[Tensor, "B J"],
    limbs: Sequence[tuple[int, int]],
    root: int,
    guarded: bool = True,
) -> Float[Tensor, ""]:
    """Mean squared distance, in pixels, between view 2's joints and the projected pose of view 1.

    Poses are in metres in the axes of their cameras; `pose_2` stands where the person is, `pose_1` may stand anywhere
    (its root is taken away). The size is the sum of the lengths of `limbs`: with a single limb a network can satisfy
    the scale by that limb alone. `weights` of 0 leave a joint out, whose 2D point may then be anything.

    Guarded, no gradient reaches `points_2` nor goes through `pose_2`: take the points from a frozen detector, and call
    twice with the views exchanged. Unguarded it is the bare equation, which collapses (a test shows it).
    ValueError for fewer than two limbs, and where a pose has collapsed already or stands behind its camera.
    """
    if len(limbs) < 2:
        raise ValueError(f"the size of a pose needs at least two limbs, not {len(limbs)}: one alone can cheat it")
    if guarded:
        pose_2, points_2 = pose_2.detach(), points_2.detach()
    relative = (pose_1 - pose_1[:, root : root + 1]) @ rotation_2_from_1.transpose(-1, -2)
    scale = _size(pose_2, limbs) / _size(relative, limbs)
    placed = relative * scale[:, None, None] + pose_2[:, root : root + 1]
    if bool((placed[..., 2] <= 0).any()):
        raise ValueError("a joint lies behind camera 2: pose_2 must stand where the person is, in the camera's axes")
    image = placed @ intrinsics_2.transpose(-1, -2)
    seen = weights > 0
    target = torch.where(seen[..., None], points_2, torch.zeros_like(points_2))
    error = (image[..., :2] / image[..., 2:] - target).square().sum(dim=-1)
    return (torch.where(seen, error, torch.zeros_like(error)) * weights).sum() / weights.sum().clamp_min(1e-9)


def _size(pose: Float[Tensor, "B J 3"], limbs: Sequence[tuple[int, int]]) -> Float[Tensor, "B"]:
    """Sum of the lengths of the limbs."""
    ends = torch.tensor(list(limbs), device=pose.device)
    size = (pose[:, ends[:, 0]] - pose[:, ends[:, 1]]).norm(dim=-1).sum(dim=-1)
    smallest = float(size.detach().min())
    if smallest < SMALLEST_LIMB_M * len(limbs):
        raise ValueError(f"a pose has shrunk to {smallest * 1000:.2f} mm of limbs: it has collapsed to a point")
    return size
