"""Faults planted into a take: what happens to real captures, with the finding and the cameras that should name it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mvpose.geometry.camera import CameraRig
from mvpose.geometry.image_turns import image_turned
from mvpose.geometry.rigid import Rigid
from mvpose.quality.camera_turns import turned
from mvpose.quality.findings import CheckKind
from mvpose.quality.focal_lengths import zoomed
from mvpose.quality.image_orientation import mirrored
from mvpose.quality.swapped_names import exchanged
from mvpose.records import Keypoints2D
from mvpose.rendering.camera_rigs import random_rig
from mvpose.rendering.keypoint_source import KeypointClip

BOX_MARGIN = 0.1
"""Added on each side of the joints, in shares of the larger side, as boxes of detectors have it."""
MOVED_DEGREES = 3.0
LOST_FRAMES = 8
ZOOM = 1.1
FLOOR_M = 0.5
Y_UP = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]], dtype=torch.float64)
"""old_from_new for a world whose Y axis points up."""


@dataclass(frozen=True, eq=False)
class CalibratedTake:
    """2D joints of a capture with its calibration."""

    name: str
    keypoints: Keypoints2D
    rig: CameraRig
    fps: float


@dataclass(frozen=True, eq=False)
class Planted:
    """A take with a fault: the checks of which one should decide, and the cameras that should be named."""

    take: CalibratedTake
    checks: tuple[CheckKind, ...]
    cameras: tuple[str, ...] = ()


Fault = Callable[[CalibratedTake, np.random.Generator], Planted]
"""A take, and the draw of cameras, signs and moments."""


def faults() -> Mapping[str, Fault]:
    """The faults by name."""
    return {
        "cameras exchanged": _exchanged,
        **{f"turned by {degrees} degrees": partial(_turned, float(degrees)) for degrees in (1, 2, 5)},
        **{f"{frames} frames out of step": partial(_out_of_step, frames) for frames in (2, 3, 5, 10)},
        "another recording's calibration": _other_calibration,
        "centimetres for millimetres": _other_unit,
        f"moved by {MOVED_DEGREES:g} degrees in mid-take": _moved,
        f"{LOST_FRAMES} frames lost in mid-take": _frames_lost,
        f"zoomed by {ZOOM - 1:.0%}": _zoomed,
        "image mirrored": _mirrored,
        "image upside down": _upside_down,
        "poses inverted": _inverted_poses,
        f"origin {FLOOR_M:g} m above the floor": partial(_world_moved, torch.eye(3).double(), FLOOR_M),
        "Y axis up": partial(_world_moved, Y_UP, 0.0),
    }


def take_of(clip: KeypointClip, name: str) -> CalibratedTake:
    """A drawn clip as a capture of one person."""
    seen = clip.confidence > 0
    low, high = (np.where(seen[..., None], clip.xy, empty) for empty in (np.inf, -np.inf))
    low, high = low.min(axis=2), high.max(axis=2)
    margin = BOX_MARGIN * (high - low).max(axis=-1, keepdims=True)
    there = np.asarray(seen.any(axis=2))
    box = np.where(there[..., None], np.concatenate([low - margin, high + margin], axis=-1), 0.0)
    keypoints = Keypoints2D(
        xy=clip.xy[:, :, None].astype(np.float32),
        confidence=clip.confidence[:, :, None].astype(np.float32),
        box=box[:, :, None].astype(np.float32),
        box_score=there[:, :, None].astype(np.float32),
        skeleton=clip.skeleton,
    )
    return CalibratedTake(name, keypoints, clip.rig, clip.fps)


def _exchanged(take: CalibratedTake, rng: np.random.Generator) -> Planted:
    views = sorted(rng.choice(len(take.rig), 2, replace=False).tolist())
    names = tuple(take.rig.names[view] for view in views)
    return Planted(replace(take, rig=exchanged(take.rig, *views)), (CheckKind.NAMES,), names)


def _turned(degrees: float, take: CalibratedTake, rng: np.random.Generator) -> Planted:
    view = int(rng.integers(len(take.rig)))
    rig = turned(take.rig, view, _rotation(degrees, rng))
    return Planted(replace(take, rig=rig), (CheckKind.CAMERA,), (take.rig.names[view],))


def _out_of_step(frames: int, take: CalibratedTake, rng: np.random.Generator) -> Planted:
    view, late = int(rng.integers(len(take.rig))), frames * int(rng.choice((-1, 1)))
    own = np.arange(take.keypoints.xy.shape[1]) - late
    keypoints = _with_view(take.keypoints, view, own.clip(0, len(own) - 1), (own >= 0) & (own < len(own)))
    return Planted(replace(take, keypoints=keypoints), (CheckKind.SYNCHRONISATION,), (take.rig.names[view],))


def _other_calibration(take: CalibratedTake, rng: np.random.Generator) -> Planted:
    rig = replace(random_rig(rng, len(take.rig)), names=take.rig.names)
    return Planted(replace(take, rig=rig), (CheckKind.CALIBRATION, CheckKind.PEOPLE, CheckKind.POSES))


def _other_unit(take: CalibratedTake, rng: np.random.Generator) -> Planted:
    pose = take.rig.camera_from_world
    factor = float(rng.choice((0.1, 10.0)))
    rig = replace(take.rig, camera_from_world=replace(pose, translation=factor * pose.translation))
    return Planted(replace(take, rig=rig), (CheckKind.SCALE,))


def _moved(take: CalibratedTake, rng: np.random.Generator) -> Planted:
    """From some moment between 30 and 70 % of the take, the camera is turned."""
    view, num_frames = int(rng.integers(len(take.rig))), take.keypoints.xy.shape[1]
    after = np.arange(num_frames) >= rng.uniform(0.3, 0.7) * num_frames
    keypoints = _seen_by_turned(take.keypoints, take.rig, view, _rotation(MOVED_DEGREES, rng), after)
    return Planted(replace(take, keypoints=keypoints), (CheckKind.MOVED,), (take.rig.names[view],))


def _frames_lost(take: CalibratedTake, rng: np.random.Generator) -> Planted:
    """From some moment between 30 and 70 % of the take, a camera's frames come too early, and the last are missing."""
    view, num_frames = int(rng.integers(len(take.rig))), take.keypoints.xy.shape[1]
    own = np.arange(num_frames)
    own = np.where(own >= rng.uniform(0.3, 0.7) * num_frames, own + LOST_FRAMES, own)
    keypoints = _with_view(take.keypoints, view, own.clip(0, num_frames - 1), own < num_frames)
    return Planted(replace(take, keypoints=keypoints), (CheckKind.SYNCHRONISATION,), (take.rig.names[view],))


