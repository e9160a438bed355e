"""MPI-INF-3DHP (Mehta et al., 3DV 2017): 14 cameras for training, single-camera test sequences.

    S1/Seq1/annot.mat                   annot2 and annot3: one cell per camera, frames x (28 joints); mm, camera axes
    S1/Seq1/camera.calibration          see skeletool_calibration.py
    S1/Seq1/imageSequence/video_0.avi   or, unpacked, imageFrames/video_0/frame_000001.jpg (frame + 1)
    mpi_inf_3dhp_test_set/TS1/annot_data.mat                    HDF5: annot2, annot3 (frames 1 17 3), valid_frame, ...
    mpi_inf_3dhp_test_set/TS1/imageSequence/img_000001.jpg      (frame + 1)

`univ_annot3`, scaled to one body height, has the wrong scale for multiple views and is not read. Of the 28 joints, the
17 common to training and test are used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from mvpose.datasets import mpi_inf_3dhp_test as test_set
from mvpose.datasets.files import DatasetError, errors_naming, folders, read_matlab, read_text
from mvpose.datasets.mpi_inf_3dhp_test import MPI_INF_3DHP17
from mvpose.datasets.sample import TRAIN, Labels, Sample, SampleImage, SampleScene, scene_samples
from mvpose.datasets.skeletool_calibration import read_skeletool
from mvpose.footage.calibration.file_cameras import calibrated
from mvpose.geometry.camera import CameraRig
from mvpose.skeleton import Skeleton
from mvpose.storage.locations import exists, is_folder, join

JOINTS_OF_28 = (4, 18, 19, 20, 23, 24, 25, 3, 5, 6, 7, 9, 10, 11, 14, 15, 16)
CAMERA_SUBSETS = {
    "all": tuple(range(14)),
    "no_ceiling": (0, 1, 2, 4, 5, 6, 7, 8),
    "chest_height": (0, 2, 4, 7, 8),
}
"""All cameras; those of most single-view work; those of self-supervised work on epipolar geometry."""
# Joints of all cameras come from one skeleton: with the right calibration they agree to rounding (0.1 mm).
AGREEMENT_MM = 5.0
AGREEMENT_PX = 5.0


@dataclass(frozen=True, kw_only=True)
class MpiInf3dhp:
    """MPI-INF-3DHP: 8 subjects in 2 sequences by 14 cameras, and the 6 test sequences by one."""

    folder: str
    """Folder that contains `S1` to `S8` and `mpi_inf_3dhp_test_set`."""
    cameras: str = "no_ceiling"
    """all, no_ceiling or chest_height."""
    stride: int = 5
    """Take every n-th frame of the training sequences; all valid frames of the test set are taken."""

    @property
    def name(self) -> str:
        """Short name of the dataset."""
        return "mpi_inf_3dhp"

    @property
    def skeleton(self) -> Skeleton:
        """The 17 joints that training and test have in common."""
        return MPI_INF_3DHP17

    def shards(self) -> list[str]:
        """Sequences: `S1/Seq1`, `mpi_inf_3dhp_test_set/TS1`."""
        subjects = [s for s in folders(self.folder) if s[:1] == "S" and s[1:].isdigit()]
        pairs = [(s, q) for s in subjects for q in folders(join(self.folder, s))]
        found = [f"{s}/{q}" for s, q in pairs if exists(join(self.folder, s, q, "annot.mat"))]
        found += test_set.shards(self.folder)
        if not found:
            raise DatasetError(f"{self.folder} has neither S1/Seq1/annot.mat nor {test_set.FOLDER}/TS1/annot_data.mat.")
        return found

    def read(self, shard: str) -> Iterator[Sample]:
        """Samples of one sequence; DatasetError or CalibrationError, with path and reason, for a bad file."""
        if shard.startswith(test_set.FOLDER):
            return test_set.read(self.folder, shard)
        return self._read_training(shard)

    def _read_training(self, shard: str) -> Iterator[Sample]:
        subject, _, sequence = shard.partition("/")
        place = join(self.folder, shard)
        if self.cameras not in CAMERA_SUBSETS:
            raise DatasetError(f"cameras {self.cameras!r}: name one of {', '.join(CAMERA_SUBSETS)}.")
        names = tuple(str(n) for n in CAMERA_SUBSETS[self.cameras])
        rig = _rig(join(place, "camera.calibration"), names)
        uri = join(place, "annot.mat")
        pixels, points = _annotations(uri, names)
        with errors_naming(uri):
            xyz = _world(rig, points)
            _check_pixels(rig, xyz, pixels)
        frames = np.arange(0, len(xyz), self.stride)
        scene = SampleScene(
            capture_id=shard, subject=subject, action=sequence, split=TRAIN, rig=rig, skeleton=MPI_INF_3DHP17
        )
        unpacked = is_folder(join(place, "imageFrames"))

        def images(frame: int) -> dict[str, SampleImage]:
            if unpacked:
                return {
                    c: SampleImage(join(place, "imageFrames", f"video_{c}", f"frame_{frame + 1:06d}.jpg"))
                    for c in names
                }
            return {c: SampleImage(join(place, "imageSequence", f"video_{c}.avi"), frame) for c in names}

        labels = Labels(frame=frames, position=frames, xyz=xyz[frames])
        yield from scene_samples(scene, labels, images)


def _rig(uri: str, names: tuple[str, ...]) -> CameraRig:
    text = read_text(uri)
    with errors_naming(uri):
        rig = calibrated(read_skeletool(text), None, None).rig
        missing = [name for name in names if name not in rig.names]
        if missing:
            raise DatasetError(f"it has no camera {', '.join(missing)}.")
        return rig.select(names)


def _annotations(
    uri: str, names: tuple[str, ...]
) -> tuple[Float[np.ndarray, "V T 17 2"], Float[np.ndarray, "V T 17 3"]]:
    """Pixels, and points in mm in each camera's axes."""
    found = read_matlab(uri, ("annot2", "annot3"))
    with errors_naming(uri):
        return _by_camera(found["annot2"], names, 2), _by_camera(found["annot3"], names, 3)


