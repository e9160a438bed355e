"""Joint sets: names, bones, mirror pairs, and remapping from one set to another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int


@dataclass(frozen=True)
class Skeleton:
    """A named joint set. `bones` are (parent, child) names; mirror pairs follow from the left_/right_ prefixes."""

    name: str
    joints: tuple[str, ...]
    bones: tuple[tuple[str, str], ...]

    def index(self, joint: str) -> int:
        """Position of a joint by name. Raises ValueError, naming the known joints, if it does not exist."""
        if joint not in self.joints:
            raise ValueError(f"skeleton {self.name} has no joint {joint!r}; it has {', '.join(self.joints)}")
        return self.joints.index(joint)

    def indices(self, *joints: str) -> list[int]:
        """Positions of several joints."""
        return [self.index(joint) for joint in joints]

    @property
    def bone_indices(self) -> list[tuple[int, int]]:
        """Bones as pairs of positions."""
        return [(self.index(a), self.index(b)) for a, b in self.bones]

    @property
    def mirror(self) -> tuple[int, ...]:
        """For each joint, the position of its mirror image (its own position if it has none)."""
        swap = {"left": "right", "right": "left"}
        sides = [joint.partition("_") for joint in self.joints]
        twins = [
            f"{swap[side]}_{part}" if side in swap else joint
            for joint, (side, _, part) in zip(self.joints, sides, strict=True)
        ]
        return tuple(
            self.index(twin if twin in self.joints else own) for own, twin in zip(self.joints, twins, strict=True)
        )

    @property
    def parents(self) -> tuple[int, ...]:
        """For each joint, the position of its parent along `bones`; -1 for a root."""
        parent_of = {child: parent for parent, child in self.bones}
        return tuple(self.index(parent_of[j]) if j in parent_of else -1 for j in self.joints)

    def remap(self, to: Skeleton) -> tuple[Int[np.ndarray, "J"], Bool[np.ndarray, "J"]]:
        """For each joint of `to`, its position in this skeleton (0 if missing), and a mask of the joints found."""
        found = np.array([joint in self.joints for joint in to.joints])
        source = np.array([self.joints.index(j) if j in self.joints else 0 for j in to.joints])
        return source, found


_FACE = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
_LIMBS = tuple(
    f"{side}_{part}" for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle") for side in ("left", "right")
)
_LIMB_BONES = tuple(
    (f"{side}_{a}", f"{side}_{b}")
    for side in ("left", "right")
    for a, b in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"))
)
_FACE_BONES = (
    ("nose", "left_eye"),
    ("nose", "right_eye"),
    ("left_eye", "left_ear"),
    ("right_eye", "right_ear"),
)
_FOOT_BONES = tuple(
    (f"{side}_ankle", f"{side}_{part}") for side in ("left", "right") for part in ("big_toe", "small_toe", "heel")
)
_TRUNK_BONES = (
    ("hip", "left_hip"),
    ("hip", "right_hip"),
    ("hip", "neck"),
    ("neck", "left_shoulder"),
    ("neck", "right_shoulder"),
)

# The twelve joints on which image data sets agree: no face (often blurred for privacy), no feet, nothing derived.
BODY_JOINTS = _LIMBS

COCO17 = Skeleton("coco17", _FACE + _LIMBS, _LIMB_BONES + _FACE_BONES)

HALPE26 = Skeleton(
    "halpe26",
    _FACE
    + _LIMBS
    + ("head", "neck", "hip")
    + tuple(f"{side}_{part}" for part in ("big_toe", "small_toe", "heel") for side in ("left", "right")),
    (*_TRUNK_BONES, ("neck", "head"), ("neck", "nose"), *_LIMB_BONES, *_FACE_BONES, *_FOOT_BONES),
)

# HALPE26 without its feet: the joints that rendered people and the detectors of Halpe's joints share.
HALPE20 = Skeleton(
    "halpe20",
    HALPE26.joints[:20],
    (*_TRUNK_BONES, ("neck", "head"), ("neck", "nose"), *_LIMB_BONES, *_FACE_BONES),
)

BODY25 = Skeleton(
    "body25",
    (
        "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
        "hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
        "right_eye", "left_eye", "right_ear", "left_ear",
        "left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel",
    ),
    (*_TRUNK_BONES, ("neck", "nose"), *_LIMB_BONES, *_FACE_BONES, *_FOOT_BONES),
)  # fmt: skip

HUMAN36M17 = Skeleton(
    "human36m17",
    (
        "hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
        "spine", "thorax", "nose", "head",
        "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
    ),
    (
        ("hip", "right_hip"), ("hip", "left_hip"), ("hip", "spine"), ("spine", "thorax"), ("thorax", "nose"),
        ("nose", "head"), ("thorax", "left_shoulder"), ("thorax", "right_shoulder"), *_LIMB_BONES,
    ),
)  # fmt: skip

# `head` is the top of the head, as in HALPE26 and HUMAN36M17; `neck` is its upper end.
MPII16 = Skeleton(
    "mpii16",
    (
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle",
        "hip", "thorax", "neck", "head",
        "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist",
    ),
    (
        ("hip", "right_hip"), ("hip", "left_hip"), ("hip", "thorax"), ("thorax", "neck"), ("neck", "head"),
        ("thorax", "left_shoulder"), ("thorax", "right_shoulder"), *_LIMB_BONES,
    ),
)  # fmt: skip

PANOPTIC19 = Skeleton(
    "panoptic19",
    (
        "neck", "nose", "hip", "left_shoulder", "left_elbow", "left_wrist", "left_hip", "left_knee", "left_ankle",
        "right_shoulder", "right_elbow", "right_wrist", "right_hip", "right_knee", "right_ankle",
        "left_eye", "left_ear", "right_eye", "right_ear",
    ),
    (*_TRUNK_BONES, ("neck", "nose"), *_LIMB_BONES, *_FACE_BONES),
)  # fmt: skip

# The joints of rendered people. `remap` gives all of COCO17, HUMAN36M17 and PANOPTIC19, and BODY25 without its feet.
# mvpose/rendering/anatomy.py defines each joint and its distance from the definitions of other data sets.
RENDERED = Skeleton(
    "rendered22",
    _FACE + _LIMBS + ("hip", "spine", "thorax", "neck", "head"),
    (
        ("hip", "left_hip"), ("hip", "right_hip"), ("hip", "spine"), ("spine", "thorax"), ("thorax", "neck"),
        ("thorax", "left_shoulder"), ("thorax", "right_shoulder"), ("thorax", "nose"), ("nose", "head"),
        *_LIMB_BONES, *_FACE_BONES,
    ),
)  # fmt: skip

SKELETONS = {s.name: s for s in (COCO17, HALPE26, HALPE20, BODY25, HUMAN36M17, MPII16, PANOPTIC19, RENDERED)}
