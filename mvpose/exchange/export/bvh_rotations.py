"""Convert joint positions to the rotations of a joint tree, with a rule for what positions leave undetermined.

Positions determine the direction of a bone but not its twist. The rule: a joint with one bone rotates it by the
smallest angle from where its parent would hold it, which adds no twist. A joint with several bones takes the rotation
that brings all of them nearest to their directions (Kabsch, Acta Cryst. 1976), which determines the twist.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from mvpose.exchange.export.bvh_skeleton import BvhNode

Turns = Float[np.ndarray, "T 3 3"]
Directions = Float[np.ndarray, "T 3"]

# Bones this close to one line (second singular value of their directions) leave the rotation about it undetermined.
_NO_PLANE = 1e-3
# Directions this close to opposite (1 + cosine) have no unique shortest rotation; any half turn is one.
_OPPOSITE = 1e-14


def world_rotations(
    nodes: Sequence[BvhNode], xyz: Float[np.ndarray, "T J 3"], rest: Float[np.ndarray, "J 3"]
) -> Float[np.ndarray, "N T 3 3"]:
    """The rotation of each node in the world of `xyz`; `rest` is the unit direction of the bone to each joint."""
    turned = np.empty((len(nodes), len(xyz), 3, 3))
    for n, node in enumerate(nodes):
        above = turned[node.parent] if node.parent >= 0 else np.broadcast_to(np.eye(3), (len(xyz), 3, 3))
        bones = [xyz[:, aim] - xyz[:, node.joint] for aim in node.aims]
        directions = [bone / np.linalg.norm(bone, axis=-1, keepdims=True) for bone in bones]
        if not node.aims:
            turned[n] = above
        elif len(node.aims) == 1:
            turned[n] = shortest_turn(above @ rest[node.aims[0]], directions[0]) @ above
        else:
            turned[n] = _common_turn(rest[list(node.aims)], np.stack(directions, axis=1), above)
    return turned


def shortest_turn(start: Directions, end: Directions) -> Turns:
    """The rotation by the smallest angle that maps one unit vector to another (about any normal if opposite)."""
    cosine = (start * end).sum(axis=-1, keepdims=True)
    axis = np.cross(start, end)
    minimum = np.eye(3)[np.abs(start).argmin(axis=-1)]
    opposite = 1 + cosine < _OPPOSITE
    quaternion = np.concatenate(
        [np.where(opposite, np.cross(start, minimum), axis), np.where(opposite, 0.0, 1 + cosine)], axis=-1
    )
    return Rotation.from_quat(quaternion).as_matrix()


def _common_turn(rest: Float[np.ndarray, "c 3"], directions: Float[np.ndarray, "T c 3"], above: Turns) -> Turns:
    """The rotation that maps `rest` nearest to `directions`; for collinear bones, the shortest from the parent's."""
    left, singular, right = np.linalg.svd(directions.swapaxes(1, 2) @ rest)
    handed = np.ones((len(directions), 3))
    handed[:, 2] = np.linalg.det(left @ right)
    fitted = (left * handed[:, None]) @ right
    along = shortest_turn(above @ rest[0], directions[:, 0]) @ above
    return np.where((singular[:, 1] < _NO_PLANE)[:, None, None], along, fitted)


def euler_degrees(turned: Float[np.ndarray, "N T 3 3"], nodes: Sequence[BvhNode]) -> Float[np.ndarray, "T N 3"]:
    """Z, X, Y angles of each node relative to its parent, intrinsic, in degrees, without jumps of full turns."""
    angles = np.empty((turned.shape[1], len(nodes), 3))
    for n, node in enumerate(nodes):
        local = turned[node.parent].swapaxes(1, 2) @ turned[n] if node.parent >= 0 else turned[n]
        angles[:, n] = Rotation.from_matrix(local).as_euler("ZXY", degrees=True)
    return np.unwrap(angles, axis=0, period=360.0)
