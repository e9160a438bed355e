"""The test set of MPI-INF-3DHP: six sequences by one camera each, without a calibration file.

The world is taken as the camera's own axes, turned so that Z is up (the camera's tilt is unknown). The intrinsics are
solved from the file's pairs of points and pixels, and refused where they do not explain the pixels.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import h5py
import numpy as np
import torch
from jaxtyping import Float

from mvpose.archive.calibration.file_cameras import FILE_FROM_WORLD
from mvpose.archive.keypoint_import.hdf5 import dataset
from mvpose.archive.locations import exists, join
from mvpose.datasets.files import DatasetError, folders, read_bytes, told_with
from mvpose.datasets.sample import TEST, Labels, Picture, Sample, Scene, scene_samples
from mvpose.datasets.up_axis import to_world
from mvpose.geometry.camera import CameraRig
from mvpose.geometry.lens import Lens
from mvpose.geometry.rigid import Rigid
from mvpose.skeleton import Skeleton

FOLDER = "mpi_inf_3dhp_test_set"
SIZES = {**dict.fromkeys(("TS1", "TS2", "TS3", "TS4"), (2048, 2048)), **dict.fromkeys(("TS5", "TS6"), (1920, 1080))}
ACTIVITIES = {
    1: "standing_walking", 2: "exercise", 3: "sitting", 4: "reaching_crouching", 5: "on_the_floor", 6: "sports",
    7: "other",
}  # fmt: skip
JOINTS_OF_17 = (14, 11, 12, 13, 8, 9, 10, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4)
"""Of the test files, to the order of MPI_INF_3DHP17."""
FARTHEST_PX = 5.0

MPI_INF_3DHP17 = Skeleton(
    "mpi_inf_3dhp17",
    (
        "hip", "left_hip", "left_knee", "left_ankle", "right_hip", "right_knee", "right_ankle", "spine", "neck", "head",
        "head_top", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
    ),
    (
        ("hip", "left_hip"), ("left_hip", "left_knee"), ("left_knee", "left_ankle"), ("hip", "right_hip"),
        ("right_hip", "right_knee"), ("right_knee", "right_ankle"), ("hip", "spine"), ("spine", "neck"),
        ("neck", "head"), ("head", "head_top"), ("neck", "left_shoulder"), ("left_shoulder", "left_elbow"),
        ("left_elbow", "left_wrist"), ("neck", "right_shoulder"), ("right_shoulder", "right_elbow"),
        ("right_elbow", "right_wrist"),
    ),
)  # fmt: skip


def shards(folder: str) -> list[str]:
    """The test sequences that are there."""
    place = join(folder, FOLDER)
    names = folders(place) if exists(place) else []
    return [f"{FOLDER}/{n}" for n in names if n in SIZES and exists(join(place, n, "annot_data.mat"))]


def read(folder: str, shard: str) -> Iterator[Sample]:
    """Samples of the valid frames of one sequence; each activity is a scene of its own name."""
    name = shard.rpartition("/")[2]
    place = join(folder, shard)
    uri = join(place, "annot_data.mat")
    content = read_bytes(uri)
    with told_with(uri), h5py.File(io.BytesIO(content), "r") as file:
        pixels, points = _joints(file, "annot2", 2), _joints(file, "annot3", 3)
        valid = np.ravel(np.asarray(dataset(file, "valid_frame"))).astype(bool)
        activity = np.ravel(np.asarray(dataset(file, "activity_annotation"))).astype(int)
        if not len(pixels) == len(points) == len(valid) == len(activity):
            raise DatasetError("annot2, annot3, valid_frame and activity_annotation differ in length.")
        frames = np.flatnonzero(valid)
        rig = _rig(points[frames], pixels[frames], SIZES[name])
    xyz = to_world(points, "mm", "-y")
    for position, frame in enumerate(frames):
        scene = Scene(
            capture_id=shard,
            subject=name,
            action=ACTIVITIES.get(int(activity[frame]), "other"),
            split=TEST,
            rig=rig,
            skeleton=MPI_INF_3DHP17,
        )
        labels = Labels(frame=np.array([frame]), position=np.array([position]), xyz=xyz[frame][None])
        picture = Picture(join(place, "imageSequence", f"img_{frame + 1:06d}.jpg"))
        yield from scene_samples(scene, labels, lambda _, picture=picture: {"0": picture})


def _joints(file: h5py.File, name: str, width: int) -> Float[np.ndarray, "T 17 w"]:
    values = np.asarray(dataset(file, name), np.float64)
    if values.shape[1:] != (1, 17, width):
        raise DatasetError(f"its {name} is {values.shape}, not (frames, 1, 17, {width}).")
    return values[:, 0, JOINTS_OF_17]


def _rig(points: Float[np.ndarray, "T 17 3"], pixels: Float[np.ndarray, "T 17 2"], size: tuple[int, int]) -> CameraRig:
    """Focal lengths and centre by least squares over all joints: pixel = focal x / z + centre."""
    focal, centre, residuals = [], [], []
    for axis in (0, 1):
        ratio, pixel = (points[..., axis] / points[..., 2]).ravel(), pixels[..., axis].ravel()
        (f, c), *_ = np.linalg.lstsq(np.stack([ratio, np.ones_like(ratio)], axis=-1), pixel)
        focal.append(f)
        centre.append(c)
        residuals.append(np.median(np.abs(f * ratio + c - pixel)))
    if not max(residuals) < FARTHEST_PX or min(focal) <= 0:
        raise DatasetError(f"annot3 does not explain annot2: a pinhole camera is off by {max(residuals):.0f} px.")
    turn = torch.tensor([FILE_FROM_WORLD["-y"]], dtype=torch.float64)
    return CameraRig(
        names=("0",),
        focal=torch.tensor([focal], dtype=torch.float64),
        centre=torch.tensor([centre], dtype=torch.float64),
        lens=Lens.none(1),
        camera_from_world=Rigid(turn, torch.zeros(1, 3, dtype=torch.float64)),
        size=torch.tensor([size]),
    )
