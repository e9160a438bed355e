"""Rendered takes: people who move through a room, in the whole images of all cameras.

People walk anywhere within `TakeConfig.reach_m` of the middle, so images cut off parts of them. The truth includes
joints outside the images. Take i of a seed is determined by both and the settings.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8

from mvpose.datasets.sample import TEST, TRAIN
from mvpose.errors import ConfigError
from mvpose.geometry.camera import CameraRig
from mvpose.rendering.camera_rigs import finer, random_rig
from mvpose.rendering.cast import FLOOR_S, Performer, Troupe, troupe
from mvpose.rendering.mesh import PosedPerson
from mvpose.rendering.photograph import Sensor, draw_sensor, photograph
from mvpose.rendering.renderer import renderer
from mvpose.rendering.room import Room, draw_room
from mvpose.rendering.views import FINER, people_in_views
from mvpose.skeleton import RENDERED, Skeleton

BLOCK = 20
"""Consecutive takes that share a troupe: a person takes 0.1 s to make."""
APART_M = 0.7
TRIES = 100
# Random stream separate from those of rendered samples and keypoint clips with the same seed and index.
_STREAM = 1 << 18


@dataclass(frozen=True, kw_only=True)
class TakeConfig:
    """Settings of rendered takes."""

    assets: str | None = None
    """Folder or s3:// URI of the assets of rendered people (default: MVPOSE_ASSETS)."""
    views: int = 4
    frames: int = 6
    fps: float = 10.0
    side: int = 480
    """Shorter side of the images in pixels."""
    scene_people: int = 2
    reach_m: float = 2.5
    """Maximum distance of a person's path from the middle, at which the cameras look."""
    people: int = 400
    """Number of people to draw from; one in five is in the test split only."""
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.views, self.frames, self.scene_people) < 1 or self.side < 16 or self.frames > FLOOR_S * self.fps:
            raise ConfigError(
                f"{self.views} views, {self.frames} frames at {self.fps:g} per second, {self.scene_people} people: "
                f"1 or more, up to {FLOOR_S:g} s, in images of 16 pixels or more."
            )


@dataclass(frozen=True, eq=False)
class RenderedTake:
    """Images of moving people with the truth."""

    rig: CameraRig
    images: tuple[UInt8[np.ndarray, "_ _ _ 3"], ...]
    """RGB, (T, H, W, 3) by view."""
    joints: Float[np.ndarray, "T P J 3"]
    """World, metres, Z up."""
    skeleton: Skeleton
    fps: float


def rendered_take(config: TakeConfig, split: str, index: int) -> RenderedTake:
    """Take `index` of a split. ConfigError if the split has no people, or its motions are all too short."""
    rng = np.random.default_rng(np.random.SeedSequence([config.seed, (TRAIN, TEST).index(split), index, _STREAM]))
    cast = troupe(config.assets, config.seed, split, index // BLOCK, config.people)
    wide = random_rig(rng, config.views)
    scale = config.side / int(wide.size[0].min())
    size = torch.round(wide.size * scale).long()
    rig = wide.resized(size / wide.size, size)
    people = _people(rng, cast, split, config)
    joints = np.stack([[person.joints for person in frame] for frame in people]).astype(np.float64)
    room = draw_room(rng, list(joints.swapaxes(0, 1).reshape(joints.shape[1], -1, 3)), rig.centres_world.numpy())
    sensors = [draw_sensor(rng, room.brightness) for _ in rig.names]
    frames = [_images(rng, rig, moment, room, cast, sensors) for moment in people]
    return RenderedTake(
        rig=rig,
        images=tuple(np.stack(view) for view in zip(*frames, strict=True)),
        joints=joints,
        skeleton=RENDERED,
        fps=config.fps,
    )


def _people(rng: np.random.Generator, cast: Troupe, split: str, config: TakeConfig) -> list[list[PosedPerson]]:
    """The people of every frame, at places drawn evenly over the floor; one too close to another is left out."""
    placed: list[list[PosedPerson]] = []
    for _ in range(int(rng.integers(1, config.scene_people + 1))):
        performer, step = _long_enough(rng, cast, split, config)
        span = (config.frames - 1) * step
        start = int(rng.integers(len(performer.motion) - span))
        motion = performer.motion.part(start, start + span + 1, step)
        angle, heading = rng.uniform(0, 2 * np.pi, 2)
        away = config.reach_m * np.sqrt(rng.uniform())
        place = (float(away * np.cos(angle)), float(away * np.sin(angle)))
        person = [performer.person.pose(motion, t, position=place, heading=heading) for t in range(config.frames)]
        if all(_apart_m(person, other) > APART_M for other in placed):
            placed.append(person)
    return [list(frame) for frame in zip(*placed, strict=True)]


def _apart_m(one: list[PosedPerson], other: list[PosedPerson]) -> float:
    """Minimum distance between the centres of two people."""
    centres = [np.stack([frame.joints.mean(axis=0) for frame in person]) for person in (one, other)]
    return float(np.linalg.norm(centres[0] - centres[1], axis=-1).min())


def _long_enough(rng: np.random.Generator, cast: Troupe, split: str, config: TakeConfig) -> tuple[Performer, int]:
    for _ in range(TRIES):
        performer = cast.draw(rng, split)
        step = max(1, round(performer.motion.fps / config.fps))
        if len(performer.motion) > (config.frames - 1) * step:
            return performer, step
    raise ConfigError(f"none of {TRIES} motions of the {split} split has {config.frames} frames: use fewer frames.")


def _images(
    rng: np.random.Generator,
    rig: CameraRig,
    people: list[PosedPerson],
    room: Room,
    cast: Troupe,
    sensors: list[Sensor],
) -> list[UInt8[np.ndarray, "_ _ 3"]]:
    """The images of all cameras in one frame."""
    fine, drawn, images = finer(rig, FINER), renderer(), []
    drawn.stage(room.surfaces, people, room.lights, cast.image)
    for view, (sensor, present) in enumerate(zip(sensors, people_in_views(fine, people), strict=True)):
        image, _ = drawn.image(fine, view, sensor.exposure, present, room.background)
        width, height = rig.size[view].tolist()
        data = photograph(rng, [image], (width, height), sensor, np.array([-0.5, -0.5, width - 0.5, height - 0.5]))
        images.append(np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)))
    return images
