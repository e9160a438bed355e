"""Archives of any length that are cheap to make, and a detector without cost."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import UInt8

from mvpose import scenes
from mvpose.config import digest
from mvpose.exchange.calibration_export import pose2sim_toml
from mvpose.footage.video.video_writer import repeat_video, write_video
from mvpose.geometry.camera import CameraRig
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.models.detection.people import People

STAND_IN = "mvpose.benchmarks.scale_footage:StandIn"
FPS = 30.0
CAPTURES_A_FILE = 10_000
"""Maximum hard links to one video: an ext4 file has at most 65,000 names."""


class StandIn:
    """Detects the same person, standing still, in every image, as seen by the camera of the same index in `ring4`."""

    def __init__(self, config: DetectorConfig) -> None:
        scene = scenes.ring4(num_frames=1)
        self._found, self._size = scene.keypoints(noise_px=0.1), scene.rig.size.numpy()
        self.skeleton, self.chunk_frames = self._found.skeleton, config.chunk_frames
        self.digest = digest("stand-in")

    def __call__(self, views: Sequence[UInt8[np.ndarray, "_ _ _ 3"]]) -> list[list[People]]:
        """The person as seen by the camera, in the pixels of the given images."""
        return [[self._person(v, frames.shape[2::-1][:2])] * len(frames) for v, frames in enumerate(views)]

    def _person(self, view: int, size: Sequence[int]) -> People:
        # Pixel centres are integers, so that scaling is about the corner (-1/2, -1/2).
        scale = np.array(size) / self._size[view]
        found = self._found
        box = ((found.box[view, 0].reshape(-1, 2, 2) + 0.5) * scale - 0.5).reshape(-1, 4)
        xy = (found.xy[view, 0] + 0.5) * scale - 0.5
        return People(box, found.box_score[view, 0], np.nan_to_num(xy), found.confidence[view, 0])


def write_archive(folder: str, captures: int, frames: int, size: tuple[int, int], *, repeats: int = 1) -> str:
    """Write `captures` captures of four cameras; the videos are `repeats` repetitions in few, hard-linked files."""
    source = os.path.join(folder, "footage.mp4")
    os.makedirs(folder)
    write_video(source, _moving_pattern(frames, size), FPS)
    if repeats > 1:
        once, source = source, os.path.join(folder, "repeated.mp4")
        repeat_video(source, once, repeats)
    rig = _rig(size)
    for number in range(captures):
        if number and number % CAPTURES_A_FILE == 0:
            source = shutil.copy(source, os.path.join(folder, f"footage{number}.mp4"))
        capture = os.path.join(folder, "archive", f"{number // 1000:03d}", f"take{number:06d}")
        for part in ("videos", "calibration"):
            os.makedirs(os.path.join(capture, part))
        for camera in rig.names:
            os.link(source, os.path.join(capture, "videos", f"{camera}.mp4"))
        with open(os.path.join(capture, "calibration", "Calib.toml"), "w") as file:
            file.write(pose2sim_toml(rig))
    return os.path.join(folder, "archive")


def _rig(size: tuple[int, int]) -> CameraRig:
    rig = scenes.ring4(num_frames=1).rig
    sizes = torch.tensor([size] * len(rig))
    return replace(rig.resized(sizes / rig.size.to(torch.float64), sizes), names=rig.names)


def _moving_pattern(frames: int, size: tuple[int, int]) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """A smoothed texture that moves one pixel per frame: its decoding cost is about that of footage."""
    width, height = size
    texture = np.random.default_rng(0).integers(0, 255, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    image = texture.repeat(4, axis=0).repeat(4, axis=1)[:height, :width]
    for frame in range(frames):
        yield np.roll(image, frame, axis=1)
