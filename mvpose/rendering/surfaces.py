"""Scenery surfaces as coloured quads: floor, walls, furniture, images on the walls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

PATTERN_SIDE = 256
# Lens distortion is applied to corners, not edges: at 3 m an edge of 0.5 m is off by less than half a pixel of a
# 256-pixel crop with k1 = -0.2, where nothing is measured.
CELL_M = 0.5

Vector = Sequence[float] | Float[np.ndarray, " 3"]


@dataclass(frozen=True, eq=False)
class Surfaces:
    """Triangles with a two-colour pattern each."""

    vertices: Float[np.ndarray, "N 3"]
    normals: Float[np.ndarray, "N 3"]
    uv: Float[np.ndarray, "N 2"]
    """In repetitions of the pattern."""
    first: Float[np.ndarray, "N 3"]
    second: Float[np.ndarray, "N 3"]
    """Linear RGB at pattern values 0 and 1."""
    pattern: Float[np.ndarray, "N 2"]
    """Layer of `patterns()`, and the share of its colour that the surface emits."""
    faces: Int[np.ndarray, "F 3"]


@dataclass(frozen=True, kw_only=True)
class Paint:
    """Appearance of a surface: `second` on `first`, by a layer of `patterns()` that repeats every `period_m`."""

    first: tuple[float, float, float]
    second: tuple[float, float, float]
    layer: int = 0
    period_m: float = 1.0
    glow: float = 0.0


def joined(surfaces: Sequence[Surfaces]) -> Surfaces:
    """Concatenate surfaces; there must be at least one."""
    starts = np.cumsum([0, *(len(s.vertices) for s in surfaces)])

    def together(name: str) -> np.ndarray:
        return np.concatenate([getattr(s, name) for s in surfaces])

    return Surfaces(
        *(together(name) for name in ("vertices", "normals", "uv", "first", "second", "pattern")),
        faces=np.concatenate([s.faces + start for s, start in zip(surfaces, starts, strict=False)]),
    )


def quad(corner: Vector, along: Vector, across: Vector, paint: Paint) -> Surfaces:
    """The parallelogram at `corner` between two edges, visible from the side where `along`, `across` are
    counter-clockwise."""
    start, edges = np.asarray(corner, float), np.array([along, across], float)
    lengths = np.sqrt((edges * edges).sum(axis=1))
    columns, rows = (max(math.ceil(length / CELL_M), 1) for length in lengths)
    share, faces = _grid(columns, rows)
    (ax, ay, az), (bx, by, bz) = edges
    normal = np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx]) / lengths.prod()
    shape = (len(share), 3)
    return Surfaces(
        vertices=start + share @ edges,
        normals=np.broadcast_to(normal, shape),
        uv=share * lengths / paint.period_m,
        first=np.broadcast_to(np.array(paint.first), shape),
        second=np.broadcast_to(np.array(paint.second), shape),
        pattern=np.broadcast_to(np.array([float(paint.layer), paint.glow]), (len(share), 2)),
        faces=faces,
    )


@lru_cache(maxsize=4096)
def _grid(columns: int, rows: int) -> tuple[Float[np.ndarray, "N 2"], Int[np.ndarray, "F 3"]]:
    """Corners of the cells in shares of the sides, and two triangles per cell."""
    v, u = (g.ravel() for g in np.mgrid[0 : rows + 1, 0 : columns + 1])
    index = np.arange(len(u)).reshape(rows + 1, columns + 1)
    a, b, c, d = (i.ravel() for i in (index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]))
    faces = np.concatenate([np.stack([a, b, c], axis=-1), np.stack([a, c, d], axis=-1)])
    return np.stack([u / columns, v / rows], axis=-1), faces


def box(centre: Vector, size: Vector, yaw: float, paint: Paint, *, inward: bool = False) -> Surfaces:
    """An upright box; `centre` is that of its base, metres. `inward` shows its inside: a room."""
    x, y, z = np.asarray(size, float)
    turn = np.array([[np.cos(yaw), -np.sin(yaw), 0.0], [np.sin(yaw), np.cos(yaw), 0.0], [0.0, 0.0, 1.0]])
    ex, ey, ez = x * turn[:, 0], y * turn[:, 1], np.array([0.0, 0.0, z])
    low = np.asarray(centre, float) - ex / 2 - ey / 2
    high = low + ex + ey
    sides = [
        (low, ex, ez),
        (low + ex, ey, ez),
        (high, -ex, ez),
        (high - ex, -ey, ez),
        (low + ez, ex, ey),
        (low, ey, ex),
    ]
    return joined([quad(c, b, a, paint) if inward else quad(c, a, b, paint) for c, a, b in sides])


def patterns() -> UInt8[np.ndarray, "L S S"]:
    """The fixed library of patterns: clouds first, then grains, stripes, tiles, boards, checks and spots."""
    rng = np.random.default_rng(20)
    side = PATTERN_SIDE
    y, x = np.mgrid[0:side, 0:side] / side
    fine, coarse = _noise(rng, 64, 3), _noise(rng, 4, 5)
    layers = [coarse, fine, _noise(rng, 16, 4), (_noise(rng, 8, 4) > 0.5) * 1.0, np.abs(_noise(rng, 8, 4) - 0.5) * 2]
    layers += [(x * n % 1 < w) * 1.0 for n, w in ((4, 0.5), (10, 0.3), (16, 0.12))]
    layers += [np.sin(2 * np.pi * (8 * x + 3 * coarse)) / 2 + 0.5, np.sin(2 * np.pi * (14 * y + 4 * fine)) / 2 + 0.5]
    layers += [_tiles(x, y, n, m, shift) for n, m, shift in ((4, 4, 0.0), (8, 8, 0.0), (4, 8, 0.5), (1, 6, 0.37))]
    layers += [((np.floor(x * n) + np.floor(y * n)) % 2) for n in (4, 10)]
    layers += [(np.hypot(x * n % 1 - 0.5, y * n % 1 - 0.5) < 0.3) * 1.0 for n in (5, 12)]
    layers += [rng.uniform(size=(n, n)).repeat(side // n, 0).repeat(side // n, 1) for n in (4, 16)]
    layers += [_shelf(rng), _blobs(rng)]
    return np.stack([np.uint8(np.clip(0.88 * a + 0.12 * fine, 0, 1) * 255) for a in layers])


def _noise(rng: np.random.Generator, cells: int, octaves: int) -> Float[np.ndarray, "S S"]:
    """Smooth periodic noise, stretched to 0 .. 1."""
    total = np.zeros((PATTERN_SIDE, PATTERN_SIDE))
    for octave in range(octaves):
        n = min(cells << octave, PATTERN_SIDE)
        grid = np.pad(rng.uniform(size=(n, n)), 2, mode="wrap")
        step = PATTERN_SIDE // n
        whole = cv2.resize(grid, None, fx=step, fy=step, interpolation=cv2.INTER_CUBIC)
        total += whole[2 * step : -2 * step, 2 * step : -2 * step] * 0.6**octave
    low, high = np.quantile(total, [0.02, 0.98])
    return np.clip((total - low) / (high - low), 0, 1)


def _tiles(x: np.ndarray, y: np.ndarray, columns: int, rows: int, shift: float) -> Float[np.ndarray, "S S"]:
    """Tiles or boards of slightly differing shade, with dark joints; each row shifted by `shift` from the previous."""
    row = np.floor(y * rows)
    u = (x * columns + shift * row) % columns
    shade = 0.6 + 0.4 * (np.sin(91.7 * row + 37.3 * np.floor(u)) / 2 + 0.5)
    joint = np.minimum(np.minimum(u % 1, 1 - u % 1) / columns, np.minimum(y * rows % 1, 1 - y * rows % 1) / rows)
    return np.where(joint < 0.006, 0.0, shade)


def _shelf(rng: np.random.Generator) -> Float[np.ndarray, "S S"]:
    """Rows of upright objects of varying width and height, like books."""
    out = np.zeros((PATTERN_SIDE, PATTERN_SIDE))
    for top in range(0, PATTERN_SIDE, 64):
        left = 0
        while left < PATTERN_SIDE:
            width, height = int(rng.integers(5, 16)), int(rng.integers(36, 58))
            out[top + 62 - height : top + 62, left : left + width - 1] = rng.uniform(0.2, 1.0)
            left += width
    return out


def _blobs(rng: np.random.Generator) -> Float[np.ndarray, "S S"]:
    """Overlapping ellipses, like an image out of focus."""
    out = np.full((PATTERN_SIDE, PATTERN_SIDE), 0.3)
    for _ in range(40):
        middle, axes = rng.integers(0, PATTERN_SIDE, 2), rng.integers(8, 60, 2)
        place = tuple(map(int, middle)), tuple(map(int, axes)), float(rng.uniform(0, 180))
        cv2.ellipse(out, *place, 0, 360, float(rng.uniform(0, 1)), -1, cv2.LINE_AA)
    return cv2.GaussianBlur(out, (0, 0), 2.0)