def _zoomed(take: CalibratedTake, rng: np.random.Generator) -> Planted:
    view = int(rng.integers(len(take.rig)))
    rig = zoomed(take.rig, view, ZOOM ** float(rng.choice((-1, 1))))
    return Planted(replace(take, rig=rig), (CheckKind.FOCAL,), (take.rig.names[view],))


def _mirrored(take: CalibratedTake, rng: np.random.Generator) -> Planted:
    view = int(rng.integers(len(take.rig)))
    keypoints = mirrored(take.keypoints, view, int(take.rig.size[view, 0]))
    return Planted(replace(take, keypoints=keypoints), (CheckKind.ORIENTATION,), (take.rig.names[view],))


def _upside_down(take: CalibratedTake, rng: np.random.Generator) -> Planted:
    """A camera was turned by half a turn after it was calibrated."""
    view = int(rng.integers(len(take.rig)))
    rig = image_turned(take.rig, view, 2)
    return Planted(replace(take, rig=rig), (CheckKind.ORIENTATION,), (take.rig.names[view],))


def _inverted_poses(take: CalibratedTake, rng: np.random.Generator) -> Planted:
    """The calibration gives world_from_camera where camera_from_world is expected."""
    rig = replace(take.rig, camera_from_world=take.rig.camera_from_world.inverse())
    return Planted(replace(take, rig=rig), (CheckKind.CALIBRATION, CheckKind.PEOPLE, CheckKind.POSES))


def _world_moved(
    rotation: Float[Tensor, "3 3"], up_m: float, take: CalibratedTake, rng: np.random.Generator
) -> Planted:
    """The calibration's world is turned, or its origin is above the floor."""
    shift = torch.tensor([0.0, 0.0, up_m], dtype=torch.float64)
    rig = take.rig.moved(Rigid(rotation, shift))
    return Planted(replace(take, rig=rig), (CheckKind.UPRIGHT, CheckKind.CAMERA_HEIGHT, CheckKind.FLOOR))


def _rotation(degrees: float, rng: np.random.Generator) -> Float[Tensor, "3 3"]:
    """Rotation about the camera's x axis or y axis, in either direction."""
    vector = torch.zeros(3, dtype=torch.float64)
    vector[int(rng.integers(2))] = np.radians(degrees) * float(rng.choice((-1, 1)))
    return torch.matrix_exp(torch.linalg.cross(-torch.eye(3).double(), vector.expand(3, 3)))


def _with_view(
    keypoints: Keypoints2D, view: int, frames: Int[np.ndarray, " T"], there: Bool[np.ndarray, " T"]
) -> Keypoints2D:
    """One view shows these frames of itself, and nobody where it is not `there`."""
    arrays = {name: getattr(keypoints, name).copy() for name in ("xy", "confidence", "box", "box_score")}
    for name, values in arrays.items():
        values[view] = values[view][frames]
        values[view, ~there] = np.nan if name == "xy" else 0.0
    return replace(keypoints, **arrays)


def _seen_by_turned(
    keypoints: Keypoints2D,
    rig: CameraRig,
    view: int,
    rotation: Float[Tensor, "3 3"],
    after: Bool[np.ndarray, " T"],
) -> Keypoints2D:
    """2D joints where the camera sees them if it is turned about its own centre in some frames."""
    camera = rig.select((rig.names[view],))
    corners = keypoints.box[view].reshape(-1, 2, 2)

    def moved(pixels: np.ndarray) -> np.ndarray:
        ideal = camera.undistorted(torch.from_numpy(np.nan_to_num(pixels.reshape(1, -1, 2)).astype(np.float64)))[0][0]
        plane = (ideal - camera.centre[0]) / camera.focal[0]
        ray = torch.cat([plane, torch.ones_like(plane[:, :1])], dim=-1) @ rotation.T
        return (
            camera.project(camera.camera_from_world.inverse().apply(ray[None])[0])[0][0].numpy().reshape(pixels.shape)
        )

    xy, box = keypoints.xy.copy(), keypoints.box.copy()
    xy[view, after] = np.where(np.isnan(xy[view]), np.nan, moved(xy[view]))[after]
    box[view, after] = moved(corners).reshape(box[view].shape)[after]
    return replace(keypoints, xy=xy, box=box)
