"""Exact joint positions of a rendered person.

Each joint is a point of the body at rest, a mean of base-mesh vertices, skinned like the skin around it: it moves with
the mesh in every shape and pose. Anatomical definitions:
- left and right hip, shoulder: centre of the ball joint. knee, elbow, wrist, ankle: centre of the limb on the bones'
  axis of rotation; the middle of the ring of skin about it is 4, 8, 4 and 8 mm off (on MakeHuman's base mesh).
- nose: its tip. eyes: front of the eyeballs. ears: the tragus.
- hip: half-way between the hips. neck: half-way between the shoulders. thorax: base of the neck. spine: lower end of
  the chest, 0.43 of the way from hip to base of the neck. head: the crown.

Compared with COCO, whose annotators see outlines: RTMPose, trained on COCO among others, puts knees 13 mm, elbows
26 mm, wrists 28 mm and hips 45 mm from these joints (medians over 40 renders of a first trial). Compared with
Human3.6M: not measured, its images were not available. By its definitions hips, knees, ankles, shoulders, elbows and
wrists are joint centres as here. Its `spine` is 0.48 of the way from hip to thorax (0.233 m and 0.257 m on subject S1),
about 25 mm higher. Its `nose` is the middle of the head's front, not the tip: do not compare noses across the two.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_array, vstack

from mvpose.rendering.armature import RigTopology, skinning
from mvpose.skeleton import RENDERED

_ON_SKIN = {"nose": 297, "left_eye": 14598, "right_eye": 14670, "left_ear": 12100, "right_ear": 5501, "head": 881}
"""Vertices of the base mesh."""
_AT_BONE = {"shoulder": "upperarm01", "elbow": "lowerarm01", "wrist": "wrist", "hip": "upperleg01"} | {
    "knee": "lowerleg01",
    "ankle": "foot",
}
"""Bones that start at a joint."""
_AT_CENTRE_BONE = {"thorax": "neck01", "spine": "spine02"}
_MIDDLE = {"hip": ("left_hip", "right_hip"), "neck": ("left_shoulder", "right_shoulder")}


def joints_of(body: Float[np.ndarray, "n 3"], topology: RigTopology) -> csr_array:
    """The (J, 4 B) matrix that maps transforms to the joints of `RENDERED`, as `skinning` does to vertices.

    A joint between bones rotates about itself, so limbs keep their length; the face rotates with the head.
    """
    rows: list[csr_array] = []
    for joint in RENDERED.joints:
        parts = _MIDDLE.get(joint, (joint,))
        rows.append(csr_array(sum(_carried(part, body, topology) for part in parts) / len(parts)))
    return csr_array(vstack(rows), dtype=np.float32)


def _carried(joint: str, body: Float[np.ndarray, "n 3"], topology: RigTopology) -> csr_array:
    bone = "head" if joint in _ON_SKIN else _bone(joint)
    rest = body[_ON_SKIN[joint]] if joint in _ON_SKIN else body[topology.ends[bone][0]].mean(axis=0)
    carrier = csr_array(([1.0], ([0], [topology.bones.index(bone)])), shape=(1, len(topology.bones)))
    return skinning(rest[None], carrier, 1.0)


def _bone(joint: str) -> str:
    side, _, part = joint.partition("_")
    return f"{_AT_BONE[part]}.{side[0].upper()}" if part else _AT_CENTRE_BONE[joint]
