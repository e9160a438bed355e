"""A capture as a Rerun recording (.rrd): cameras, undistorted pictures, 2D detections and 3D people on one timeline.

Needs `rerun-sdk` (the extra `viz`). Rerun's pinhole has no lens distortion: pictures and detections are told without
it, so that 3D people lie on them. Its pixel (0, 0) is the corner of the top-left pixel, ours its centre.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8

from mvpose.archive.capture_frames import frames_of_views
from mvpose.archive.commits import write_whole
from mvpose.errors import ConfigError
from mvpose.geometry.camera import CameraRig
from mvpose.report.palette import DETECTED, FOOTAGE, RGB, sides
from mvpose.report.subject import CaptureReport
from mvpose.skeleton import Skeleton

PERSON, DETECTION = 1, 2
CORNER = 0.5


@dataclass(frozen=True, kw_only=True)
class RecordingConfig:
    """How much of a capture is recorded."""

    start: int = 0
    """First frame."""
    max_frames: int = 300
    """Frames recorded at most; four cameras of full HD at the settings here take 0.3 MB a frame."""
    every: int = 1
    """Only every so many-th frame is recorded."""
    pictures: bool = True
    """With pictures; without them the file is some 30 times smaller."""
    largest_side: int = 960
    """Pictures are made smaller to have no side longer than this."""
    jpeg_quality: int = 75

    def __post_init__(self) -> None:
        for name, least in (("start", 0), ("max_frames", 1), ("every", 1), ("largest_side", 16), ("jpeg_quality", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} of the recording is {getattr(self, name)}; it must be {least} or more")


def write_recording(subject: CaptureReport, uri: str, config: RecordingConfig) -> int:
    """Write a recording, replacing what is at `uri`; returns its number of frames.

    ConfigError where rerun-sdk is not installed or no frame is left, VideoError where the footage cannot be read again,
    ResultsError where the file cannot be written.
    """
    rr = _rerun()
    rows = [row for row, frame in enumerate(subject.frames) if frame >= config.start][:: config.every]
    rows = rows[: config.max_frames]
    if not rows:
        raise ConfigError(f"{subject.capture.capture_id} has no frame from {config.start} on; it ends before")
    rig = ideal_rig(subject.capture.rig, config.largest_side)
    stream = rr.RecordingStream("mvpose", recording_id=subject.capture.capture_id)
    with tempfile.NamedTemporaryFile(suffix=".rrd") as file:
        stream.save(file.name, default_blueprint=_blueprint(rig))
        _log_scene(rr, stream, rig, subject.poses.skeleton)
        pictures = _pictures(subject, rows, rig, config) if config.pictures else ([] for _ in rows)
        for row, images in zip(rows, pictures, strict=True):
            frame = int(subject.frames[row])
            stream.set_time("frame", sequence=frame)
            stream.set_time("time", duration=float(subject.times_s[row]))
            for camera, image in zip(rig.names, images, strict=False):
                stream.log([*_camera(camera), "picture"], rr.EncodedImage(contents=image, media_type="image/jpeg"))
            _log_people(rr, stream, subject, row)
            _log_detections(rr, stream, subject, row, rig)
        stream.flush()
        stream.disconnect()
        write_whole(uri, file.read())
    return len(rows)


def ideal_rig(rig: CameraRig, largest_side: int) -> CameraRig:
    """The rig of the recorded pictures: smaller where they are; its lenses do not apply to them any more."""
    size = rig.size.double()
    smaller = (size * (largest_side / size.amax(dim=-1, keepdim=True)).clamp_max(1.0)).round()
    return rig.resized((smaller / size).to(rig.focal), smaller.to(rig.size))


def undistortion_maps(rig: CameraRig, ideal: CameraRig) -> list[Float[np.ndarray, "h w 2"]]:
    """For every pixel of the recorded pictures where in the video it is looked up; far outside where the lens ends."""
    maps = []
    for v in range(len(rig)):
        width, height = ideal.size[v].tolist()
        row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        pixels = torch.stack([column, row], dim=-1).to(rig.focal)
        plane = ((pixels - ideal.centre[v]) / ideal.focal[v]).reshape(1, -1, 2)
        one = rig.select((rig.names[v],))
        seen = plane.norm(dim=-1) <= one.lens.limit().to(plane)[:, None]
        source = one.lens.distort(torch.where(seen[..., None], plane, 0.0)) * one.focal[:, None] + one.centre[:, None]
        source = torch.where(seen[..., None], source, -1e4)
        maps.append(source.reshape(height, width, 2).float().numpy())
    return maps


def _rerun() -> ModuleType:
    try:
        import rerun
        import rerun.blueprint
    except ImportError as error:
        raise ConfigError(
            "a Rerun recording needs the package rerun-sdk: install mvpose with the extra `viz` (pip install "
            "'mvpose[viz]')"
        ) from error
    return rerun


def _camera(name: str) -> list[object]:
    """Path of a camera; as a list its name may hold anything."""
    return ["world", "cameras", name]


def _log_scene(rr: ModuleType, stream: Any, rig: CameraRig, skeleton: Skeleton) -> None:
    """What does not change: axes, skeletons and cameras."""
    stream.log("world", rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
    people = [(PERSON, "person", None), (DETECTION, "detection", DETECTED)]
    stream.log("/", rr.AnnotationContext([_annotations(rr, skeleton, *kind) for kind in people]), static=True)
    pose = rig.camera_from_world
    for v, name in enumerate(rig.names):
        rotation = pose.rotation[v].T.numpy()
        stream.log(
            _camera(name), rr.Transform3D(translation=rig.centres_world[v].numpy(), mat3x3=rotation), static=True
        )
        pinhole = rr.Pinhole(
            focal_length=rig.focal[v].numpy(),
            principal_point=(rig.centre[v] + CORNER).numpy(),
            resolution=rig.size[v].numpy(),
            camera_xyz=rr.ViewCoordinates.RDF,
            image_plane_distance=0.5,
        )
        stream.log(_camera(name), pinhole, static=True)


def _annotations(rr: ModuleType, skeleton: Skeleton, class_id: int, label: str, colour: RGB | None) -> Any:
    """Joints with their names and colours, and the bones that the viewer draws between those that are there."""
    joints = zip(skeleton.joints, sides(skeleton), strict=True)
    return rr.ClassDescription(
        info=rr.AnnotationInfo(id=class_id, label=label, color=colour or DETECTED),
        keypoint_annotations=[
            rr.AnnotationInfo(id=i, label=joint, color=colour or FOOTAGE[side])
            for i, (joint, side) in enumerate(joints)
        ],
        keypoint_connections=skeleton.bone_indices,
    )


def _blueprint(rig: CameraRig) -> Any:
    """The room at the left, the cameras at the right."""
    import rerun.blueprint as rrb

    views = [rrb.Spatial2DView(origin="/".join(map(str, _escaped(name))), name=name) for name in rig.names]
    room = rrb.Spatial3DView(origin="world", name="room")
    return rrb.Blueprint(rrb.Horizontal(room, rrb.Grid(*views), column_shares=[1, 1]), collapse_panels=True)


def _escaped(name: str) -> list[str]:
    import rerun

    return [rerun.escape_entity_path_part(str(part)) for part in _camera(name)]


def _log_people(rr: ModuleType, stream: Any, subject: CaptureReport, row: int) -> None:
    """One entity a track; a person who is not there in this frame has no points."""
    for p, track in enumerate(subject.poses.track_id.tolist()):
        xyz = subject.poses.xyz[row, p]
        known = np.flatnonzero(np.isfinite(xyz).all(axis=-1))
        joints = rr.Points3D(xyz[known], class_ids=PERSON, keypoint_ids=known, radii=0.012, show_labels=False)
        stream.log(["world", "people", str(track)], joints)


def _log_detections(rr: ModuleType, stream: Any, subject: CaptureReport, row: int, ideal: CameraRig) -> None:
    if subject.keypoints is None:
        return
    xy = torch.from_numpy(subject.keypoints.xy[:, row]).to(ideal.focal)
    found = torch.from_numpy(subject.keypoints.confidence[:, row] > 0) & xy.isfinite().all(dim=-1)
    rig = subject.capture.rig
    undistorted, there = rig.undistorted(torch.where(found[..., None], xy, rig.centre[:, None, None]))
    scale = (ideal.size / rig.size.to(ideal.focal))[:, None, None]
    pixels = (undistorted + CORNER) * scale
    for v, name in enumerate(ideal.names):
        for p in range(pixels.shape[1]):
            known = (found & there)[v, p].nonzero()[:, 0]
            points = rr.Points2D(
                pixels[v, p, known].numpy(),
                class_ids=DETECTION,
                keypoint_ids=known.numpy(),
                radii=2.0,
                show_labels=False,
            )
            stream.log([*_camera(name), "detections", str(p)], points)


def _pictures(
    subject: CaptureReport, rows: list[int], ideal: CameraRig, config: RecordingConfig
) -> Iterator[list[bytes]]:
    """JPEG of every camera for each of the rows, without lens distortion."""
    maps = undistortion_maps(subject.capture.rig, ideal)
    wanted = set(subject.frames[rows].tolist())
    start, stop = int(subject.frames[rows[0]]), int(subject.frames[rows[-1]]) + 1
    for frame, images in enumerate(frames_of_views(subject.capture, start, stop), start):
        if frame in wanted:
            yield [_jpeg(image, where, config.jpeg_quality) for image, where in zip(images, maps, strict=True)]


def _jpeg(image: UInt8[np.ndarray, "H W 3"], where: Float[np.ndarray, "h w 2"], quality: int) -> bytes:
    straight = cv2.remap(image, where, None, cv2.INTER_LINEAR)  # type: ignore[call-overload]
    done, data = cv2.imencode(".jpg", straight[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return data.tobytes()
