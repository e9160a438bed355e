"""Human3.6M as `processed/` images and one labels file: the layout made common by learnable triangulation.

    processed/S1/Phoning-1/imageSequence/54138969/img_000001.jpg        (frame + 1; every fifth frame)
    extra/human36m-multiview-labels-GTbboxes.npy                        a pickled dict:
        subject_names, camera_names, action_names: lists of strings
        cameras[subject, camera]: R, t (mm; x_camera = R x + t), K, dist (k1 k2 p1 p2 k3)
        table: subject_idx, action_idx, frame_idx, keypoints (17 3) in mm, bbox_by_camera_tlbr (4 4)

A box of height 0 marks a missing view. The images are distorted by Human3.6M's tangential form, unless they were
undistorted to `imageSequence-undistorted`, with the same K.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from mvpose.datasets import human36m_facts as facts
from mvpose.datasets.files import DatasetError, array, errors_naming, file_names, read_npy_dict
from mvpose.datasets.sample import Labels, Sample, SampleImage, scene_samples
from mvpose.geometry.camera import CameraRig
from mvpose.skeleton import HUMAN36M17, Skeleton
from mvpose.storage.locations import exists, join

LABEL_JOINTS = Skeleton(
    "human36m_labels17",
    (
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "hip", "spine", "thorax",
        "head", "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "nose",
    ),
    (),
)  # fmt: skip
"""Order of the file's `keypoints`: that of MPII, and the nose."""


def shards(folder: str) -> list[str]:
    """The captures in the labels file."""
    uri = labels_file(folder)
    labels = _labels(uri)
    with errors_naming(uri):
        table = labels["table"]
        pairs = np.unique(np.stack([table["subject_idx"], table["action_idx"]], axis=-1), axis=0)
        return [f"{labels['subject_names'][s]}/{labels['action_names'][a]}" for s, a in pairs.astype(int)]


def read(folder: str, shard: str, undistorted: bool) -> Iterator[Sample]:
    """Samples of one capture."""
    uri = labels_file(folder)
    labels = _labels(uri)
    subject, _, action_trial = shard.partition("/")
    with errors_naming(uri):
        subject_index = labels["subject_names"].index(subject)
        table = labels["table"]
        mine = (table["subject_idx"] == subject_index) & (
            table["action_idx"] == labels["action_names"].index(action_trial)
        )
        rows = np.sort(table[mine], order="frame_idx")
        rig = _rig(labels, subject_index, undistorted)
        action, trial = facts.action_and_trial(action_trial)
        found = _labels_of(rows)
    images = join(folder, "processed", subject, action_trial, "imageSequence" + "-undistorted" * undistorted)

    def frame_images(frame: int) -> dict[str, SampleImage]:
        return {camera: SampleImage(join(images, camera, f"img_{frame + 1:06d}.jpg")) for camera in rig.names}

    yield from scene_samples(facts.scene_of(subject, action, trial, rig), found, frame_images)


def labels_file(folder: str) -> str:
    """The labels file of a copy; DatasetError if there is none or more than one."""
    extra = join(folder, "extra")
    names = file_names(extra) if exists(extra) else []
    found = [n for n in names if n.startswith("human36m-multiview-labels") and n.endswith(".npy")]
    if len(found) != 1:
        raise DatasetError(
            f"{extra} must contain exactly one human36m-multiview-labels-*.npy; it has {', '.join(found) or 'none'}."
        )
    return join(extra, found[0])


# One file serves all shards of a worker: 400,000 rows take some 100 MB and a second to read.
@functools.lru_cache(maxsize=1)
def _labels(uri: str) -> dict[str, Any]:
    return read_npy_dict(uri)


def _labels_of(rows: np.ndarray) -> Labels:
    joints, _ = LABEL_JOINTS.remap(HUMAN36M17)
    keypoints = rows["keypoints"].astype(np.float64)
    if keypoints.shape[1:] != (17, 3):
        raise DatasetError(f"its keypoints are {keypoints.shape[1:]}, not 17 x 3: an old labels file; recreate it.")
    tlbr = rows["bbox_by_camera_tlbr"].astype(np.float64)
    recorded = tlbr[..., 2] > tlbr[..., 0]
    return Labels(
        frame=rows["frame_idx"].astype(np.int64),
        position=np.arange(len(rows)),
        xyz=keypoints[:, joints] * facts.METRES,
        box=_boxes(tlbr, recorded),
        recorded=recorded,
    )


def _boxes(tlbr: Float[np.ndarray, "N V 4"], recorded: np.ndarray) -> Float[np.ndarray, "N V 4"]:
    return np.where(recorded[..., None], tlbr[..., [1, 0, 3, 2]], np.nan)


def _rig(labels: dict[str, Any], subject: int, undistorted: bool) -> CameraRig:
    cameras = []
    for i, name in enumerate(labels["camera_names"]):
        camera = labels["cameras"][subject, i]
        matrix = array(camera["K"], (3, 3), "K")
        cameras.append(
            facts.file_camera(
                str(name),
                array(camera["R"], (3, 3), "R"),
                array(camera["t"], (3,), "t"),
                np.diag(matrix)[:2],
                matrix[:2, 2],
                () if undistorted else array(camera["dist"], (5,), "dist").tolist(),
            )
        )
    return facts.rig_of(cameras)
