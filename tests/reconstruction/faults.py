"""What goes wrong with footage and calibrations, done on purpose."""

from dataclasses import replace

import numpy as np
import torch

from mvpose.geometry.camera import CameraRig
from mvpose.geometry.rigid import Rigid
from mvpose.quality.camera_turns import turned
from mvpose.records import Keypoints2D

# Worlds in which up is another axis than +Z: world_from_new_world.
UP = {"-z": [[1, 0, 0], [0, -1, 0], [0, 0, -1]], "-y": [[1, 0, 0], [0, 0, 1], [0, -1, 0]]}


def turned_by(rig: CameraRig, view: int, axis: int, degrees: float) -> CameraRig:
    """One camera turned about an axis of its own: 0 up and down, 1 left and right, 2 about where it looks."""
    vector = torch.zeros(3, dtype=torch.float64)
    vector[axis] = np.radians(degrees)
    return turned(rig, view, Rigid.from_rotation_vector(vector, torch.zeros(3, dtype=torch.float64)).rotation)


def late(keypoints: Keypoints2D, view: int, frames: int) -> Keypoints2D:
    """One camera shows in frame k what it should have shown in frame k - `frames`; early where that is negative."""
    count = keypoints.xy.shape[1] - abs(frames)
    starts = [max(frames, 0)] * len(keypoints.xy)
    starts[view] = max(-frames, 0)
    return seen_at(keypoints, [np.arange(s, s + count) for s in starts])


def seen_at(keypoints: Keypoints2D, frames: list[np.ndarray]) -> Keypoints2D:
    """Each view shows these of its frames."""
    by_view = ("xy", "confidence", "box", "box_score")
    return replace(
        keypoints, **{n: np.stack([getattr(keypoints, n)[v, f] for v, f in enumerate(frames)]) for n in by_view}
    )


def of_views(keypoints: Keypoints2D, views: list[int]) -> Keypoints2D:
    """Some of the views."""
    return replace(keypoints, **{n: getattr(keypoints, n)[views] for n in ("xy", "confidence", "box", "box_score")})


def with_up(rig: CameraRig, up: str) -> CameraRig:
    """The same cameras in a world whose `up` axis points up."""
    rotation = torch.tensor(UP[up], dtype=torch.float64)
    return rig.moved(Rigid(rotation, torch.zeros(3, dtype=torch.float64)))


def scaled(rig: CameraRig, factor: float) -> CameraRig:
    """The same cameras with another unit of length."""
    pose = rig.camera_from_world
    return replace(rig, camera_from_world=Rigid(pose.rotation, factor * pose.translation))


def resized(keypoints: Keypoints2D, rig: CameraRig, scale: float | list[float]) -> tuple[Keypoints2D, CameraRig]:
    """What the same detector and cameras give on frames scaled by `scale`, or by one scale for each view."""
    scales = torch.tensor(np.broadcast_to(scale, len(rig)).copy(), dtype=torch.float64)
    other = rig.resized(scales[:, None].expand(-1, 2), (rig.size * scales[:, None]).round().long())
    factor = scales.numpy()[:, None, None, None]
    xy = ((keypoints.xy + 0.5) * factor[..., None] - 0.5).astype(np.float32)
    return replace(keypoints, xy=xy, box=((keypoints.box + 0.5) * factor - 0.5).astype(np.float32)), other
