"""One rendered scene: actors on a floor, scenery, light, cameras and images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from mvpose.datasets.sample import TEST, TRAIN, VALIDATION, Sample, SampleImage, observed
from mvpose.errors import ConfigError
from mvpose.geometry.camera import CameraRig
from mvpose.rendering.camera_rigs import middle, random_rig
from mvpose.rendering.mesh import PosedPerson
from mvpose.rendering.renderer import renderer
from mvpose.rendering.room import draw_room
from mvpose.rendering.views import MIN_JOINTS, photographed
from mvpose.skeleton import Skeleton

SPLITS = (TRAIN, TEST, VALIDATION)
"""In the order of their seeds."""
PEOPLE_IN_SCENE = (0.55, 0.3, 0.15)
"""Shares of scenes with one, two and three people."""
GROUP_RADIUS_M, APART_M, APART_IN_GROUP_M = 0.4, 0.35, 0.25
"""The people of a group stand within `GROUP_RADIUS_M` times the square root of their number. Minimum distances between
joints of two people, outside of a group and in one."""
BLURRED_SHARE, SHUTTER_S = 0.12, (0.004, 0.025)
BLUR_MOMENTS = 3
TRIES = 12


@runtime_checkable
class Actor(Protocol):
    """A person at a moment of a motion."""

    @property
    def subject(self) -> str:
        """Identity of the person."""
        ...

    @property
    def action(self) -> str:
        """Name of the motion."""
        ...

    def at(self, seconds: float) -> PosedPerson:
        """The person `seconds` after the moment, about (0, 0) on the floor z = 0."""
        ...


@runtime_checkable
class Cast(Protocol):
    """Source of people and their motions; those of one split never appear in another."""

    @property
    def skeleton(self) -> Skeleton:
        """Joint set of `PosedPerson.joints`."""
        ...

    def draw(self, rng: np.random.Generator, split: str) -> Actor:
        """Draw a person with a motion."""
        ...

    def image(self, key: str) -> UInt8[np.ndarray, "_ _ 4"]:
        """RGBA of a texture."""
        ...


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """Format of the stored crops."""

    side: int = 256
    """Side of a crop in pixels."""
    margin: float = 1.5
    """Side of the crop, relative to the box about the joints."""


def scene_people(
    seed: int,
    split: str,
    index: int,
    cast: Cast,
    rig: CameraRig | int,
    config: ImageConfig,
    group: int | None = None,
) -> list[Sample]:
    """The labelled people of scene `index` of a split; `rig` is a rig, or the number of cameras of a random one.

    One person among others, with crops about that person; or a `group` of so many who stand close together, one sample
    each, with the same crops about all of them. The scene is determined by the arguments alone. One in which a labelled
    person is seen well by fewer than two cameras is drawn again.
    """
    number = SPLITS.index(split)
    for attempt in range(TRIES):
        rng = np.random.default_rng(np.random.SeedSequence([seed, number, index, attempt]))
        cameras = random_rig(rng, rig) if isinstance(rig, int) else rig
        about = np.array([0.0, 0.0]) if isinstance(rig, int) else middle(rig)[:2]
        people = group or 1 + rng.choice(3, p=PEOPLE_IN_SCENE)
        actors = [cast.draw(rng, split) for _ in range(people)]
        placed = _placed(rng, actors, about, together=group is not None)
        labelled = group or 1
        inside, _ = observed(cameras, np.stack([p.joints for p in placed]))
        seen = (inside[:labelled].sum(axis=2) >= MIN_JOINTS).sum(axis=1)
        if len(placed) < labelled or (seen < min(2, len(cameras))).any():
            continue
        moments = [[person(t) for person in placed] for t in _shutter(rng)]
        still = moments[len(moments) // 2]
        room = draw_room(rng, [p.joints for p in still], cameras.centres_world.numpy())
        views = photographed(
            rng, renderer(), cameras, moments, room, cast.image, cast.skeleton, config.side, config.margin, labelled
        )
        return [
            Sample(
                capture_id=f"{split}-{index:06d}",
                frame=0,
                position=0,
                person=p,
                subject=placed[p].actor.subject,
                action=placed[p].actor.action,
                split=split,
                damaged=False,
                rig=views.rig,
                images=tuple(SampleImage(crop=crop) for crop in views.crops),
                xyz=still[p].joints.astype(np.float64),
                visible=views.visible[p],
                box=views.box[p],
                skeleton=cast.skeleton,
            )
            for p in range(labelled)
        ]
    raise ConfigError(
        f"in {TRIES} tries fewer than two cameras saw a person on the floor near {np.round(about, 2)}: "
        "the calibration's cameras look elsewhere, or its world is not in metres with Z up and the floor at 0."
    )


def _shutter(rng: np.random.Generator) -> list[float]:
    """Times of the exposure in seconds; usually one."""
    if rng.uniform() >= BLURRED_SHARE:
        return [0.0]
    return (np.linspace(-0.5, 0.5, BLUR_MOMENTS) * rng.uniform(*SHUTTER_S)).tolist()


def _placed(
    rng: np.random.Generator, actors: Sequence[Actor], about: Float[np.ndarray, " 2"], *, together: bool
) -> list[_Placed]:
    """The actors near a place, randomly rotated, without intersections; those without a free place are left out."""
    placed: list[_Placed] = []
    apart = APART_IN_GROUP_M if together else APART_M
    for i, actor in enumerate(actors):
        still = actor.at(0.0)
        for _ in range(TRIES):
            turn, angle = rng.uniform(0, 2 * np.pi, 2)
            if together:
                far = GROUP_RADIUS_M * np.sqrt(len(actors) * rng.uniform())
            else:
                far = 0.8 * np.sqrt(rng.uniform()) if i == 0 else rng.uniform(0.5, 2.5)
            offset = np.array([*(about + far * np.array([np.cos(angle), np.sin(angle)])), 0.0])
            place = _Placed(actor, still, float(turn), offset)
            if all(_apart_m(place, other) > apart for other in placed):
                placed.append(place)
                break
    return placed


def _apart_m(one: _Placed, other: _Placed) -> float:
    """Minimum distance between joints of two people."""
    return float(np.linalg.norm(one.joints[:, None] - other.joints, axis=-1).min())


@dataclass(frozen=True, eq=False)
class _Placed:
    """An actor rotated about the vertical and moved over the floor."""

    actor: Actor
    still: PosedPerson
    """Pose at the moment itself."""
    turn: float
    offset: Float[np.ndarray, " 3"]

    @property
    def joints(self) -> Float[np.ndarray, "J 3"]:
        return self.still.joints @ self._turned + self.offset

    @property
    def _turned(self) -> Float[np.ndarray, "3 3"]:
        c, s = np.cos(self.turn), np.sin(self.turn)
        return np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]], np.float32)

    def __call__(self, seconds: float) -> PosedPerson:
        """The placed person, `seconds` after the moment."""
        person = self.actor.at(seconds) if seconds else self.still
        turned, shift = self._turned, self.offset.astype(np.float32)
        return replace(
            person,
            vertices=tuple(v @ turned + shift for v in person.vertices),
            normals=tuple(n @ turned for n in person.normals),
            joints=person.joints @ turned + shift,
        )
