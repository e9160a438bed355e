"""Rotations of one limb: swing, twist, and a share of either."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation


def partial_turn(rotation: Float[np.ndarray, "3 3"], share: float) -> Float[np.ndarray, "3 3"]:
    """A share of a rotation about its own axis, the short way round."""
    return Rotation.from_rotvec(Rotation.from_matrix(rotation).as_rotvec() * share).as_matrix()


def swing_between(a: Float[np.ndarray, "3"], b: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """The shortest rotation that takes unit vector a to unit vector b; opposite ones turn about some axis across a."""
    axis, cosine = np.cross(a, b), float(a @ b)
    sine = float(np.linalg.norm(axis))
    if sine < 1e-9:
        axis, sine = np.cross(a, np.eye(3)[np.argmin(np.abs(a))]), max(sine, 1e-12)
    return Rotation.from_rotvec(axis / np.linalg.norm(axis) * np.arctan2(sine, cosine)).as_matrix()


def swing_and_twist(
    rotation: Float[np.ndarray, "3 3"], along: Float[np.ndarray, "3"]
) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3 3"]]:
    """A rotation as swing @ twist: the twist turns about unit vector `along`, the swing moves it the shortest way."""
    swing = swing_between(along, rotation @ along)
    return swing, swing.T @ rotation
