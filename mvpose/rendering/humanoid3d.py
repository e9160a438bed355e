"""Clips of DeepMimic's humanoid3d (Peng et al., SIGGRAPH 2018): JSON, quaternions w x y z, hinges at elbow and knee."""

from __future__ import annotations

import json

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from mvpose.rendering.body_segments import SEGMENTS, S

_WORLD = np.array([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
"""humanoid3d faces +X at rest, with Y up and Z to its right; here it faces -Y with Z up and +X to its left."""
_LEG_M = 0.421546 + 0.409870
"""Thigh and shin of the humanoid3d character."""
_LAYOUT = (
    ("chest", 4), ("neck", 4),
    ("right_thigh", 4), ("right_shin", 1), ("right_foot", 4), ("right_upper_arm", 4), ("right_forearm", 1),
    ("left_thigh", 4), ("left_shin", 1), ("left_foot", 4), ("left_upper_arm", 4), ("left_forearm", 1),
)  # fmt: skip
"""Content of a frame after its duration, root position and root rotation; all relative to the parent."""


def read_humanoid3d(text: str) -> tuple[float, Float[np.ndarray, "T S 3 3"], Float[np.ndarray, "T 3"]]:
    """Frames per second, rotations of the segments, and the middle of the hips in leg lengths, as in `Motion`.

    The character's rest pose is the reference pose. It has no hands, toes, clavicles or spine: missing segments move
    with their parent, and the bend of the back and of the neck is distributed over their segments.
    """
    numbers = np.array(json.loads(text)["Frames"])
    fps = 1.0 / float(numbers[0, 0])
    local: dict[str, Rotation] = {}
    column = 8
    for name, width in _LAYOUT:
        values = numbers[:, column : column + width]
        column += width
        hinge = Rotation.from_rotvec(np.concatenate([np.zeros((len(values), 2)), values[:, -1:]], axis=1))
        local[name] = _quaternion(values) if width == 4 else hinge
    pelvis = _quaternion(numbers[:, 4:8])
    turned = {"pelvis": pelvis, "chest": pelvis * local["chest"], "head": pelvis * local["chest"] * local["neck"]}
    for segment, share in (("lower_back", 1 / 3), ("upper_back", 2 / 3)):
        turned[segment] = pelvis * _part(local["chest"], share)
    for segment, share in (("lower_neck", 1 / 3), ("upper_neck", 2 / 3)):
        turned[segment] = turned["chest"] * _part(local["neck"], share)
    for side in ("left", "right"):
        turned[f"{side}_clavicle"] = turned["chest"]
        for first, second, third, root in (
            ("upper_arm", "forearm", "hand", "chest"),
            ("thigh", "shin", "foot", "pelvis"),
        ):
            turned[f"{side}_{first}"] = turned[root] * local[f"{side}_{first}"]
            turned[f"{side}_{second}"] = turned[f"{side}_{first}"] * local[f"{side}_{second}"]
            last = local.get(f"{side}_{third}", Rotation.identity())
            turned[f"{side}_{third}"] = turned[f"{side}_{second}"] * last
        turned[f"{side}_toes"] = turned[f"{side}_foot"]
    turns = np.stack([_WORLD @ turned[segment].as_matrix() @ _WORLD.T for segment in SEGMENTS], axis=1)
    assert turns.shape[1] == len(S)
    return fps, turns, numbers[:, 1:4] @ _WORLD.T / _LEG_M


def _quaternion(wxyz: Float[np.ndarray, "T 4"]) -> Rotation:
    return Rotation.from_quat(np.roll(wxyz, -1, axis=1))


def _part(rotation: Rotation, share: float) -> Rotation:
    return Rotation.from_rotvec(rotation.as_rotvec() * share)
