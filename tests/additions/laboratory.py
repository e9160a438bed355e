"""What a laboratory adds to mvpose without touching it: one example per door of `mvpose/README.md`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch import nn

from mvpose.datasets.sample import Labels, Sample, SampleImage, SampleScene, scene_samples
from mvpose.errors import CalibrationError
from mvpose.exchange.export.recording import File, Recording
from mvpose.footage.calibration.file_cameras import FileCamera, FileCameras
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.models.detection.people import People
from mvpose.models.fusion.canonical_fusion import Baseline, FusionConfig
from mvpose.models.network_settings import OwnMethod
from mvpose.scenes import ring4
from mvpose.skeleton import HALPE26, Skeleton


def read_lab_json(data: bytes) -> FileCameras:
    """A calibration format: {"cam0": {"size": ..., "K": ..., "k": ..., "R": ..., "t_mm": ...}, ...}."""
    if not data.lstrip().startswith(b"{"):
        raise CalibrationError("it is not the laboratory's JSON.")
    cameras = [
        FileCamera(
            name=name, size=tuple(c["size"]), matrix=np.array(c["K"]), distortion=tuple(c["k"]),
            rotation=np.array(c["R"]), translation=np.array(c["t_mm"]),
        )
        for name, c in json.loads(data).items()
    ]  # fmt: skip
    return FileCameras(cameras=tuple(cameras), unit="mm", up="z")


class BrightestPixel:
    """A detector: one person, all of whose joints are at the brightest pixel."""

    skeleton, digest, chunk_frames = HALPE26, "brightest-1", 8

    def __init__(self, config: DetectorConfig) -> None:
        self.config = config

    def __call__(self, views) -> list[list[People]]:
        return [[self.found(image) for image in frames] for frames in views]

    def found(self, image: np.ndarray) -> People:
        at = np.array(np.unravel_index(image.sum(axis=-1).argmax(), image.shape[:2])[::-1], np.float32)
        joints = np.tile(at, (1, len(self.skeleton.joints), 1))
        return People(
            np.concatenate([at - 5, at + 5])[None], np.ones(1, np.float32), joints, np.ones_like(joints[..., 0])
        )


def root_path_files(recording: Recording) -> Iterator[File]:
    """An export format: the path of each person's hip on the floor, one JSON file per person."""
    hip = recording.poses.skeleton.joints.index("hip")
    for name, person in recording.people():
        path = np.nan_to_num(recording.poses.xyz[:, person, hip, :2]).round(4).tolist()
        yield f"{name}.json", json.dumps({"fps": recording.fps, "metres": path}).encode()


def worst_joint_m(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """A metric: the error of the worst joint of each row."""
    return np.nanmax(np.linalg.norm(predicted - truth, axis=-1), axis=1)


class NarrowBaseline(nn.Module):
    """A method: here a Baseline with a narrow head; any module with this call will do."""

    def __init__(self, backbone: nn.Module, joints: int, config: OwnMethod) -> None:
        super().__init__()
        self.inner = Baseline(backbone, joints, FusionConfig(head_width=8))

    def forward(self, crops, projections, present=None, keep_maps=False):
        return self.inner(crops, projections, present, keep_maps)


@dataclass(frozen=True)
class LabWalks:
    """A dataset: synthetic walks in one shard."""

    folder: str
    name = "lab"
    skeleton: Skeleton = HALPE26

    def shards(self) -> list[str]:
        return ["walk"]

    def read(self, shard: str) -> Iterator[Sample]:
        scene = ring4(num_frames=4)
        whole = SampleScene(
            capture_id=shard, subject="S1", action="walk", split="train", rig=scene.rig, skeleton=HALPE26, fps=30.0
        )
        labels = Labels(frame=np.arange(4), position=np.arange(4), xyz=scene.joints[:, 0])
        yield from scene_samples(whole, labels, lambda f: {c: SampleImage(f"{c}.mp4", f) for c in scene.rig.names})
