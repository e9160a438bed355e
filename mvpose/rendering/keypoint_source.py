"""2D joints without pixels: motion capture through random cameras, with the errors of the real detector.

Clip i of a seed is determined by both and the settings. People, motions and splits are those of the rendered corpus:
splits share neither. `MotionCapture` writes the clips' joints and cameras as a table of samples, on which lifters
train. `keypoint_clip` adds detections, from which reconstructions are measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from mvpose.datasets.detector_noise import DetectorNoise, draw_detections, measured_noise, part_of
from mvpose.datasets.origins import RENDERED_PEOPLE
from mvpose.datasets.sample import TEST, TRAIN, VALIDATION, Labels, Sample, SampleImage, SampleScene, scene_samples
from mvpose.errors import ConfigError
from mvpose.geometry.camera import CameraRig
from mvpose.rendering.camera_rigs import RANDOM, random_rig, static_rig
from mvpose.rendering.cast import FLOOR_S, Performer, Troupe, troupe
from mvpose.rendering.corpus import shard_names, within_shard
from mvpose.rendering.scene import SPLITS
from mvpose.skeleton import RENDERED, Skeleton

BLOCK = 200
"""Consecutive clips that share a troupe: a person takes 0.1 s to make."""
TRIES = 100
# Random stream separate from those of rendered samples with the same seed and index.
_STREAM = 1 << 17


@dataclass(frozen=True, kw_only=True)
class KeypointSource:
    """Settings of the clips."""

    assets: str | None = None
    """Folder or s3:// URI of the assets of rendered people (default: MVPOSE_ASSETS)."""
    rig: Literal["ring4", "ring8", "ring31", "random"] = "random"
    """Rig name; `random` draws a new rig for each clip."""
    views: int = 4
    """Cameras of random rigs."""
    frames: int = 27
    fps: float = 25.0
    """Approximate frame rate; clips keep every n-th frame of their motion."""
    people: int = 400
    """Number of people to draw from; one in five is in the test split only, one in ten in validation."""
    min_confidence: float = 0.3
    """Joints below this confidence are missed."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.frames < 1 or not self.fps > 0 or self.views < 1:
            raise ConfigError(
                f"{self.frames} frames at {self.fps} per second, {self.views} views: at least 1 frame and view, and a "
                "rate above 0"
            )

    @property
    def motion_s(self) -> float:
        """Duration of the motions that clips are cut from."""
        return max(FLOOR_S, self.frames / self.fps)


@dataclass(frozen=True, eq=False)
class KeypointClip:
    """A moving person, as seen by V cameras and a detector."""

    subject: str
    action: str
    rig: CameraRig
    skeleton: Skeleton
    joints: Float[np.ndarray, "T J 3"]
    """World, metres, Z up."""
    xy: Float[np.ndarray, "V T J 2"]
    """Pixels, with lens distortion; NaN for a missed joint."""
    confidence: Float[np.ndarray, "V T J"]
    """0 for a missed joint."""
    fps: float


def keypoint_clip(source: KeypointSource, split: str, index: int, noise: DetectorNoise | None = None) -> KeypointClip:
    """Clip `index` of a split. `noise` defaults to the measured one.

    ConfigError if the split has no people, or its motions are all too short.
    """
    noise = noise or measured_noise()
    rng, moving = _moving(source, split, index)
    skeleton = detected_joints(noise)
    rig, joints = moving.rig, moving.joints[:, RENDERED.indices(*skeleton.joints)]
    pixels, before = rig.project(torch.from_numpy(joints))
    inside = (before & rig.inside(pixels)).numpy()
    flat = pixels.numpy().reshape(-1, *joints.shape[1:2], 2)
    found = draw_detections(
        noise,
        flat,
        in_cameras(rig, joints).reshape(-1, *joints.shape[1:]),
        inside.reshape(flat.shape[:2]),
        skeleton,
        rng,
        source.min_confidence,
    )
    return KeypointClip(
        subject=moving.subject,
        action=moving.action,
        rig=rig,
        skeleton=skeleton,
        joints=joints,
        xy=found.xy.reshape(*inside.shape, 2),
        confidence=found.confidence.reshape(inside.shape),
        fps=moving.fps,
    )


def detected_joints(noise: DetectorNoise) -> Skeleton:
    """The joints of rendered people that the detector has, and the bones with both ends among them."""
    joints = tuple(joint for joint in RENDERED.joints if part_of(joint) in noise.parts)
    return Skeleton(f"detected{len(joints)}", joints, tuple(b for b in RENDERED.bones if set(b) <= set(joints)))


def in_cameras(rig: CameraRig, joints: Float[np.ndarray, "T J 3"]) -> Float[np.ndarray, "V T J 3"]:
    """World points in the axes of each camera, metres."""
    points = torch.from_numpy(joints).reshape(1, -1, 3).expand(len(rig), -1, -1)
    return rig.camera_from_world.apply(points).numpy().reshape(len(rig), *joints.shape)


@dataclass(frozen=True, kw_only=True)
class MotionCapture:
    """Motion capture as a table of samples without images, on which lifters train: a shard is some clips."""

    clips: KeypointSource = field(default_factory=lambda: KeypointSource(frames=54))
    train: int = 400
    """Clips of each split. Splits share no person and no motion."""
    validation: int = 20
    test: int = 40
    shard_clips: int = 20

    def __post_init__(self) -> None:
        if min(self.train, self.validation, self.test) < 0 or self.shard_clips < 1:
            raise ConfigError("motion capture needs a non-negative number of clips, and shards of 1 or more.")

    @property
    def name(self) -> str:
        """Dataset name in the samples: people and motions are those of the rendered corpus."""
        return RENDERED_PEOPLE

    @property
    def skeleton(self) -> Skeleton:
        """Joint set of all samples."""
        return RENDERED

    def shards(self) -> list[str]:
        """`train/00000` and so on: the unit of work of one task."""
        return shard_names({TRAIN: self.train, VALIDATION: self.validation, TEST: self.test}, self.shard_clips)

    def read(self, shard: str) -> Iterator[Sample]:
        """The frames of the clips of a shard, each clip a capture."""
        split = shard.split("/")[0]
        for index in within_shard(shard, getattr(self, split), self.shard_clips):
            _, moving = _moving(self.clips, split, index)
            scene = SampleScene(
                capture_id=f"{split}-{index:06d}",
                subject=moving.subject,
                action=moving.action,
                split=split,
                rig=moving.rig,
                skeleton=RENDERED,
                fps=self.clips.fps,
            )
            frames = np.arange(len(moving.joints))
            labels = Labels(frame=frames, position=frames, xyz=moving.joints)
            yield from scene_samples(scene, labels, lambda _, rig=moving.rig: dict.fromkeys(rig.names, SampleImage()))


@dataclass(frozen=True, eq=False)
class _Moving:
    subject: str
    action: str
    rig: CameraRig
    joints: Float[np.ndarray, "T J 3"]
    """Those of `RENDERED`: world, metres, Z up."""
    fps: float


def _moving(source: KeypointSource, split: str, index: int) -> tuple[np.random.Generator, _Moving]:
    """A moving person before cameras, and the generator that drew them."""
    rng = np.random.default_rng(np.random.SeedSequence([source.seed, SPLITS.index(split), index, _STREAM]))
    cast = troupe(source.assets, source.seed, split, index // BLOCK, source.people)
    rig = random_rig(rng, source.views) if source.rig == RANDOM else static_rig(source.rig)
    performer, step = _long_enough(rng, cast, split, source)
    start = int(rng.integers(len(performer.motion) - (source.frames - 1) * step))
    part = performer.motion.part(start, start + (source.frames - 1) * step + 1, step)
    heading = float(rng.uniform(0, 2 * np.pi))
    joints = np.stack([performer.person.joints(part, i, heading=heading) for i in range(source.frames)])
    return rng, _Moving(performer.subject, performer.action, rig, joints.astype(np.float64), part.fps)


def _long_enough(rng: np.random.Generator, cast: Troupe, split: str, source: KeypointSource) -> tuple[Performer, int]:
    """A person whose motion is long enough, and the step between the frames taken."""
    for _ in range(TRIES):
        performer = cast.draw(rng, split, source.motion_s)
        step = max(1, round(performer.motion.fps / source.fps))
        if len(performer.motion) > (source.frames - 1) * step:
            return performer, step
    raise ConfigError(f"none of {TRIES} motions of the {split} split has {source.frames} frames: use fewer frames.")
