"""2D joints without pixels: motion capture through random cameras, with the errors of the real detector.

Clip i of a seed is determined by both and the settings. People, motions and splits are those of the rendered corpus:
splits share neither. Lifting networks take `lifting_samples`. Reconstruction and other keypoint networks take
the joints, rig and detections of the clips themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float

from mvpose.datasets.detector_noise import DetectorNoise, draw_detections, measured_noise, part_of
from mvpose.errors import ConfigError
from mvpose.geometry.camera import CameraRig
from mvpose.models.single_view.lifting import LiftingSamples
from mvpose.rendering.camera_rigs import RANDOM, random_rig, static_rig
from mvpose.rendering.cast import FLOOR_S, Performer, Troupe, troupe
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
    rng = np.random.default_rng(np.random.SeedSequence([source.seed, SPLITS.index(split), index, _STREAM]))
    cast = troupe(source.assets, source.seed, split, index // BLOCK, source.people)
    rig = random_rig(rng, source.views) if source.rig == RANDOM else static_rig(source.rig)
    performer, step = _long_enough(rng, cast, split, source)
    start = int(rng.integers(len(performer.motion) - (source.frames - 1) * step))
    part = performer.motion.part(start, start + (source.frames - 1) * step + 1, step)
    heading = float(rng.uniform(0, 2 * np.pi))
    skeleton = detected_joints(noise)
    kept = RENDERED.indices(*skeleton.joints)
    frames = range(source.frames)
    joints = np.stack([performer.person.joints(part, i, heading=heading)[kept] for i in frames]).astype(np.float64)

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
        subject=performer.subject,
        action=performer.action,
        rig=rig,
        skeleton=skeleton,
        joints=joints,
        xy=found.xy.reshape(*inside.shape, 2),
        confidence=found.confidence.reshape(inside.shape),
        fps=part.fps,
    )


def detected_joints(noise: DetectorNoise) -> Skeleton:
    """The joints of rendered people that the detector has, and the bones with both ends among them."""
    joints = tuple(joint for joint in RENDERED.joints if part_of(joint) in noise.parts)
    return Skeleton(f"detected{len(joints)}", joints, tuple(b for b in RENDERED.bones if set(b) <= set(joints)))


def in_cameras(rig: CameraRig, joints: Float[np.ndarray, "T J 3"]) -> Float[np.ndarray, "V T J 3"]:
    """World points in the axes of each camera, metres."""
    points = torch.from_numpy(joints).reshape(1, -1, 3).expand(len(rig), -1, -1)
    return rig.camera_from_world.apply(points).numpy().reshape(len(rig), *joints.shape)


def lifting_samples(clips: Sequence[KeypointClip], root: str = "hip") -> LiftingSamples:
    """Every view of every clip as a separate clip, in order: B is their number, T their number of frames.

    Lens distortion and K are removed. Missed joints, and pixels beyond the lens's valid range, are NaN and not `seen`.
    float32, as used by networks.
    """
    points, poses = [], []
    for clip in clips:
        known = torch.from_numpy(np.isfinite(clip.xy).all(axis=-1))
        ideal, valid = clip.rig.undistorted(torch.from_numpy(np.nan_to_num(clip.xy)))
        plane = (ideal - clip.rig.centre[:, None, None]) / clip.rig.focal[:, None, None]
        points.append(torch.where((known & valid)[..., None], plane, torch.nan))
        in_camera = torch.from_numpy(in_cameras(clip.rig, clip.joints))
        poses.append(in_camera - in_camera[:, :, [clip.skeleton.index(root)]])
    joints_2d = torch.cat(points).float()
    return LiftingSamples(joints_2d, torch.cat(poses).float(), joints_2d.isfinite().all(dim=-1))


def _long_enough(rng: np.random.Generator, cast: Troupe, split: str, source: KeypointSource) -> tuple[Performer, int]:
    """A person whose motion is long enough, and the step between the frames taken."""
    for _ in range(TRIES):
        performer = cast.draw(rng, split, source.motion_s)
        step = max(1, round(performer.motion.fps / source.fps))
        if len(performer.motion) > (source.frames - 1) * step:
            return performer, step
    raise ConfigError(f"none of {TRIES} motions of the {split} split has {source.frames} frames: use fewer frames.")
