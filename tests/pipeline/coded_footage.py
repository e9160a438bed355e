"""An archive whose frames say which camera and frame they are, and a detector that reads this and knows the scene.

What decoding, planning, storing and reconstructing make of it can then be told from the truth in metres.
"""

import os
import time
from dataclasses import replace

import av
import cv2
import numpy as np
import torch

from mvpose import scenes
from mvpose.config import digest
from mvpose.errors import VideoError
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.models.detection.people import People
from mvpose.scenes import Scene
from tests.footage.numbered_video import HEIGHT, WIDTH, number_of, numbered_image

FRAMES_A_CAMERA = 512
DETECTOR = "tests.pipeline.coded_footage:CodedDetector"


def scene(num_frames: int) -> Scene:
    """`ring4` seen in small images."""
    plain = scenes.ring4(num_frames=num_frames)
    size = torch.tensor([[WIDTH, HEIGHT]] * len(plain.rig))
    return replace(plain, rig=plain.rig.resized(size / plain.rig.size.to(torch.float64), size))


class CodedDetector:
    """Reads camera and frame off the image and answers with what the scene shows there."""

    def __init__(self, config: DetectorConfig) -> None:
        self.keypoints = scene(int(os.environ.get("CODED_FRAMES", "40"))).keypoints(noise_px=0.1)
        self.skeleton = self.keypoints.skeleton
        self.chunk_frames = config.chunk_frames
        self.digest = self.digest_of(config)
        self.seconds_a_frame = float(os.environ.get("CODED_SECONDS", "0"))
        self.fails_at = int(os.environ.get("CODED_FAILS", "-1"))
        """A frame at which a fault is played that is over when the job runs again."""
        self.hangs_at = int(os.environ.get("CODED_HANGS", "-1"))
        self.raises_at = os.environ.get("CODED_RAISES", "")
        """A frame at which it has a defect, or "all"."""

    @staticmethod
    def digest_of(config: DetectorConfig) -> str:
        return digest("coded", config.max_boxes)

    def __call__(self, views) -> list[list[People]]:
        return [[self.people(image) for image in frames] for frames in views]

    def people(self, image: np.ndarray) -> People:
        time.sleep(self.seconds_a_frame)
        camera, frame = divmod(number_of(image), FRAMES_A_CAMERA)
        if frame == self.fails_at:
            raise VideoError("the storage was away")
        if frame == self.hangs_at:
            time.sleep(86_400)
        if self.raises_at in (str(frame), "all"):
            raise RuntimeError(os.environ.get("CODED_SAYS", f"CUDA error: device-side assert at frame {frame}"))
        found = self.keypoints
        there = found.box_score[camera, frame] > 0
        xy, confidence = found.xy[camera, frame, there], found.confidence[camera, frame, there]
        return People(
            box=found.box[camera, frame, there],
            score=found.box_score[camera, frame, there],
            xy=np.nan_to_num(xy),
            confidence=confidence,
        )


def write_capture(folder: str, num_frames: int, scene_frames: int = 40) -> str:
    """A Pose2Sim folder: calibration/Calib.toml and videos/cam0.mp4 ... cam3.mp4."""
    shown = scene(scene_frames)
    os.makedirs(os.path.join(folder, "videos"), exist_ok=True)
    os.makedirs(os.path.join(folder, "calibration"), exist_ok=True)
    for camera in range(len(shown.rig)):
        write_video(os.path.join(folder, "videos", f"cam{camera}.mp4"), camera, num_frames)
    write_calibration(os.path.join(folder, "calibration", "Calib.toml"), shown)
    return folder


def write_damaged_archive(folder: str) -> str:
    """A capture `whole` of 30 frames, and one, `damaged`, the second half of whose video of cam2 is not there."""
    for name in ("damaged", "whole"):
        write_capture(os.path.join(folder, name), 30)
    video = os.path.join(folder, "damaged", "videos", "cam2.mp4")
    os.truncate(video, os.path.getsize(video) // 2)
    return folder


def write_image_capture(folder: str, num_frames: int) -> str:
    """The same capture as folders of images: images/cam0/0000.png ..."""
    os.makedirs(os.path.join(folder, "calibration"))
    write_calibration(os.path.join(folder, "calibration", "Calib.toml"), scene(40))
    for camera in range(4):
        os.makedirs(os.path.join(folder, "images", f"cam{camera}"))
        for frame in range(num_frames):
            image = numbered_image(camera * FRAMES_A_CAMERA + frame)
            cv2.imwrite(os.path.join(folder, "images", f"cam{camera}", f"{frame:04d}.png"), image[..., ::-1])
    return folder


def write_video(path: str, camera: int, num_frames: int, lead: int = 0) -> None:
    """`lead` frames come before the first one that the other cameras have too."""
    with av.open(path, "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=30, options={"g": "12"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for frame in range(-lead, num_frames):
            image = numbered_image(camera * FRAMES_A_CAMERA + max(frame, 0))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))


def write_calibration(path: str, shown: Scene) -> None:
    """Pose2Sim's TOML; the scene's lenses have no k3."""
    from scipy.spatial.transform import Rotation

    rig, tables = shown.rig, []
    for v in range(len(rig)):
        rotation = Rotation.from_matrix(rig.camera_from_world.rotation[v].numpy()).as_rotvec()
        tables.append(
            f"[cam{v}]\nname = 'cam{v}'\nsize = {[float(s) for s in rig.size[v]]}\n"
            f"matrix = {rig.intrinsics[v].tolist()}\ndistortions = {rig.lens.coefficients[v, :4].tolist()}\n"
            f"rotation = {rotation.tolist()}\ntranslation = {rig.camera_from_world.translation[v].tolist()}\n"
            "fisheye = false\n"
        )
    with open(path, "w") as file:
        file.write("\n".join([*tables, "[metadata]\nadjusted = false\nerror = 0.0\n"]))
