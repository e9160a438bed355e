"""Body shape without clothes and pose: MakeHuman's base mesh deformed by its shape targets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mvpose.rendering.assets import Assets

BASE = "makehuman/base.obj"
BODY_VERTICES = 13380
"""The body group comes first in the base mesh; the rest helps to place joints, eyes and clothes."""
_TARGETS = "makehuman/targets"
_METRES = 0.1
"""MakeHuman works in decimetres."""
_CROWN, _GROUND = 881, 5796
"""Base-mesh vertices: top of the head, and the lowest of the sole."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Parameters of a body. `muscle` and `weight` run from 0 (minimum) over 0.5 (average) to 1 (maximum)."""

    male: float
    """0 for a woman, 1 for a man."""
    old: float
    """0 for young (about 25), 1 for old (about 90)."""
    muscle: float
    weight: float
    origin: dict[str, float]
    """Shares of african, asian and caucasian; they sum to 1."""
    stature_m: float


def body_of(shape: Shape, assets: Assets) -> Float[np.ndarray, "n 3"]:
    """Base-mesh vertices (all 19,158, helpers included) in rest pose: metres, Z up, facing -Y, soles at z = 0.

    Shape targets are mixed as in MakeHuman: the weight of each is the product of the shares in its name. The height
    target is then weighted to reach the requested height, which is exact because targets are linear.
    """
    vertices = assets.mesh(BASE).positions.copy()
    sexes = {"male": shape.male, "female": 1.0 - shape.male}
    ages = {"old": shape.old, "young": 1.0 - shape.old}
    for sex, of_sex in sexes.items():
        for age, of_age in ages.items():
            for origin, of_origin in shape.origin.items():
                _add(vertices, f"{origin}-{sex}-{age}", of_sex * of_age * of_origin, assets)
            for muscle, of_muscle in _low_middle_high(shape.muscle, "muscle"):
                for weight, of_weight in _low_middle_high(shape.weight, "weight"):
                    share = of_sex * of_age * of_muscle * of_weight
                    _add(vertices, f"universal-{sex}-{age}-{muscle}-{weight}", share, assets)
    wanted = shape.stature_m / _METRES - _height(vertices)
    end = "max" if wanted > 0 else "min"
    taller = np.zeros_like(vertices)
    for sex, of_sex in sexes.items():
        _add(taller, f"height/{sex}-young-averagemuscle-averageweight-{end}height", of_sex, assets)
    vertices += wanted / _height(taller) * taller
    upright = np.stack([vertices[:, 0], -vertices[:, 2], vertices[:, 1]], axis=1) * _METRES
    upright[:, 2] -= upright[:BODY_VERTICES, 2].min()
    return upright


def _height(vertices: Float[np.ndarray, "n 3"]) -> float:
    return float(vertices[_CROWN, 1] - vertices[_GROUND, 1])


def _low_middle_high(value: float, of: str) -> list[tuple[str, float]]:
    low, high = max(0.0, 1.0 - 2.0 * value), max(0.0, 2.0 * value - 1.0)
    return [(f"min{of}", low), (f"average{of}", 1.0 - low - high), (f"max{of}", high)]


def _add(vertices: Float[np.ndarray, "n 3"], name: str, share: float, assets: Assets) -> None:
    if share <= 0:
        return
    rows = assets.parsed(f"{_TARGETS}/{name}.target", _target)
    vertices[rows[:, 0].astype(np.intp)] += share * rows[:, 1:]


def _target(content: bytes) -> Float[np.ndarray, "m 4"]:
    """Rows of vertex number and offset in decimetres."""
    lines = [line for line in content.split(b"\n") if not line.startswith(b"#")]
    return np.array(b" ".join(lines).split(), np.float64).reshape(-1, 4)
