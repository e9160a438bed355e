"""TotalCapture (Trumble et al., BMVC 2017): 8 cameras, marker-based ground truth, 5 subjects.

    calibration.cal                     "cameras order", then a camera: row and column range / fx fy cx cy / k1 / R / t
    s1/acting1/TC_S1_acting1_cam1.mp4   cam1..cam8, 1920 x 1080, 60 Hz
    s1/acting1/gt_skel_gbl_pos.txt      a line of 21 joint names, then a frame a line

Calibration is in metres (x_camera = R x + t), the joints are in *inches*. Which axis is up is nowhere stated: it is
told from the cameras, which hang upright. Videos and ground truth differ in length: the frames that all have count.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mvpose.archive.calibration.file_cameras import FileCamera, FileCameras, UpAxis, calibrated
from mvpose.archive.frame_index import frame_index
from mvpose.archive.locations import exists, join
from mvpose.datasets.files import DatasetError, array, folders, read_text, told_with
from mvpose.datasets.sample import NEITHER, TEST, TRAIN, Labels, Picture, Sample, Scene, scene_samples
from mvpose.datasets.up_axis import to_world, up_of
from mvpose.geometry.camera import CameraRig
from mvpose.skeleton import Skeleton

CAMERAS = tuple(f"cam{i}" for i in range(1, 9))
TOTAL_CAPTURE16 = Skeleton(
    "total_capture16",
    (
        "hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "spine", "neck", "head",
        "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
    ),
    (
        ("hip", "right_hip"), ("right_hip", "right_knee"), ("right_knee", "right_ankle"), ("hip", "left_hip"),
        ("left_hip", "left_knee"), ("left_knee", "left_ankle"), ("hip", "spine"), ("spine", "neck"), ("neck", "head"),
        ("neck", "left_shoulder"), ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"),
        ("neck", "right_shoulder"), ("right_shoulder", "right_elbow"), ("right_elbow", "right_wrist"),
    ),
)  # fmt: skip
FILE_NAMES = (
    "Hips", "RightUpLeg", "RightLeg", "RightFoot", "LeftUpLeg", "LeftLeg", "LeftFoot", "Spine", "Neck", "Head",
    "LeftArm", "LeftForeArm", "LeftHand", "RightArm", "RightForeArm", "RightHand",
)  # fmt: skip
"""What the file calls the joints of TOTAL_CAPTURE16, in its order."""
TRAIN_SUBJECTS = ("s1", "s2", "s3")
TRAIN_TAKES = ("rom1", "rom2", "rom3", "walking1", "walking3", "acting1", "acting2", "freestyle1", "freestyle2")
TEST_TAKES = ("walking2", "acting3", "freestyle3")


@dataclass(frozen=True, kw_only=True)
class TotalCapture:
    """TotalCapture: 8 cameras, 5 subjects; rom, walking, acting, running and freestyle takes."""

    folder: str
    """The folder that holds `calibration.cal` and `s1` to `s5`."""
    stride: int = 1
    """Take every n-th frame."""

    @property
    def name(self) -> str:
        """The dataset, in one word."""
        return "total_capture"

    @property
    def skeleton(self) -> Skeleton:
        """The 16 joints that fusion work uses, of 21."""
        return TOTAL_CAPTURE16

    def shards(self) -> list[str]:
        """Takes with ground truth: `s1/acting1`."""
        subjects = [name for name in folders(self.folder) if re.fullmatch(r"s\d+", name)]
        if not subjects:
            raise DatasetError(f"{self.folder} has no folders s1 to s5.")
        takes = [(s, take) for s in subjects for take in folders(join(self.folder, s))]
        return [f"{s}/{take}" for s, take in takes if exists(join(self.folder, s, take, "gt_skel_gbl_pos.txt"))]

    def read(self, shard: str) -> Iterator[Sample]:
        """Samples of one take; DatasetError or CalibrationError, with path and reason, for a bad file."""
        subject, _, take = shard.partition("/")
        rig, up = _calibration(join(self.folder, "calibration.cal"))
        place = join(self.folder, subject, take)
        videos = {c: join(place, f"TC_{subject.upper()}_{take}_{c}.mp4") for c in rig.names}
        videos = {c: uri for c, uri in videos.items() if exists(uri)}
        if not videos:
            raise DatasetError(f"{place} has no TC_{subject.upper()}_{take}_cam1.mp4 to cam8.")
        joints = _joints_inches(join(place, "gt_skel_gbl_pos.txt"))
        length = min(len(joints), *(frame_index(uri).num_frames for uri in videos.values()))
        frames = np.arange(0, length, self.stride)
        scene = Scene(
            capture_id=shard,
            subject=subject,
            action=take.rstrip("0123456789"),
            split=split_of(subject, take),
            rig=rig.select(tuple(videos)),
            skeleton=TOTAL_CAPTURE16,
            fps=60.0,
        )
        labels = Labels(frame=frames, position=frames, xyz=to_world(joints[frames], "in", up))
        yield from scene_samples(scene, labels, lambda frame: {c: Picture(v, frame) for c, v in videos.items()})


def split_of(subject: str, take: str) -> str:
    """As the toolbox has it: running, and what the subjects of the test did besides, belong to neither."""
    if take in TEST_TAKES:
        return TEST
    return TRAIN if subject in TRAIN_SUBJECTS and take in TRAIN_TAKES else NEITHER


@functools.lru_cache(maxsize=1)
def _calibration(uri: str) -> tuple[CameraRig, UpAxis]:
    text = read_text(uri)
    with told_with(uri):
        lines = [line.split() for line in text.splitlines() if line.strip()]
        count, order = (int(v) for v in lines[0])
        if order != 1:
            raise DatasetError(f"its distortion has order {order}; TotalCapture's is 1 (one radial coefficient).")
        if len(lines) != 1 + 7 * count:
            raise DatasetError(f"it names {count} cameras, which take {1 + 7 * count} lines, and has {len(lines)}.")
        cameras = tuple(_camera(f"cam{i + 1}", lines[1 + 7 * i : 8 + 7 * i]) for i in range(count))
        up = up_of(cameras)
        return calibrated(FileCameras(cameras=cameras, unit="m"), None, up).rig, up


def _camera(name: str, lines: list[list[str]]) -> FileCamera:
    first_row, last_row, first_column, last_column = (int(v) for v in lines[0])
    fx, fy, cx, cy = (float(v) for v in lines[1])
    return FileCamera(
        name=name,
        size=(last_column - first_column + 1, last_row - first_row + 1),
        matrix=np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]),
        distortion=(float(lines[2][0]), 0.0, 0.0, 0.0),
        rotation=array(lines[3:6], (3, 3), f"the rotation of {name}"),
        translation=array(lines[6], (3,), f"the translation of {name}"),
    )


def _joints_inches(uri: str) -> Float[np.ndarray, "T 16 3"]:
    lines = [line.split() for line in read_text(uri).splitlines() if line.strip()]
    with told_with(uri):
        names = lines[0]
        missing = [name for name in FILE_NAMES if name not in names]
        if missing:
            raise DatasetError(f"its first line does not name {', '.join(missing)}.")
        short = [i for i, line in enumerate(lines[1:], start=2) if len(line) != 3 * len(names)]
        if short:
            raise DatasetError(f"line {short[0]} has {len(lines[short[0] - 1])} numbers, not {3 * len(names)}.")
        joints = np.array(lines[1:], dtype=np.float64).reshape(-1, len(names), 3)
        return joints[:, [names.index(name) for name in FILE_NAMES]]
