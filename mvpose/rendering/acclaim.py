"""Acclaim motion capture (ASF skeleton, AMC frames), as in the CMU database."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from mvpose.rendering.body_segments import DOWN, FORWARD, LEFT, SEGMENTS, turn_between

_BONES = {
    "pelvis": "root",
    "lower_back": "lowerback",
    "upper_back": "upperback",
    "chest": "thorax",
    "lower_neck": "lowerneck",
    "upper_neck": "upperneck",
    "head": "head",
} | {
    f"{side}_{part}": f"{side[0]}{bone}"
    for side in ("left", "right")
    for part, bone in {
        "clavicle": "clavicle",
        "upper_arm": "humerus",
        "forearm": "radius",
        "hand": "hand",
        "thigh": "femur",
        "shin": "tibia",
        "foot": "foot",
        "toes": "toes",
    }.items()
}
_WORLD = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
"""CMU has Y up and people who face +Z at rest; here Z is up and they face -Y."""

_HANDS = {"lhand": 0.5, "rhand": 0.5}
"""Share kept of a hand's bend: by its two markers it is bent back 30 degrees in a normal walk, and 90 at times."""


@dataclass(frozen=True, eq=False)
class AcclaimBone:
    """A bone of an ASF file at rest."""

    direction: Float[np.ndarray, "3"]
    length: float
    axes: Float[np.ndarray, "3 3"]
    """Columns: the bone's own axes, about which its degrees of freedom rotate, in the skeleton's frame."""
    freedom: tuple[str, ...]
    """rx, ry, rz in the order of the numbers in an AMC frame."""
    parent: str


def read_asf(text: str) -> dict[str, AcclaimBone]:
    """Bones by name, parents first; the root has length 0 and no parent."""
    parents: dict[str, str] = {}
    fields: dict[str, dict[str, list[str]]] = {}
    section, current = "", {}
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0].startswith(":"):
            section = words[0]
        elif section == ":bonedata":
            if words[0] == "begin":
                current = {}
            elif words[0] == "end":
                fields[current["name"][0]] = current
            else:
                current[words[0]] = words[1:]
        elif section == ":hierarchy" and words[0] not in ("begin", "end"):
            parents |= dict.fromkeys(words[1:], words[0])
    root = AcclaimBone(DOWN, 0.0, np.eye(3), ("rx", "ry", "rz"), "")
    bones = {"root": root}
    for name in parents:
        values = fields[name]
        angles = [float(word) for word in values["axis"][:3]]
        bones[name] = AcclaimBone(
            direction=np.array([float(word) for word in values["direction"]]),
            length=float(values["length"][0]),
            axes=Rotation.from_euler("xyz", angles, degrees=True).as_matrix(),
            freedom=tuple(values.get("dof", [])),
            parent=parents[name],
        )
    return bones


def read_amc(text: str, bones: dict[str, AcclaimBone]) -> tuple[Float[np.ndarray, "T S 3 3"], Float[np.ndarray, "T 3"]]:
    """Rotations of the segments, and the middle of the hips in leg lengths, as in `Motion`."""
    numbers = _numbers(text)
    frames = len(numbers["root"])
    turned: dict[str, Float[np.ndarray, "T 3 3"]] = {}
    for name, bone in bones.items():
        local = np.broadcast_to(np.eye(3), (frames, 3, 3))
        if name in numbers:
            angles = np.zeros((frames, 3))
            free = ["xyz".index(axis[1]) for axis in bone.freedom]
            angles[:, free] = numbers[name][:, -len(bone.freedom) :] * _HANDS.get(name, 1.0)
            local = bone.axes @ Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ bone.axes.T
        turned[name] = turned[bone.parent] @ local if bone.parent else local
    turns = [_WORLD @ turned[_BONES[segment]] @ _WORLD.T @ _from_reference(segment, bones) for segment in SEGMENTS]
    hips = np.mean([bones[f"{side}hipjoint"].direction * bones[f"{side}hipjoint"].length for side in "lr"], axis=0)
    leg = sum(bones[f"l{part}"].length for part in ("femur", "tibia"))
    centre = numbers["root"][:, :3] + turned["root"] @ hips
    return np.stack(turns, axis=1), centre @ _WORLD.T / leg


def _from_reference(segment: str, bones: dict[str, AcclaimBone]) -> Float[np.ndarray, "3 3"]:
    """The rotation of a segment in the rest pose of an ASF file: arms level, legs apart.

    Arms are aligned by their elbow's axis and hands by the thumb's side, so that their twist is kept. Feet and toes are
    flat in the rest pose and merely point outwards.
    """
    bone = bones[_BONES[segment]]
    along = _WORLD @ bone.direction
    side, _, part = segment.partition("_")
    if part in ("upper_arm", "forearm"):
        return turn_between(along, _WORLD @ bones[f"{side[0]}radius"].axes[:, 0], DOWN, -LEFT)
    if part == "hand":
        return turn_between(along, FORWARD, DOWN, FORWARD)
    if part in ("thigh", "shin"):
        return turn_between(along, FORWARD, DOWN, FORWARD)
    if part in ("foot", "toes"):
        return turn_between(along * [1.0, 1.0, 0.0], -DOWN, FORWARD, -DOWN)
    return np.eye(3)


def _numbers(text: str) -> dict[str, Float[np.ndarray, "T k"]]:
    """Numbers of every frame by bone."""
    rows: dict[str, list[list[str]]] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(" ")
        if rest and name[0] not in "#:":
            rows.setdefault(name, []).append(rest.split())
    return {name: np.array(values, np.float64) for name, values in rows.items()}
