"""Camera rigs for rendering: named, random, or from a calibration file."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from mvpose import scenes
from mvpose.errors import ConfigError
from mvpose.geometry.camera import CameraRig
from mvpose.geometry.lens import Lens, LensModel
from mvpose.geometry.rigid import Rigid

STATIC_RIGS = ("ring4", "ring8", "ring31")
RANDOM = "random"
HEIGHT_M, DISTANCE_M = (0.5, 3.5), (2.5, 7.0)
_SIZES = ((1920, 1080), (1280, 720), (1280, 1024), (1080, 1920), (2048, 1536))


def static_rig(name: str) -> CameraRig:
    """A fixed rig by name; ConfigError for an unknown name."""
    if name == "ring8":
        return ring8()
    if name not in STATIC_RIGS:
        raise ConfigError(f"no rig is named {name!r}: use {', '.join(STATIC_RIGS)} or {RANDOM}, or a calibration.")
    return (scenes.ring4 if name == "ring4" else scenes.ring31)(num_frames=1).rig


def ring8() -> CameraRig:
    """Eight surrounding cameras at two heights, 4.2 m from the middle."""
    angle = np.arange(8) * np.pi / 4 + 0.2
    place = np.stack([4.2 * np.cos(angle), 4.2 * np.sin(angle), np.where(np.arange(8) % 2, 2.4, 1.3)], axis=-1)
    wobble = np.linspace(-1.0, 1.0, 8)
    return rig_of(
        place,
        np.tile([0.0, 0.0, 0.95], (8, 1)),
        focal=1120.0 + 25.0 * wobble,
        lens=np.stack([-0.11 + 0.03 * wobble, 0.05 - 0.02 * wobble, 0.001 * wobble, -0.001 * wobble], axis=-1),
        size=np.tile([1920, 1080], (8, 1)),
    )


def random_rig(rng: np.random.Generator, num_views: int) -> CameraRig:
    """Cameras around the middle at random positions: a ring or an arc of at least half a turn, jittered.

    Heights and distances as in `HEIGHT_M` and `DISTANCE_M`. Lens, field of view (a person of 1.7 m fills 0.4 to 0.8 of
    the shorter side of the image), roll (2 degrees) and target point (0.2 m) are drawn for each camera, the image size
    for the rig.
    """
    span = 2 * np.pi if rng.uniform() < 0.7 else rng.uniform(np.pi, 2 * np.pi)
    step = span / num_views
    angle = rng.uniform(0, 2 * np.pi) + step * (np.arange(num_views) + rng.uniform(-0.35, 0.35, num_views))
    height = rng.uniform(*HEIGHT_M, num_views)
    distance = rng.uniform(*DISTANCE_M, num_views) if rng.uniform() < 0.5 else rng.uniform(*DISTANCE_M, 1)
    across = np.sqrt(np.maximum(distance**2 - (height - 0.9) ** 2, 1.0))
    place = np.stack([across * np.cos(angle), across * np.sin(angle), height], axis=-1)
    target = np.array([0.0, 0.0, 0.9]) + rng.normal(0.0, [0.2, 0.2, 0.1], (num_views, 3))
    size = np.tile(_SIZES[rng.integers(len(_SIZES))], (num_views, 1))
    focal = rng.uniform(0.4, 0.8, num_views) * size.min(axis=1) * distance / 1.7
    # Wide lenses have more distortion; distortion at the image corners stays plausible for the focal length.
    wide = np.clip(size.max(axis=1) / focal, 0.3, 1.6)
    lens = rng.normal(0.0, [0.10, 0.04, 0.0008, 0.0008], (num_views, 4)) - [0.10, -0.04, 0.0, 0.0]
    lens[:, :2] *= (wide / 1.6)[:, None]
    return rig_of(place, target, focal, lens, size, roll=rng.normal(0.0, np.radians(2.0), num_views), rng=rng)


def rig_of(
    place: Float[np.ndarray, "V 3"],
    target: Float[np.ndarray, "V 3"],
    focal: Float[np.ndarray, " V"],
    lens: Float[np.ndarray, "V 4"],
    size: np.ndarray,
    roll: Float[np.ndarray, " V"] | None = None,
    rng: np.random.Generator | None = None,
) -> CameraRig:
    """Cameras at `place` that look at `target`, rotated about their axes by `roll`; `rng` jitters their centres."""
    forward = _unit(target - place)
    right = _unit(np.cross(forward, [0.0, 0.0, 1.0]))
    level = np.stack([right, np.cross(forward, right), forward], axis=1)
    turn = np.zeros(len(place)) if roll is None else roll
    zero, one = np.zeros_like(turn), np.ones_like(turn)
    about = np.stack([np.cos(turn), np.sin(turn), zero, -np.sin(turn), np.cos(turn), zero, zero, zero, one], axis=-1)
    rotation = torch.from_numpy(about.reshape(-1, 3, 3) @ level)
    centre = (size - 1) / 2 + (0.0 if rng is None else rng.normal(0.0, 8.0, (len(place), 2)))
    return CameraRig(
        names=tuple(f"cam{i:02d}" for i in range(1, len(place) + 1)),
        focal=torch.from_numpy(np.stack([focal, focal], axis=-1)),
        centre=torch.from_numpy(centre),
        lens=Lens.of(LensModel.BROWN_CONRADY, lens.tolist()),
        camera_from_world=Rigid(rotation, -(rotation @ torch.from_numpy(place)[..., None])[..., 0]),
        size=torch.from_numpy(size),
    )


def middle(rig: CameraRig) -> Float[np.ndarray, " 3"]:
    """Point nearest to all optical axes, in the world, where people should be; for one camera, 3 m in front of it."""
    places = rig.centres_world.numpy()
    axes = rig.camera_from_world.rotation[:, 2].numpy()
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    # A weight of a thousandth towards 3 m in front of each camera, for rigs whose axes are nearly parallel.
    total = across.sum(axis=0) + 1e-3 * len(rig) * np.eye(3)
    return np.linalg.solve(total, (across @ places[..., None])[..., 0].sum(0) + 1e-3 * (places + 3.0 * axes).sum(0))


def squares(
    rig: CameraRig, box: Float[np.ndarray, "V 4"], margin: float, side: int
) -> tuple[CameraRig, Float[np.ndarray, "V 4"]]:
    """The rig of the square crops about boxes, `side` pixels wide, and the boxes in their pixels.

    `margin` is the side of a square relative to its box, as in `mvpose.datasets.crops`.
    """
    extent = margin * np.maximum(box[:, 2:] - box[:, :2], 1.0).max(axis=1)
    origin = (box[:, :2] + box[:, 2:]) / 2 - (extent[:, None] - 1) / 2
    scale, size = side / extent, torch.full((len(rig), 2), side)
    cut = rig.cropped(torch.from_numpy(origin), size)
    corners = (box.reshape(-1, 2, 2) - origin[:, None] + 0.5) * scale[:, None, None] - 0.5
    return cut.resized(torch.from_numpy(np.stack([scale, scale], axis=-1)), size), corners.reshape(-1, 4)


def finer(rig: CameraRig, times: int) -> CameraRig:
    """The rig of the same images with `times` the pixels along each side."""
    return rig.resized(torch.full_like(rig.focal, times), rig.size * times)


def _unit(vectors: Float[np.ndarray, "V 3"]) -> Float[np.ndarray, "V 3"]:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
