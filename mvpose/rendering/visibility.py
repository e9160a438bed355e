"""Which joints a camera sees, told from the depth of a rendered picture.

A joint lies inside its limb, so that the limb itself is always before it. The rule: a joint is visible when it falls on
the picture and the surface seen at its pixel lies at most `DEPTH_IN_LIMB_M` nearer to the camera than the joint, along
the camera's axis. Its own limb and clothes never hide it; another limb, another person or a thing does as soon as it
is further before it than that.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from mvpose.skeleton import Skeleton

DEPTH_IN_LIMB_M = {
    "nose": 0.04, "eye": 0.04, "ear": 0.07, "head": 0.14, "neck": 0.13, "thorax": 0.16, "spine": 0.18, "hip": 0.18,
    "shoulder": 0.13, "elbow": 0.09, "wrist": 0.07, "knee": 0.11, "ankle": 0.09, "big_toe": 0.07, "small_toe": 0.07,
    "heel": 0.09,
}  # fmt: skip
"""Metres of flesh, shoe and loose cloth between a joint and the surface of its own limb, at most."""


def unhidden(
    pixels: Float[np.ndarray, "J 2"],
    joint_depth: Float[np.ndarray, " J"],
    depth: Float[np.ndarray, "H W"],
    skeleton: Skeleton,
) -> Bool[np.ndarray, " J"]:
    """Which joints nothing is before. Pixels of the depth picture; metres along the camera's axis.

    A joint off the picture or behind the camera is not visible.
    """
    known = np.isfinite(pixels).all(axis=-1) & (joint_depth > 0)
    column, row = np.round(np.where(known[:, None], pixels, -1)).astype(int).T
    height, width = depth.shape
    known &= (column >= 0) & (row >= 0) & (column < width) & (row < height)
    surface = depth[row.clip(0, height - 1), column.clip(0, width - 1)]
    limb = np.array([DEPTH_IN_LIMB_M[_part(joint)] for joint in skeleton.joints])
    return known & (surface >= joint_depth - limb)


def _part(joint: str) -> str:
    side, _, part = joint.partition("_")
    return part if side in ("left", "right") else joint
