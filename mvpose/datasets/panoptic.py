"""CMU Panoptic (Joo et al., TPAMI 2017): 31 HD cameras in a dome, several people.

    <sequence>/calibration_<sequence>.json                                  cm, Y *down*, x_camera = R x + t
    <sequence>/hdPose3d_stage1_coco19/body3DScene_00000000.json             bodies[].id, joints19: x y z score, cm
    <sequence>/hdImgs/00_03/00_03_00000000.jpg, or hdVideos/hd_00_03.mp4    29.97 Hz

A joint counts where its score is above 0.1 (-1 where it was not found).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from mvpose.archive.calibration.file_cameras import calibrated
from mvpose.archive.calibration.panoptic_json import read_panoptic
from mvpose.archive.locations import exists, is_folder, join
from mvpose.datasets.files import DatasetError, array, file_names, folders, read_text, told_with
from mvpose.datasets.sample import NEITHER, TRAIN, VALIDATION, Labels, Picture, Sample, Scene, scene_samples
from mvpose.datasets.up_axis import to_world
from mvpose.geometry.camera import CameraRig
from mvpose.skeleton import PANOPTIC19, Skeleton

LEAST_SCORE = 0.1
TRAIN_SEQUENCES = (
    "160422_ultimatum1", "160224_haggling1", "160226_haggling1", "161202_haggling1", "160906_ian1", "160906_ian2",
    "160906_ian3", "160906_band1", "160906_band2", "160906_band3",
)  # fmt: skip
VALIDATION_SEQUENCES = ("160906_pizza1", "160422_haggling1", "160906_ian5", "160906_band4")
SINGLE_TRAIN_SEQUENCES = (
    "171026_pose1", "171026_pose2", "171026_pose3", "171204_pose1", "171204_pose2", "171204_pose3", "171204_pose4",
)  # fmt: skip
SINGLE_VALIDATION_SEQUENCES = ("171204_pose5", "171204_pose6")
"""VoxelPose's split of several people, and learnable triangulation's of one."""
CAMERA_SUBSETS = {
    "CMU0": (3, 6, 12, 13, 23),
    "CMU1": (1, 2, 3, 4, 6, 7, 10),
    "CMU2": (12, 16, 18, 19, 22, 23, 30),
    "CMU3": (10, 12, 16, 18),
    "CMU4": (6, 7, 10, 12, 16, 18, 19, 22, 23, 30),
    "all": tuple(range(31)),
}
"""HD cameras; CMU0 is VoxelPose's, the others MVGFormer's."""


@dataclass(frozen=True, kw_only=True)
class Panoptic:
    """CMU Panoptic: HD cameras, coco19 joints, several people."""

    folder: str
    """The folder that holds the sequences."""
    cameras: str = "CMU0"
    """CMU0 to CMU4, `all`, or numbers of HD cameras: 3,6,12."""
    interval: int = 3
    """Take every n-th annotated frame (VoxelPose trains on every 3rd and tests on every 12th)."""

    @property
    def name(self) -> str:
        """The dataset, in one word."""
        return "panoptic"

    @property
    def skeleton(self) -> Skeleton:
        """The 19 joints of the files; most work uses the first 15."""
        return PANOPTIC19

    def shards(self) -> list[str]:
        """Sequences with a calibration."""
        names = [n for n in folders(self.folder) if exists(join(self.folder, n, f"calibration_{n}.json"))]
        if not names:
            raise DatasetError(f"{self.folder} has no <sequence>/calibration_<sequence>.json.")
        return names

    def read(self, shard: str) -> Iterator[Sample]:
        """Samples of one sequence; DatasetError or CalibrationError, with path and reason, for a bad file."""
        place = join(self.folder, shard)
        rig = _rig(join(place, f"calibration_{shard}.json"), camera_names(self.cameras))
        scene = Scene(
            capture_id=shard,
            subject=shard,
            action=re.sub(r"^\d+_|\d+$", "", shard),
            split=split_of(shard),
            rig=rig,
            skeleton=PANOPTIC19,
            fps=30000 / 1001,
        )
        as_pictures = is_folder(join(place, "hdImgs"))

        def pictures(frame: int) -> dict[str, Picture]:
            if as_pictures:
                return {c: Picture(join(place, "hdImgs", c, f"{c}_{frame:08d}.jpg")) for c in rig.names}
            return {c: Picture(join(place, "hdVideos", f"hd_{c}.mp4"), frame) for c in rig.names}

        for position, (frame, uri) in enumerate(_annotations(place)):
            if position % self.interval == 0:
                labels = _bodies(uri, frame, position)
                yield from scene_samples(scene, labels, pictures)


def split_of(sequence: str) -> str:
    """Train or validation as the first users of a sequence had it."""
    if sequence in TRAIN_SEQUENCES + SINGLE_TRAIN_SEQUENCES:
        return TRAIN
    return VALIDATION if sequence in VALIDATION_SEQUENCES + SINGLE_VALIDATION_SEQUENCES else NEITHER


def camera_names(subset: str) -> tuple[str, ...]:
    """`00_03` for each camera of a named subset or a list of numbers; DatasetError for what is neither."""
    if subset in CAMERA_SUBSETS:
        numbers = CAMERA_SUBSETS[subset]
    elif re.fullmatch(r"\d+(,\d+)*", subset):
        numbers = tuple(int(n) for n in subset.split(","))
    else:
        raise DatasetError(f"cameras {subset!r}: name one of {', '.join(CAMERA_SUBSETS)}, or numbers such as 3,6,12.")
    return tuple(f"00_{n:02d}" for n in numbers)


def _rig(uri: str, names: tuple[str, ...]) -> CameraRig:
    text = read_text(uri)
    with told_with(uri):
        read = read_panoptic(text)
        known = {camera.name for camera in read.cameras}
        missing = [name for name in names if name not in known]
        if missing:
            raise DatasetError(f"it has no HD camera {', '.join(missing)}.")
        # The file has 480 VGA cameras besides; only those asked for are checked and kept.
        hd = tuple(camera for camera in read.cameras if camera.name in names)
        return calibrated(replace(read, cameras=hd), None, None).rig.select(names)


def _annotations(place: str) -> list[tuple[int, str]]:
    """Frame numbers and files, in order."""
    folder = join(place, "hdPose3d_stage1_coco19")
    matches = [re.fullmatch(r"body3DScene_(\d+)\.json", name) for name in file_names(folder)]
    found = [(int(m[1]), join(folder, m[0])) for m in matches if m]
    if not found:
        raise DatasetError(f"{folder} has no body3DScene_*.json.")
    return sorted(found)


def _bodies(uri: str, frame: int, position: int) -> Labels:
    text = read_text(uri)
    with told_with(uri):
        bodies = json.loads(text)["bodies"]
        joints = [array(body["joints19"], (19, 4), f"joints19 of body {body['id']}") for body in bodies]
        found = np.array(joints).reshape(-1, 19, 4)
        xyz = to_world(found[..., :3], "cm", "-y")
        return Labels(
            frame=np.full(len(bodies), frame),
            position=np.full(len(bodies), position),
            person=np.array([int(body["id"]) for body in bodies], np.int64),
            xyz=np.where(found[..., 3:] > LEAST_SCORE, xyz, np.nan),
        )
