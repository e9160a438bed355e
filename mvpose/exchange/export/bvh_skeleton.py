"""The joint tree of a BVH file: its rest pose, and which joint rotates which bone.

A BVH joint rotates all bones that start at it together. Where several start (pelvis, neck, ankle, nose), the body is
not rigid: hips, shoulders and spine move relative to each other. There, a zero-length rotation joint is inserted before
each child, named `<joint>_to_<child>`. The joint itself takes the common rotation of its bones, each rotation joint the
remainder.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mvpose.errors import ConfigError
from mvpose.records import Poses3D
from mvpose.skeleton import Skeleton

# Direction of the bone to a joint in the rest pose: forward, left (for the left side; mirrored on the right), up.
_REST = {
    "neck": (0.0, 0.0, 1.0), "spine": (0.0, 0.0, 1.0), "thorax": (0.0, 0.0, 1.0), "head": (0.0, 0.0, 1.0),
    "nose": (0.6, 0.0, 0.8), "eye": (-0.2, 0.6, 0.77), "ear": (-0.9, 0.44, 0.0),
    "shoulder": (0.0, 1.0, 0.0), "elbow": (0.0, 1.0, 0.0), "wrist": (0.0, 1.0, 0.0),
    "hip": (0.0, 1.0, 0.0), "knee": (0.0, 0.0, -1.0), "ankle": (0.0, 0.0, -1.0),
    "big_toe": (0.93, -0.1, -0.36), "small_toe": (0.86, 0.35, -0.37), "heel": (-0.6, 0.0, -0.8),
}  # fmt: skip
_TRUNK = (
    ("hip", "left_hip"), ("hip", "right_hip"), ("hip", "neck"),
    ("neck", "left_shoulder"), ("neck", "right_shoulder"), ("neck", "nose"),
)  # fmt: skip
_HALFWAY = {"hip": ("left_hip", "right_hip"), "neck": ("left_shoulder", "right_shoulder")}


@dataclass(frozen=True)
class BvhNode:
    """One joint of the BVH file; parents come before children."""

    name: str
    parent: int
    joint: int
    """Index of the joint at which it is located."""
    aims: tuple[int, ...]
    """Joints at the ends of the bones that it rotates; empty for the last joint of a limb."""
    reaches: int
    """The joint whose bone length is its offset; -1 if it coincides with its parent."""


def rest_direction(child: str) -> Float[np.ndarray, "3"]:
    """Unit vector of the bone to a joint in the rest pose: left, up, forward, the axes of the file (Y up)."""
    side, _, part = child.partition("_")
    sided = side in ("left", "right")
    forward, left, up = _REST[part if sided else child]
    direction = np.array([-left if side == "right" else left, up, forward])
    return direction / np.linalg.norm(direction)


def rooted(poses: Poses3D) -> tuple[Skeleton, Float[np.ndarray, "T P K 3"], Float[np.ndarray, "T P K"]]:
    """The skeleton as one tree from the hip, with positions and confidence.

    If the skeleton has no hip or neck joint (COCO), they are placed halfway between the hips and the shoulders. Raises
    ConfigError for a skeleton that lacks those, or is not a single tree.
    """
    skeleton, xyz, confidence = poses.skeleton, poses.xyz.astype(np.float64), poses.confidence.astype(np.float64)
    if "hip" not in skeleton.joints and {"left_hip", "left_shoulder", "nose"} <= set(skeleton.joints):
        for sides in _HALFWAY.values():
            at = poses.skeleton.indices(*sides)
            xyz = np.concatenate([xyz, xyz[..., at, :].mean(axis=-2, keepdims=True)], axis=-2)
            confidence = np.concatenate([confidence, confidence[..., at].min(axis=-1, keepdims=True)], axis=-1)
        skeleton = Skeleton(skeleton.name, (*skeleton.joints, *_HALFWAY), (*_TRUNK, *skeleton.bones))
    unknown = [j for j in skeleton.joints if j != "hip" and _part(j) not in _REST]
    children = [child for _, child in skeleton.bones]
    if unknown or sorted(children) != sorted(j for j in skeleton.joints if j != "hip"):
        raise ConfigError(
            f"BVH needs a body whose bones are one tree from the hip; {poses.skeleton.name} is not"
            + (f" (it has {', '.join(unknown)})." if unknown else ".")
        )
    return skeleton, xyz, confidence


def _part(joint: str) -> str:
    side, _, part = joint.partition("_")
    return part if side in ("left", "right") else joint


def nodes_of(skeleton: Skeleton, kept: set[str]) -> list[BvhNode]:
    """The joints of the file, depth first from the hip; a joint that is omitted removes all joints behind it."""
    children: dict[str, list[str]] = {joint: [] for joint in skeleton.joints}
    for parent, child in skeleton.bones:
        if child in kept:
            children[parent].append(child)
    nodes: list[BvhNode] = []

    def add(joint: str, parent: int, reaches: int) -> None:
        here, at = len(nodes), skeleton.index(joint)
        below = children[joint]
        nodes.append(BvhNode(joint, parent, at, tuple(skeleton.indices(*below)), reaches))
        for child in below:
            if len(below) == 1:
                add(child, here, skeleton.index(child))
                continue
            turning = len(nodes)
            nodes.append(BvhNode(f"{joint}_to_{child}", here, at, (skeleton.index(child),), -1))
            add(child, turning, skeleton.index(child))

    add("hip", -1, -1)
    return nodes