def _by_camera(cells: np.ndarray, names: tuple[str, ...], width: int) -> Float[np.ndarray, "V T 17 w"]:
    """The cells of some cameras: (14, 1) of frames x (28 width)."""
    if cells.dtype != object or cells.size != 14:
        raise DatasetError(f"its annotations are {cells.dtype} {cells.shape}, not 14 cells, one per camera.")
    chosen = [np.asarray(cells.ravel()[int(name)], np.float64).reshape(-1, 28, width) for name in names]
    frames = min(len(c) for c in chosen)
    return np.stack([c[:frames, JOINTS_OF_28] for c in chosen])


def _world(rig: CameraRig, points_mm: Float[np.ndarray, "V T 17 3"]) -> Float[np.ndarray, "T 17 3"]:
    """World points in metres: the median over cameras, which must agree."""
    flat = torch.from_numpy(points_mm * 0.001).flatten(1, 2)
    world = rig.camera_from_world.inverse().apply(flat).numpy().reshape(points_mm.shape)
    xyz = np.median(world, axis=0)
    apart = 1000.0 * np.median(np.linalg.norm(world - xyz, axis=-1), axis=(1, 2))
    if apart.max() > AGREEMENT_MM:
        raise DatasetError(
            f"camera {rig.names[int(apart.argmax())]} has its joints {apart.max():.0f} mm from those of the others: "
            "annot3 and camera.calibration are from different sequences, or annot3 was replaced by univ_annot3."
        )
    return xyz


def _check_pixels(rig: CameraRig, xyz: Float[np.ndarray, "T 17 3"], pixels: Float[np.ndarray, "V T 17 2"]) -> None:
    projected, seen = rig.project(torch.from_numpy(xyz))
    off = np.where(seen.numpy(), np.linalg.norm(projected.numpy() - pixels, axis=-1), 0.0)
    worst = np.median(off, axis=(1, 2))
    if worst.max() > AGREEMENT_PX:
        raise DatasetError(
            f"camera {rig.names[int(worst.argmax())]} projects its joints {worst.max():.0f} px from annot2: "
            "camera.calibration is not of this sequence."
        )
