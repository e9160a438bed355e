"""A capture made up for the tests: a skeleton that moves before four cameras, one of them with a distorting lens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from mvpose.capture import Capture
from mvpose.geometry.camera import CameraRig
from mvpose.geometry.lens import Lens, LensModel
from mvpose.geometry.rigid import Rigid
from mvpose.records import BY_FRAME, Keypoints2D, Poses3D, Video
from mvpose.report.subject import CaptureReport
from mvpose.skeleton import Skeleton

STICK = Skeleton(
    "stick",
    ("left_shoulder", "right_shoulder", "left_elbow", "left_wrist", "left_hip", "right_hip", "left_knee", "right_knee"),
    (
        ("left_shoulder", "right_shoulder"),
        ("left_shoulder", "left_elbow"),
        ("left_elbow", "left_wrist"),
        ("left_hip", "left_knee"),
        ("right_hip", "right_knee"),
    ),
)
_STANDING = np.array(
    [
        [0.2, 0.0, 1.4], [-0.2, 0.0, 1.4], [0.35, 0.0, 1.15], [0.5, 0.1, 0.95],
        [0.12, 0.0, 0.95], [-0.12, 0.0, 0.95], [0.14, 0.05, 0.5], [-0.14, 0.05, 0.5],
    ]
)  # fmt: skip


def four_cameras(width: int = 320, height: int = 240) -> CameraRig:
    """On a circle of 4 m, 1.6 m high, looking at the middle of the person."""
    rotations, translations = [], []
    for angle in np.radians([20.0, 110.0, 200.0, 290.0]):
        centre = np.array([4.0 * np.cos(angle), 4.0 * np.sin(angle), 1.6])
        forward = np.array([0.0, 0.0, 1.0]) - centre
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        rotations.append(rotation)
        translations.append(-rotation @ centre)
    return CameraRig(
        names=("north", "east", "south", "west"),
        focal=torch.full((4, 2), 1.0 * width, dtype=torch.float64),
        centre=torch.tensor([[(width - 1) / 2, (height - 1) / 2]] * 4, dtype=torch.float64),
        lens=Lens.of(LensModel.BROWN_CONRADY, [[], [-0.2, 0.03], [], []]),
        camera_from_world=Rigid(torch.tensor(np.stack(rotations)), torch.tensor(np.stack(translations))),
        size=torch.tensor([[width, height]] * 4),
    )


def capture_report(
    num_frames: int = 12,
    people: int = 1,
    noise_px: float = 0.0,
    capture_id: str = "walk",
    uris: tuple[str, ...] = ("a.mp4", "b.mp4", "c.mp4", "d.mp4"),
    rig: CameraRig | None = None,
    first_frame: int = 0,
) -> CaptureReport:
    """People side by side, each moving 2 cm a frame along x; detections are exact up to noise, places shuffled."""
    rng = np.random.default_rng(7)
    rig = rig or four_cameras()
    drift = 0.02 * np.arange(num_frames)[:, None, None, None] * np.array([1.0, 0.0, 0.0])
    apart = np.arange(people)[None, :, None, None] * np.array([0.0, 1.2, 0.0])
    xyz = _STANDING + drift + apart
    pixels = rig.project(torch.from_numpy(xyz))[0].numpy()
    pixels = pixels + noise_px * rng.standard_normal(pixels.shape)
    order = rng.permuted(np.broadcast_to(np.arange(people), pixels.shape[:3]), axis=-1)
    xy = np.take_along_axis(pixels, order[..., None, None], axis=2)
    error = np.linalg.norm(rig.project(torch.from_numpy(xyz))[0].numpy() - pixels, axis=-1).mean(axis=0)
    shape = xyz.shape[:3]
    poses = Poses3D(
        xyz=xyz,
        confidence=np.ones(shape),
        error_px=error,
        sigma_mm=12.0 * np.ones(shape),
        num_views=np.full(shape, len(rig)),
        views_used=np.ones((*shape, len(rig)), dtype=bool),
        track_id=np.arange(people),
        skeleton=STICK,
    )
    box = np.concatenate([xy.min(axis=3), xy.max(axis=3)], axis=-1)
    keypoints = Keypoints2D(xy, np.ones(xy.shape[:-1]), box, np.ones(box.shape[:-1]), STICK)
    videos = tuple(
        Video(name, uri, 30.0, num_frames + first_frame, (int(size[0]), int(size[1])), first_frame)
        for name, uri, size in zip(rig.names, uris, rig.size, strict=True)
    )
    return CaptureReport(Capture(capture_id, rig, videos), poses, np.arange(num_frames), keypoints)


def without_joint(subject: CaptureReport, joint: str, rows: slice = slice(None)) -> CaptureReport:
    """The same capture where one joint could not be reconstructed."""
    j = subject.poses.skeleton.index(joint)
    poses = subject.poses
    changed = {name: getattr(poses, name).copy() for name in BY_FRAME}
    for name, missing in (
        ("xyz", np.nan),
        ("confidence", 0),
        ("error_px", np.nan),
        ("sigma_mm", np.nan),
        ("num_views", 0),
        ("views_used", 0),
    ):
        changed[name][rows, :, j] = missing
    return replace(subject, poses=replace(poses, **changed))


def empty(subject: CaptureReport) -> CaptureReport:
    """The same capture with nobody reconstructed in any frame."""
    for joint in subject.poses.skeleton.joints:
        subject = without_joint(subject, joint)
    return subject
