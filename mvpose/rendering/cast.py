"""Cast of rendered people: MakeHuman people moved by motion capture; few at a time, as each takes 0.1 s to make."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import UInt8

from mvpose.errors import ConfigError
from mvpose.rendering.assets import Assets
from mvpose.rendering.mesh import PosedPerson
from mvpose.rendering.motion import Motion, MotionLibrary, draw_motion, person_split
from mvpose.rendering.person import Person, draw_person
from mvpose.skeleton import RENDERED, Skeleton

TROUPE = 12
"""People in a block of samples: made once, they cost 6 ms per view of four; more people would cost more."""
FLOOR_S, FLOOR_FRAMES = 2.0, 8
"""Duration of a motion, about a moment, from which its floor is found; a frame costs 2 ms."""


@dataclass(frozen=True, eq=False)
class Performer:
    """A person at a moment of a motion."""

    subject: str
    person: Person
    motion: Motion
    frame: int

    @property
    def action(self) -> str:
        """The motion capture clip."""
        return self.motion.clip

    def at(self, seconds: float) -> PosedPerson:
        """Vertices and joints extrapolated linearly from the moment, with the velocity to the motion's next frame."""
        now = self._pose(self.frame)
        if seconds:
            share = np.float32(seconds * self.motion.fps)
            step = -1 if self.frame + 1 == len(self.motion) else 1
            then = self._pose(self.frame + step)
            now = replace(
                now,
                vertices=tuple(a + share * step * (b - a) for a, b in zip(now.vertices, then.vertices, strict=True)),
                joints=now.joints + share * step * (then.joints - now.joints),
            )
        return now

    def _pose(self, frame: int) -> PosedPerson:
        """Above the origin at the moment itself."""
        x, y, _ = self.motion.hips[self.frame] * self.person.rig.leg_m
        return self.person.pose(self.motion, frame, position=(-float(x), -float(y)))


@dataclass(frozen=True, eq=False)
class Troupe:
    """A few people, and all motions of their split."""

    assets: Assets
    library: MotionLibrary
    people: tuple[int, ...]
    """People by the seed that draws them."""

    @property
    def skeleton(self) -> Skeleton:
        """Joint set of rendered people."""
        return RENDERED

    def draw(self, rng: np.random.Generator, split: str, seconds: float = FLOOR_S) -> Performer:
        """Draw one of the people at a moment of a motion of the split, up to `seconds` long, soles on the floor."""
        number = int(rng.choice(self.people))
        person = _person(self.assets, number)
        clip = draw_motion(rng, self.library, seconds=seconds, fps=np.inf, split=split)
        lift_m = person.grounded(clip.part(0, len(clip), -(-len(clip) // FLOOR_FRAMES))).lift_m
        moment = int(rng.integers(len(clip)))
        return Performer(f"person-{number:05d}", person, replace(clip, lift_m=lift_m), moment)

    def image(self, key: str) -> UInt8[np.ndarray, "_ _ 4"]:
        """A texture of skin or cloth."""
        return self.assets.texture(key)


@lru_cache(maxsize=4)
def troupe(folder: str | None, seed: int, split: str, block: int, people: int) -> Troupe:
    """The people of a block of samples, drawn from the first `people`. ConfigError if a split has none."""
    found = [number for number in range(people) if person_split(number) == split]
    if not found:
        raise ConfigError(f"none of {people} people is in the {split} split: increase the number of people.")
    rng = np.random.default_rng(np.random.SeedSequence([seed, block, len(found)]))
    assets, library = _library(folder)
    return Troupe(assets, library, tuple(rng.permutation(found)[:TROUPE].tolist()))


@lru_cache(maxsize=2)
def _library(folder: str | None) -> tuple[Assets, MotionLibrary]:
    assets = Assets.open(folder)
    return assets, MotionLibrary.open(assets)


@lru_cache(maxsize=3 * TROUPE)
def _person(assets: Assets, number: int) -> Person:
    return draw_person(np.random.default_rng(number), assets)
