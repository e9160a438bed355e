"""Body segments in which every motion is expressed, independent of the skeleton it was captured with.

The rotation of a segment is from the reference pose to the world. In the reference pose the person stands upright,
facing -Y with +X to the person's left and Z up, arms hanging straight down with thumbs forward and elbows that bend
forward, legs straight, soles flat. It does not depend on a skeleton's rest pose, so motions transfer between skeletons.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

_SIDED = ("clavicle", "upper_arm", "forearm", "hand", "thigh", "shin", "foot", "toes")
SEGMENTS = (
    "pelvis",
    "lower_back",
    "upper_back",
    "chest",
    "lower_neck",
    "upper_neck",
    "head",
    *(f"{side}_{part}" for side in ("left", "right") for part in _SIDED),
)
S = {name: place for place, name in enumerate(SEGMENTS)}

DOWN, FORWARD, LEFT = np.array([0.0, 0.0, -1.0]), np.array([0.0, -1.0, 0.0]), np.array([1.0, 0.0, 0.0])


def turn_between(
    along: Float[np.ndarray, "3"],
    across: Float[np.ndarray, "3"],
    along_reference: Float[np.ndarray, "3"],
    across_reference: Float[np.ndarray, "3"],
) -> Float[np.ndarray, "3 3"]:
    """The rotation from the second pair of directions to the first: `along` exactly, `across` in its plane."""
    return _frame(along, across) @ _frame(along_reference, across_reference).T


def _frame(along: Float[np.ndarray, "3"], across: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    first = along / np.linalg.norm(along)
    second = across - first * (first @ across)
    second = second / np.linalg.norm(second)
    return np.stack([first, second, np.cross(first, second)], axis=1)
