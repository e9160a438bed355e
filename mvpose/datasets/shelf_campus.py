"""Shelf and Campus (Belagiannis et al., CVPR 2014): 5 and 3 cameras, up to 4 and 3 people, for testing alone.

    Shelf/actorsGT.mat                  actor3D: a cell a person, in it a cell a frame: 14 x 3 in *metres*, or nothing
    Shelf/calibration_shelf.json        {"0": R, T (centre, *mm*), fx, fy, cx, cy, k, p}, or Calibration/P0.txt (3x4)
    Shelf/Camera0/img_000300.png        1032 x 776
    CampusSeq1/calibration_campus.json  the same
    CampusSeq1/Camera0/campus4-c0-00350.png     360 x 288

Frame i of the pictures is entry i of the cells, counted from 0. Z is up.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.linalg import rq

from mvpose.archive.calibration.file_cameras import FileCamera, FileCameras, Unit, calibrated
from mvpose.archive.locations import exists, join
from mvpose.datasets.files import DatasetError, array, read_matlab, read_text, told_with
from mvpose.datasets.sample import NEITHER, TEST, Labels, Picture, Sample, Scene, scene_samples
from mvpose.geometry.camera import CameraRig
from mvpose.skeleton import Skeleton

SHELF14 = Skeleton(
    "shelf14",
    (
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist", "right_elbow",
        "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck", "head_top",
    ),
    (
        ("right_hip", "right_knee"), ("right_knee", "right_ankle"), ("left_hip", "left_knee"),
        ("left_knee", "left_ankle"), ("right_shoulder", "right_elbow"), ("right_elbow", "right_wrist"),
        ("left_shoulder", "left_elbow"), ("left_elbow", "left_wrist"), ("neck", "right_shoulder"),
        ("neck", "left_shoulder"), ("neck", "right_hip"), ("neck", "left_hip"), ("neck", "head_top"),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class _Facts:
    cameras: int
    size: tuple[int, int]
    picture: str
    test_frames: tuple[range, ...]


_FACTS = {
    "shelf": _Facts(5, (1032, 776), "img_{frame:06d}.png", (range(300, 601),)),
    "campus": _Facts(3, (360, 288), "campus4-c{camera}-{frame:05d}.png", (range(350, 471), range(650, 751))),
}


@dataclass(frozen=True, kw_only=True)
class ShelfCampus:
    """Shelf or Campus."""

    folder: str
    """The folder that holds `actorsGT.mat`."""
    scene: Literal["shelf", "campus"] = "shelf"

    @property
    def name(self) -> str:
        """The dataset, in one word."""
        return self.scene

    @property
    def skeleton(self) -> Skeleton:
        """The 14 joints of the files; `neck` is the bottom of the head."""
        return SHELF14

    def shards(self) -> list[str]:
        """The one capture."""
        return [self.scene]

    def read(self, shard: str) -> Iterator[Sample]:
        """All annotated frames, those outside the customary test ranges in neither split."""
        facts = _FACTS[self.scene]
        rig = _rig(self.folder, self.scene, facts)
        frames, people, xyz = _actors(join(self.folder, "actorsGT.mat"))
        position = np.unique(frames, return_inverse=True)[1]
        tested = np.isin(frames, np.concatenate([np.array(r) for r in facts.test_frames]))

        def pictures(frame: int) -> dict[str, Picture]:
            return {
                c: Picture(join(self.folder, f"Camera{c}", facts.picture.format(camera=c, frame=frame)))
                for c in rig.names
            }

        # One run of frames after the other, so that samples come in the order of their frames.
        edges = [0, *(np.flatnonzero(np.diff(tested)) + 1), len(frames)]
        for start, stop in itertools.pairwise(edges):
            scene = Scene(
                capture_id=shard,
                subject="",
                action=self.scene,
                split=TEST if start < stop and tested[start] else NEITHER,
                rig=rig,
                skeleton=SHELF14,
                fps=25.0,
            )
            part = slice(start, stop)
            labels = Labels(frame=frames[part], position=position[part], person=people[part], xyz=xyz[part])
            yield from scene_samples(scene, labels, pictures)


def _actors(uri: str) -> tuple[np.ndarray, np.ndarray, Float[np.ndarray, "N 14 3"]]:
    """Frame, person and joints in metres of every pose, by frame, then person."""
    content = read_matlab(uri, ("actor3D",))
    with told_with(uri):
        people = [_unpacked(person) for person in _unpacked(content["actor3D"])]
        if len({len(frames) for frames in people}) != 1:
            raise DatasetError("its actor3D is not as many cells of frames as people.")
        found = [
            (frame, person, pose)
            for frame, poses in enumerate(zip(*people, strict=True))
            for person, entry in enumerate(poses)
            if (pose := _pose(entry)) is not None
        ]
        if not found:
            raise DatasetError("its actor3D has no pose of 14 x 3.")
        frames, persons, xyz = zip(*found, strict=True)
        return np.array(frames), np.array(persons), np.array(xyz)


def _unpacked(cell: np.ndarray) -> list:
    """The entries of a MATLAB cell; cells of one cell are opened, as the files nest them."""
    while cell.size == 1 and isinstance(inner := cell.ravel()[0], np.ndarray) and inner.dtype.kind == "O":
        cell = inner
    return list(cell.ravel())


def _pose(entry: np.ndarray) -> Float[np.ndarray, "14 3"] | None:
    while isinstance(entry, np.ndarray) and entry.dtype.kind == "O" and entry.size == 1:
        entry = entry.ravel()[0]
    if np.shape(entry) != (14, 3):
        return None
    pose = np.asarray(entry, np.float64)
    return pose if np.isfinite(pose).all() else None


def _rig(folder: str, scene: str, facts: _Facts) -> CameraRig:
    uri = join(folder, f"calibration_{scene}.json")
    if exists(uri):
        text = read_text(uri)
        with told_with(uri):
            content = json.loads(text)
            cameras = [_json_camera(str(i), content[str(i)], facts.size) for i in range(facts.cameras)]
            return _calibrated(cameras, "mm")
    matrices = [join(folder, "Calibration", f"P{i}.txt") for i in range(facts.cameras)]
    if not exists(matrices[0]):
        raise DatasetError(f"{folder} has neither calibration_{scene}.json nor Calibration/P0.txt.")
    cameras = []
    for i, uri in enumerate(matrices):
        text = read_text(uri)
        with told_with(uri):
            numbers = text.replace(",", " ").split()
            cameras.append(_matrix_camera(str(i), array(numbers, (3, 4), "the matrix"), facts.size))
    with told_with(join(folder, "Calibration")):
        return _calibrated(cameras, "m")


def _calibrated(cameras: list[FileCamera], unit: Unit) -> CameraRig:
    return calibrated(FileCameras(cameras=tuple(cameras), unit=unit), None, None).rig


def _json_camera(name: str, camera: dict, size: tuple[int, int]) -> FileCamera:
    fx, fy, cx, cy = (float(np.squeeze(camera[key])) for key in ("fx", "fy", "cx", "cy"))
    k, p = array(camera["k"], (3,), "k"), array(camera["p"], (2,), "p")
    rotation = array(camera["R"], (3, 3), "R")
    return FileCamera(
        name=name,
        size=size,
        matrix=np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]]),
        distortion=(k[0], k[1], p[0], p[1], k[2]),
        rotation=rotation,
        translation=-rotation @ array(camera["T"], (3,), "T"),
    )


def _matrix_camera(name: str, projection: Float[np.ndarray, "3 4"], size: tuple[int, int]) -> FileCamera:
    """K, R and t of K [R | t], whose scale and sign a file may choose; a skew as small as rounding is dropped."""
    k, r = rq(projection[:, :3])
    signs = np.diag(np.sign(np.diag(k)))
    k, r = k @ signs, signs @ r
    scale = k[2, 2]
    t = np.linalg.solve(k, projection[:, 3])
    if np.linalg.det(r) < 0:
        r, t = -r, -t
    k = k / scale
    if abs(k[0, 1]) < 1e-3 * k[0, 0]:
        k[0, 1] = 0.0
    k[1, 0] = k[2, 0] = k[2, 1] = 0.0
    return FileCamera(name=name, size=size, matrix=k, distortion=(), rotation=r, translation=t)
