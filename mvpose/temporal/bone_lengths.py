"""Constant bone lengths: the nearest poses, in the least-squares sense, whose bones have the person's lengths."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

from mvpose.skeleton import Skeleton
from mvpose.temporal.gaps import present

Bones = tuple[tuple[int, int], ...]
"""(parent, child) by index."""

# Segments with one rigid bone. Neck, shoulder girdle, spine and face bend, and are not changed.
_RIGID = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle", "big_toe", "small_toe", "heel")
# With 5 mm of noise all of 1000 frames converge within 25 steps; with 20 mm, 98 % within 100 (measured, 25 bones).
MAX_STEPS = 300
TOLERANCE_M = 1e-9
# Number of frames solved at a time: 25 bones of 26 joints take 16 KB per frame.
CHUNK_FRAMES = 1024


def limb_bones(skeleton: Skeleton) -> Bones:
    """The bones of arms, legs and feet."""

    def part(joint: str) -> str:
        return joint.partition("_")[2]

    return tuple(
        (skeleton.index(a), skeleton.index(b)) for a, b in skeleton.bones if part(a) in _RIGID and part(b) in _RIGID
    )


def measured_lengths(xyz: Float[np.ndarray, "T J 3"], bones: Bones) -> Float[np.ndarray, "B"]:
    """The median length of each bone over the frames that show both ends, in metres; NaN if there are none."""
    lengths = np.full(len(bones), np.nan)
    for i, length in enumerate(bone_norms(xyz, bones).T):
        known = length[np.isfinite(length)]
        if len(known):
            lengths[i] = np.median(known)
    return lengths


def bone_norms(xyz: Float[np.ndarray, "*n J 3"], bones: Bones) -> Float[np.ndarray, "*n B"]:
    """The length of each bone in each pose, in metres; NaN if an end is missing."""
    parent, child = np.array(bones, dtype=int).reshape(-1, 2).T
    return np.linalg.norm(xyz[..., child, :] - xyz[..., parent, :], axis=-1)


def with_constant_bones(
    xyz: Float[np.ndarray, "T J 3"],
    weights: Float[np.ndarray, "T J"],
    bones: Bones,
    lengths: Float[np.ndarray, "B"],
) -> Float[np.ndarray, "T J 3"]:
    """The poses x that minimise sum_j w_j |x_j - xyz_j|^2 under |x_child - x_parent| = length, frame by frame.

    Sequential quadratic programming (Nocedal and Wright, Numerical Optimization, 18.1): each step solves the problem
    with linearised constraints. A bone that starts r times too long overshoots in its direction by r - 1, so a frame's
    steps are shortened by its largest r. Final steps go only onto the constraints, so lengths hold to `TOLERANCE_M` in
    every frame.

    A bone with a missing end or without a length has no effect. Missing joints and joints without such bones are kept.
    """
    chunks = [slice(t, t + CHUNK_FRAMES) for t in range(0, len(xyz), CHUNK_FRAMES)]
    moved = [_chunk_with_constant_bones(xyz[chunk], weights[chunk], bones, lengths) for chunk in chunks]
    return np.concatenate(moved) if moved else xyz


def _chunk_with_constant_bones(
    xyz: Float[np.ndarray, "T J 3"],
    weights: Float[np.ndarray, "T J"],
    bones: Bones,
    lengths: Float[np.ndarray, "B"],
) -> Float[np.ndarray, "T J 3"]:
    there = present(xyz)
    ends = np.array(bones, dtype=int).reshape(-1, 2)
    binds = there[:, ends].all(axis=-1) & (lengths > 0)
    lengths = np.where(lengths > 0, lengths, 1.0)
    start = np.where(there[..., None], xyz, 0.0).astype(np.float64)
    give = np.where(there, 1.0 / np.maximum(weights, 1e-3), 0.0)
    give = give / np.maximum(give.max(axis=1, keepdims=True), 1e-12)
    too_long = np.linalg.norm(start[:, ends[:, 1]] - start[:, ends[:, 0]], axis=-1) / lengths * binds
    share = 1.0 / np.maximum(1.0, too_long.max(axis=1, initial=1.0))[:, None, None]
    x, moving = start.copy(), np.arange(len(start))
    for _ in range(MAX_STEPS):
        goal = start[moving]
        step = goal - _pull(x[moving], goal, give[moving], binds[moving], ends, lengths) - x[moving]
        x[moving] += share[moving] * step
        moving = moving[np.abs(step).max(axis=(1, 2)) > TOLERANCE_M]
        if not len(moving):
            break
    for _ in range(MAX_STEPS):
        step = _pull(x, x, give, binds, ends, lengths)
        x = x - step
        if np.abs(step).max(initial=0.0) < TOLERANCE_M:
            break
    return np.where(there[..., None], x, np.nan)


def _pull(
    x: Float[np.ndarray, "T J 3"],
    start: Float[np.ndarray, "T J 3"],
    give: Float[np.ndarray, "T J"],
    binds: Bool[np.ndarray, "T B"],
    ends: Int[np.ndarray, "B 2"],
    lengths: Float[np.ndarray, "B"],
) -> Float[np.ndarray, "T J 3"]:
    """W^-1 A^T m with A W^-1 A^T m = c(x) + A (start - x), where A is the Jacobian at x of c = |bone| - length."""
    parent, child = ends.T
    bone = x[:, child] - x[:, parent]
    norm = np.linalg.norm(bone, axis=-1, keepdims=True)
    # A bone of zero length has no direction: it grows upwards.
    direction = np.where(norm > 1e-9, bone / np.maximum(norm, 1e-9), np.array([0.0, 0.0, 1.0]))
    direction = direction * binds[..., None]
    moved = (start - x)[:, child] - (start - x)[:, parent]
    target = (norm[..., 0] - lengths) * binds + (direction * moved).sum(axis=-1)
    jacobian = np.zeros((*direction.shape[:2], x.shape[1], 3))
    place = np.arange(len(parent))
    jacobian[:, place, child] += direction
    jacobian[:, place, parent] -= direction
    flat = jacobian.reshape(*jacobian.shape[:2], 3 * x.shape[1])
    giving = flat * np.repeat(give, 3, axis=1)[:, None]
    normal = giving @ flat.swapaxes(1, 2) + np.eye(len(parent)) * ~binds[..., None]
    multipliers = np.linalg.solve(normal, target[..., None])
    return (giving.swapaxes(1, 2) @ multipliers)[..., 0].reshape(x.shape)
