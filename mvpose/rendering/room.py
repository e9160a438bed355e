"""Scenery for rendered people: a room, a hall, a studio or a yard, with furniture and lights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mvpose.rendering.renderer import Lights
from mvpose.rendering.surfaces import Paint, Surfaces, box, joined, quad

NUM_PATTERNS = 24
BOOKS, BLOBS = 22, 23
"""Layers of `patterns()` that look like shelves and like images."""
CHEST_M = 1.1
CLEAR_OF_PEOPLE_M, CLEAR_OF_CAMERAS_M = 0.15, 0.5


@dataclass(frozen=True, eq=False, kw_only=True)
class Room:
    """Scenery of a sample."""

    surfaces: Surfaces
    lights: Lights
    background: Float[np.ndarray, " 3"]
    """Colour of pixels without a surface, in image values: 0 .. 1."""
    brightness: Float[np.ndarray, " 3"]
    """Approximate light reflected by a grey wall, from which a camera derives exposure and white balance."""


@dataclass(frozen=True, eq=False)
class Occupied:
    """Occupied circles on the floor."""

    centre: Float[np.ndarray, "N 2"]
    radius: Float[np.ndarray, " N"]

    def clear(self, centre: Float[np.ndarray, " 2"], radius: float) -> bool:
        """Whether a further circle touches none of them."""
        return bool(np.all(np.hypot(*(self.centre - centre).T) > self.radius + radius))


def draw_room(
    rng: np.random.Generator,
    people: Sequence[Float[np.ndarray, "N 3"]],
    cameras: Float[np.ndarray, "V 3"],
    floor_m: float = 0.0,
) -> Room:
    """Draw scenery around people, given by points on them, and cameras. Nothing is inside a person or blocks a lens."""
    middle = np.array([*people[0].mean(axis=0)[:2], floor_m])
    taken = _occupied(people, cameras)
    kind = rng.choice(["room", "hall", "studio", "yard"], p=[0.58, 0.12, 0.1, 0.2])
    reach = float(np.hypot(*(cameras[:, :2] - middle[:2]).T).max())
    place = {"room": _room, "hall": _hall, "studio": _studio, "yard": _yard}[str(kind)]
    surfaces, background = place(rng, middle, reach)
    # Near objects come first, so that hidden ones are not shaded: this saves a third of the time of a view.
    surfaces = _furniture(rng, middle, cameras, taken, few=kind == "studio") + surfaces[::-1]
    lights = _lights(rng, outside=kind == "yard")
    brightness = 0.45 * (lights.sky_colour + 0.5 * lights.key_colour + 0.4 * lights.fill_colour)
    return Room(surfaces=joined(surfaces), lights=lights, background=background, brightness=brightness)


def _occupied(people: Sequence[np.ndarray], cameras: np.ndarray) -> Occupied:
    centres = np.array([(p[:, :2].min(axis=0) + p[:, :2].max(axis=0)) / 2 for p in people])
    radii = [np.hypot(*(p[:, :2] - c).T).max() + CLEAR_OF_PEOPLE_M for p, c in zip(people, centres, strict=True)]
    return Occupied(np.concatenate([centres, cameras[:, :2]]), np.array([*radii, *[CLEAR_OF_CAMERAS_M] * len(cameras)]))


def _colour(rng: np.random.Generator, low: float = 0.04, high: float = 0.75) -> tuple[float, float, float]:
    """Mostly dull colours of any lightness, linear; occasionally a saturated one."""
    lightness, strength = rng.uniform(low, high), rng.beta(1.0, 3.5)
    hue = np.abs((rng.uniform(0, 6) + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1
    r, g, b = lightness * (1 - strength + strength * np.clip(hue, 0, 1) * 1.5)
    return (float(r), float(g), float(b))


def _paint(rng: np.random.Generator, low: float = 0.04, high: float = 0.75) -> Paint:
    first = np.array(_colour(rng, low, high))
    # Half of the surfaces have one colour, a little uneven; the rest have two.
    second = first * rng.uniform(0.75, 0.95) if rng.uniform() < 0.5 else np.array(_colour(rng, low, high))
    return Paint(
        first=tuple(first.tolist()),
        second=tuple(second.tolist()),
        layer=int(rng.integers(NUM_PATTERNS - 2)),
        period_m=float(np.exp(rng.uniform(np.log(0.25), np.log(3.0)))),
    )


def _room(rng: np.random.Generator, middle: np.ndarray, reach: float) -> tuple[list[Surfaces], np.ndarray]:
    size = np.array([*rng.uniform(1.1, 2.6, 2) * max(reach, 3.0), rng.uniform(2.4, 4.5)])
    centre, yaw = middle + np.append(rng.uniform(-0.12, 0.12, 2) * size[:2], 0.0), rng.uniform(0, np.pi)
    walls = _paint(rng, 0.15, 0.85)
    out = [
        box(centre, (*size[:2], size[2]), yaw, walls, inward=True),
        _floor(rng, centre + np.array([0.0, 0.0, 0.004]), size, yaw),
    ]
    out += [_on_wall(rng, centre, size, yaw) for _ in range(rng.integers(0, 12))]
    return out, np.full(3, 0.5)


def _hall(rng: np.random.Generator, middle: np.ndarray, reach: float) -> tuple[list[Surfaces], np.ndarray]:
    """A floor that ends in darkness or haze, with objects far behind."""
    shade = rng.uniform(0.05, 0.8)
    out = [_floor(rng, middle, np.array([3.0, 3.0]) * reach, rng.uniform(0, np.pi))]
    return out + _far_boxes(rng, middle, reach, int(rng.integers(4, 16)), (0.5, 3.0)), np.full(3, shade)


def _studio(rng: np.random.Generator, middle: np.ndarray, reach: float) -> tuple[list[Surfaces], np.ndarray]:
    """One colour everywhere, like a green screen or an empty laboratory."""
    colour = _colour(rng, 0.1, 0.8)
    r, g, b = colour
    paint = Paint(first=colour, second=(0.93 * r, 0.93 * g, 0.93 * b), layer=int(rng.integers(3)), period_m=2.0)
    side = 2.4 * reach
    return [box(middle, (side, side, 4.0), rng.uniform(0, np.pi), paint, inward=True)], np.array(colour) ** 0.5


def _yard(rng: np.random.Generator, middle: np.ndarray, reach: float) -> tuple[list[Surfaces], np.ndarray]:
    ground = rng.choice(3)
    first, second = [((0.08, 0.12, 0.03), (0.2, 0.26, 0.08)), ((0.12, 0.12, 0.13), (0.25, 0.24, 0.23)),
                     ((0.35, 0.27, 0.17), (0.5, 0.42, 0.3))][ground]  # fmt: skip
    paint = Paint(first=first, second=second, layer=int(rng.integers(3)), period_m=rng.uniform(0.8, 2.5))
    side = 40.0
    corner = middle - [side / 2, side / 2, 0.0]
    out = [quad(corner, (side, 0.0, 0.0), (0.0, side, 0.0), paint)]
    sky = np.array([0.55, 0.7, 0.92]) * rng.uniform(0.6, 1.1) + rng.uniform(0, 0.3)
    return out + _far_boxes(rng, middle, reach, int(rng.integers(6, 25)), (1.0, 6.0)), np.clip(sky, 0, 1)


def _floor(rng: np.random.Generator, centre: np.ndarray, size: np.ndarray, yaw: float) -> Surfaces:
    x, y = size[0] * np.array([np.cos(yaw), np.sin(yaw), 0]), size[1] * np.array([-np.sin(yaw), np.cos(yaw), 0])
    return quad(centre - x / 2 - y / 2, x, y, _paint(rng, 0.05, 0.6))


def _far_boxes(
    rng: np.random.Generator, middle: np.ndarray, reach: float, count: int, heights: tuple[float, float]
) -> list[Surfaces]:
    out = []
    for _ in range(count):
        angle, far = rng.uniform(0, 2 * np.pi), reach + rng.uniform(1.5, 7.0)
        at = middle + far * np.array([np.cos(angle), np.sin(angle), 0.0])
        size = (*rng.uniform(0.4, 3.0, 2), rng.uniform(*heights))
        out.append(box(at, size, rng.uniform(0, np.pi), _paint(rng)))
    return out


def _on_wall(rng: np.random.Generator, centre: np.ndarray, size: np.ndarray, yaw: float) -> Surfaces:
    """An image, a door, a board or a bright window, one or two centimetres in front of one of the four walls."""
    turn = yaw + rng.integers(4) * np.pi / 2
    depth, width = (size[0], size[1]) if round((turn - yaw) / (np.pi / 2)) % 2 == 0 else (size[1], size[0])
    outward, along = np.array([np.cos(turn), np.sin(turn), 0]), np.array([-np.sin(turn), np.cos(turn), 0])
    extent = np.minimum(rng.uniform(0.3, 2.0, 2), [0.8 * width, 0.8 * size[2]])
    low = rng.uniform(0.0, size[2] - extent[1])
    start = (
        centre + (depth / 2 - rng.uniform(0.01, 0.03)) * outward + rng.uniform(-0.5, 0.5) * (width - extent[0]) * along
    )
    paint = _paint(rng)
    if rng.uniform() < 0.5:
        paint = Paint(
            first=_colour(rng), second=_colour(rng), layer=int(rng.choice([BOOKS, BLOBS, 4, 19])), period_m=1.0
        )
    if rng.uniform() < 0.2:
        paint = Paint(
            first=(0.8, 0.9, 1.0), second=(0.7, 0.75, 0.8), layer=BLOBS, period_m=3.0, glow=rng.uniform(0.3, 2)
        )
    # `along` rotates to "up" about `outward`: if swapped, the image faces the room.
    return quad(start - along * extent[0] / 2 + [0, 0, low], (0.0, 0.0, float(extent[1])), along * extent[0], paint)


def _furniture(
    rng: np.random.Generator, middle: np.ndarray, cameras: np.ndarray, taken: Occupied, few: bool
) -> list[Surfaces]:
    """Objects on the floor; some are placed deliberately between a camera and the first person."""
    out: list[Surfaces] = []
    for _ in range(rng.integers(0, 2 if few else 7)):
        for _ in range(8):
            angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(0.9, 4.5)
            if rng.uniform() < 0.5:
                line = cameras[rng.integers(len(cameras))] - middle
                angle, across = np.arctan2(line[1], line[0]) + rng.normal(0.0, 0.12), np.hypot(*line[:2])
                far = rng.uniform(0.6, max(0.45 * across, 0.7))
            at = middle + far * np.array([np.cos(angle), np.sin(angle), 0.0])
            parts, radius = _furniture_piece(rng, at, _max_height(middle, cameras, at) * rng.uniform(0.4, 1.0))
            if taken.clear(at[:2], radius):
                out += parts
                taken = Occupied(np.concatenate([taken.centre, at[None, :2]]), np.append(taken.radius, radius))
                break
    return out


def _max_height(middle: np.ndarray, cameras: np.ndarray, at: np.ndarray) -> float:
    """Maximum height of an object over which each camera sees people from the chest upwards; inf off all lines."""
    lines = (cameras - middle)[:, :2]
    across = np.hypot(*lines.T)
    along = (lines @ (at - middle)[:2]) / across
    offset = np.abs(lines[:, 0] * (at - middle)[1] - lines[:, 1] * (at - middle)[0]) / across
    before = (along > 0) & (along < across) & (offset < 1.0)
    heights = CHEST_M + (cameras[:, 2] - middle[2] - CHEST_M) * along / across
    return float(np.where(before, np.maximum(heights, 0.2), np.inf).min())


def _furniture_piece(rng: np.random.Generator, at: np.ndarray, highest: float) -> tuple[list[Surfaces], float]:
    """A crate, a table, a chair, a shelf, a panel or a pole, about `highest` tall, and the radius it occupies."""
    yaw, paint = rng.uniform(0, np.pi), _paint(rng)
    across = np.array([[np.cos(yaw), np.sin(yaw), 0.0], [-np.sin(yaw), np.cos(yaw), 0.0]])

    def at_side(x: float, y: float, z: float) -> np.ndarray:
        return at + np.array([x, y]) @ across + [0.0, 0.0, z]

    kinds = ["crate", "table", "chair"] * 2 + (["shelf", "panel"] * 2 if np.isinf(highest) else ["pole"])
    kind = rng.choice(kinds)
    if kind == "table":
        x, y, z = rng.uniform(0.6, 1.6), rng.uniform(0.5, 0.8), min(rng.uniform(0.5, 0.9), highest)
        legs = [(sx * (x / 2 - 0.05), sy * (y / 2 - 0.05)) for sx in (-1, 1) for sy in (-1, 1)]
        parts = [box(at_side(0.0, 0.0, z - 0.04), (x, y, 0.04), yaw, paint)]
        parts += [box(at_side(*leg, 0.0), (0.05, 0.05, z - 0.04), yaw, paint) for leg in legs]
        for _ in range(rng.integers(0, 4)):
            u, v = rng.uniform(-0.3, 0.3, 2)
            parts.append(box(at_side(u * x, v * y, z), rng.uniform(0.08, 0.35, 3), yaw, _paint(rng)))
        return parts, np.hypot(x, y) / 2
    if kind == "chair":
        legs = [(sx * 0.19, sy * 0.19) for sx in (-1, 1) for sy in (-1, 1)]
        parts = [box(at_side(*leg, 0.0), (0.04, 0.04, 0.43), yaw, paint) for leg in legs]
        parts += [box(at_side(0.0, 0.0, 0.43), (0.43, 0.43, 0.04), yaw, paint)]
        return [*parts, box(at_side(0.0, 0.2, 0.47), (0.43, 0.03, rng.uniform(0.3, 0.55)), yaw, paint)], 0.32
    if kind == "pole":
        return [box(at, (0.07, 0.07, rng.uniform(1.2, 2.6)), yaw, paint)], 0.06
    if kind == "shelf":
        books = Paint(first=_colour(rng), second=_colour(rng), layer=BOOKS, period_m=rng.uniform(0.9, 1.4))
        x, z = rng.uniform(0.6, 1.6), rng.uniform(0.9, 2.1)
        return [box(at, (x, 0.35, z), yaw, books)], np.hypot(x, 0.35) / 2
    if kind == "panel":
        x = rng.uniform(0.4, 1.2)
        return [box(at, (x, 0.04, rng.uniform(1.2, 2.2)), yaw, paint)], x / 2
    x, y, z = rng.uniform(0.25, 0.8), rng.uniform(0.25, 0.6), min(rng.uniform(0.2, 0.95), highest)
    return [box(at, (x, y, z), yaw, paint)], np.hypot(x, y) / 2


def _lights(rng: np.random.Generator, outside: bool) -> Lights:
    turn, lift = rng.uniform(0, 2 * np.pi), rng.uniform(np.radians(30), np.radians(80))
    key = np.array([np.cos(turn) * np.cos(lift), np.sin(turn) * np.cos(lift), np.sin(lift)])
    away = turn + np.pi + rng.uniform(-1.0, 1.0)
    fill = np.array([np.cos(away) * 0.8, np.sin(away) * 0.8, 0.6])
    warm = np.array([1.0, 1.0, 1.0]) + rng.normal(0.0, 0.12) * np.array([1.0, 0.1, -1.0])
    # From a cloudy sky or a room full of lamps to one hard light.
    hard = rng.uniform(0.3, 2.2) if outside else rng.uniform(0.1, 1.6)
    sky = np.array([0.9, 1.0, 1.15]) if outside else warm
    return Lights(
        key_direction=key,
        key_colour=hard * warm,
        fill_direction=fill,
        fill_colour=rng.uniform(0.0, 0.5) * (2.0 - warm),
        sky_colour=rng.uniform(0.35, 0.75) * sky,
        ground_colour=rng.uniform(0.1, 0.4) * np.array(_colour(rng, 0.5, 0.9)),
    )
