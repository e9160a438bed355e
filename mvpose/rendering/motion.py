"""Motion capture clips of two archives in one convention, drawn at random and split without leakage."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from mvpose.datasets.sample import TEST, TRAIN, VALIDATION
from mvpose.rendering.acclaim import read_amc, read_asf
from mvpose.rendering.assets import Assets
from mvpose.rendering.humanoid3d import read_humanoid3d

_CMU, _DEEPMIMIC = "motion/cmu_asf_amc.zip", "motion/deepmimic_humanoid3d.zip"
CMU_FPS = 120.0


@dataclass(frozen=True, eq=False)
class Motion:
    """The motion of a body, independent of body size."""

    clip: str
    """`cmu/02_01` or `deepmimic/walk`: with `source`, the key of splits."""
    source: str
    """Original recording of the clip: a mirrored clip has the source of its original."""
    fps: float
    turns: Float[np.ndarray, "T S 3 3"]
    """Rotation of each of `SEGMENTS` from the reference pose into the world (Z up)."""
    hips: Float[np.ndarray, "T 3"]
    """Middle of the hip joints, in lengths of a straight leg (hip to ankle), Z up; z is above the source's floor."""
    lift_m: float = 0.0
    """Added to every height; set by `Person.grounded` so that the person's soles meet z = 0."""

    def __len__(self) -> int:
        return len(self.turns)

    def part(self, start: int, stop: int, step: int = 1) -> Motion:
        """Every `step`-th frame of start .. stop, moved so that its path is centred on the world's Z axis."""
        hips = self.hips[start:stop:step].copy()
        hips[:, :2] -= (hips[:, :2].min(axis=0) + hips[:, :2].max(axis=0)) / 2
        return replace(self, fps=self.fps / step, turns=self.turns[start:stop:step], hips=hips)


@dataclass(frozen=True, eq=False)
class MotionLibrary:
    """The clips of the motion archives, each parsed at first use."""

    assets: Assets
    clips: tuple[str, ...]
    """Sorted."""
    _kept: dict[str, Motion] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, assets: Assets) -> MotionLibrary:
        """All clips of the card's archives; WeightsError if an archive is missing or damaged."""
        return cls(assets, tuple(sorted(_members(assets))))

    def read(self, clip: str) -> Motion:
        """One clip by name; KeyError for an unknown name."""
        if clip not in self._kept:
            archive, member = _members(self.assets)[clip]
            with zipfile.ZipFile(io.BytesIO(self.assets.parsed(archive, bytes))) as files:
                content = files.read(member).decode("utf-8-sig")
                if archive == _CMU:
                    subject = member.split("/")[0]
                    skeleton = read_asf(files.read(f"{subject}/{subject}.asf").decode("utf-8-sig"))
                    fps, (turns, hips) = CMU_FPS, read_amc(content, skeleton)
                else:
                    fps, turns, hips = read_humanoid3d(content)
            self._kept[clip] = Motion(clip=clip, source=source_of(clip), fps=fps, turns=turns, hips=hips)
        return self._kept[clip]

    def of_split(self, split: str) -> tuple[str, ...]:
        """Clips of one split."""
        return tuple(clip for clip in self.clips if motion_split(clip) == split)


def draw_motion(
    rng: np.random.Generator, library: MotionLibrary, *, seconds: float, fps: float, split: str | None = None
) -> Motion:
    """Part of a random clip (all equally probable), at about `fps` frames per second, up to `seconds` long."""
    clips = library.clips if split is None else library.of_split(split)
    clip = library.read(clips[int(rng.integers(len(clips)))])
    step = max(1, round(clip.fps / fps))
    length = min(len(clip), max(step, round(seconds * clip.fps)))
    start = int(rng.integers(len(clip) - length + 1))
    return clip.part(start, start + length, step)


def source_of(clip: str) -> str:
    """The recording behind a clip.

    DeepMimic cuts short clips from long ones and mirrors some. All clips of such a family count as one recording, which
    no two splits share.
    """
    for family in ("stealthy", "zombie", "walk", "getup"):
        if clip.startswith("deepmimic/") and family in clip:
            return f"deepmimic/{family}"
    return clip


def motion_split(clip: str) -> str:
    """The split of a recording, by a digest of its name: the same on every machine."""
    return _split(source_of(clip))


def person_split(seed: int) -> str:
    """The split of a person, who is identified by a seed."""
    return _split(f"person/{seed}")


def _split(name: str) -> str:
    """TEST for one name in five, VALIDATION for one in eight of the others, TRAIN for the rest."""
    eighth, fifth = divmod(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big"), 5)
    if fifth == 0:
        return TEST
    # Of the eight, this one has the most varied motions: walking, a dance, a kick, a cartwheel, a roll.
    return VALIDATION if eighth % 8 == 6 else TRAIN


@lru_cache(maxsize=2)
def _members(assets: Assets) -> dict[str, tuple[str, str]]:
    """(archive, member) of each clip."""
    found: dict[str, tuple[str, str]] = {}
    for archive, prefix, suffix in ((_CMU, "cmu/", ".amc"), (_DEEPMIMIC, "deepmimic/", ".txt")):
        with zipfile.ZipFile(io.BytesIO(assets.parsed(archive, bytes))) as files:
            for member in files.namelist():
                if member.endswith(suffix):
                    name = member.split("/")[-1].removesuffix(suffix).removeprefix("humanoid3d_")
                    found[prefix + name] = (archive, member)
    return found
