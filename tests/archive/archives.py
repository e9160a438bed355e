"""Small archives to find captures in: videos of a few grey frames and the rigs of `rig_files`."""

import os
from typing import Any

import av
import cv2
import numpy as np

from mvpose.archive.catalogue import CatalogueConfig, find_captures
from tests.archive.calibration.rig_files import Camera, ring, toml_text

SIZE = (128, 96)


CAMERAS = ["cam01", "cam02", "cam03"]


def found(archive, **config):
    return find_captures(str(archive), CatalogueConfig(**config))


def only_problem(archive, **config):
    catalogue = found(archive, **config)
    assert not catalogue.captures and len(catalogue.problems) == 1, catalogue
    return catalogue.problems[0]


def small_ring(names: list[str]) -> list[Camera]:
    """`ring` with pictures of 128 x 96."""
    cameras = ring(names)
    for camera in cameras:
        camera.size, camera.distortion = SIZE, camera.distortion
        camera.matrix = np.array([[110.0, 0, 63.0], [0, 111.0, 48.0], [0, 0, 1]])
    return cameras


def write(path: str, content: str | bytes) -> str:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return path


def write_video(path: str, num_frames: int = 4, rate: int = 30, size: tuple[int, int] = SIZE, rotation: int = 0) -> str:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with av.open(path, "w") as container:
        stream: Any = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        for _ in range(num_frames):
            picture = np.random.default_rng(0).integers(90, 200, (size[1], size[0], 3)).astype(np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        container.mux(stream.encode(None))
    return path


def write_pictures(folder: str, num_frames: int = 3) -> str:
    os.makedirs(folder, exist_ok=True)
    for i in range(num_frames):
        cv2.imwrite(
            os.path.join(folder, f"{os.path.basename(folder)}_{i:08d}.png"), np.full((*SIZE[::-1], 3), 99, np.uint8)
        )
    return folder


def pose2sim(folder: str, cameras: list[str] | None = None, videos: list[str] | None = None, **video) -> str:
    """A project with calibration/Calib.toml and videos/<name>.mp4."""
    cameras = cameras or ["cam01", "cam02", "cam03"]
    write(os.path.join(folder, "calibration", "Calib.toml"), toml_text(small_ring(cameras)))
    for name in videos or cameras:
        write_video(os.path.join(folder, "videos", f"{name}.mp4"), **video)
    return folder
