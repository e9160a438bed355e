"""Human3.6M in its original layout: `metadata.xml`, poses in CDF files, videos.

    metadata.xml                                        cameras and the names of trials
    S9/MyPoseFeatures/D3_Positions/Greeting.cdf         32 joints in the world, mm (or in Poses_D3_Positions)
    S9/Videos/Greeting.54138969.mp4

`<w0>` of metadata.xml is 300 numbers. First, ordered by camera, then by subject (11): three Euler angles and the camera
centre T. Then, by camera: focal lengths, centre, k1 k2 k3, p1 p2. With R = Rx(a) Ry(b) Rz(c),
x_camera = R (x_world - T). Frames missing from a video are left out.
"""

from __future__ import annotations

import functools
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass

import cdflib
import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from mvpose.datasets import human36m_facts as facts
from mvpose.datasets.files import DatasetError, errors_naming, read_bytes, read_text
from mvpose.datasets.sample import Labels, Sample, SampleImage, scene_samples
from mvpose.footage.video.frame_index import frame_index
from mvpose.geometry.camera import CameraRig
from mvpose.storage.locations import exists, join

NUM_SUBJECTS = 11
_POSE_FOLDERS = ("MyPoseFeatures/D3_Positions", "Poses_D3_Positions")
_SMALLEST_FLOAT_CDF = 8


@dataclass(frozen=True, eq=False)
class Metadata:
    """Parsed content of metadata.xml."""

    camera_numbers: Float[np.ndarray, "300"]
    trials: dict[tuple[str, int, int], str]
    """(subject, action, trial) to the name of its files."""


def shards(folder: str) -> list[str]:
    """The captures of the existing subjects."""
    trials = _metadata(join(folder, "metadata.xml")).trials
    present = [s for s in facts.SUBJECTS if exists(join(folder, s))]
    return [
        f"{subject}/{facts.ACTIONS[action]}-{trial}"
        for subject in present
        for own, action, trial in sorted(trials)
        if own == subject and action in facts.ACTIONS
    ]


def read(folder: str, shard: str, stride: int) -> Iterator[Sample]:
    """Samples of one capture, every `stride`-th frame."""
    subject, _, action_trial = shard.partition("/")
    action, trial = facts.action_and_trial(action_trial)
    uri = join(folder, "metadata.xml")
    metadata = _metadata(uri)
    number = {name: n for n, name in facts.ACTIONS.items()}[action]
    with errors_naming(uri):
        files = metadata.trials[subject, number, trial]
        rig = _rig(metadata, subject, [c for c in facts.CAMERAS if c not in facts.NO_VIDEO.get(shard, ())])
    poses = _poses_mm(_pose_file(folder, subject, files))
    videos = {name: join(folder, subject, "Videos", f"{files}.{name}.mp4") for name in rig.names}
    recorded = [frame_index(uri).num_frames for uri in videos.values() if exists(uri)]
    frames = np.arange(0, min([len(poses), *recorded]), stride)
    labels = Labels(frame=frames, position=frames, xyz=poses[frames][:, facts.JOINTS_OF_32] * facts.METRES)
    scene = facts.scene_of(subject, action, trial, rig)
    yield from scene_samples(scene, labels, lambda frame: {c: SampleImage(v, frame) for c, v in videos.items()})


def _pose_file(folder: str, subject: str, files: str) -> str:
    for place in _POSE_FOLDERS:
        uri = join(folder, subject, place, f"{files}.cdf")
        if exists(uri):
            return uri
    raise DatasetError(
        f"{join(folder, subject)} has no {_POSE_FOLDERS[0]}/{files}.cdf: unpack Poses_D3_Positions_{subject}.tgz. "
        "D3_Positions_mono_universal cannot be used: its bone lengths are not those of the person."
    )


def _poses_mm(uri: str) -> Float[np.ndarray, "T 32 3"]:
    """All joints of a CDF file in mm."""
    content = read_bytes(uri)
    with errors_naming(uri), tempfile.NamedTemporaryFile(suffix=".cdf") as file:
        if len(content) < _SMALLEST_FLOAT_CDF:
            raise DatasetError("it is empty.")
        file.write(content)
        file.flush()
        pose = np.asarray(cdflib.CDF(file.name).varget("Pose"), dtype=np.float64)
        if pose.shape[-1] != 96:
            raise DatasetError(f"its Pose is {' x '.join(map(str, pose.shape))}, not frames x 96 (32 joints x 3).")
        return pose.reshape(-1, 32, 3)


def _rig(metadata: Metadata, subject: str, cameras: list[str]) -> CameraRig:
    return facts.rig_of([_camera(metadata.camera_numbers, facts.CAMERAS.index(c), int(subject[1:])) for c in cameras])


def _camera(numbers: Float[np.ndarray, "300"], camera: int, subject: int):
    start = 6 * (NUM_SUBJECTS * camera + subject - 1)
    angles, centre = numbers[start : start + 3], numbers[start + 3 : start + 6]
    start = 6 * NUM_SUBJECTS * len(facts.CAMERAS) + 9 * camera
    focal, middle, k, p = np.split(numbers[start : start + 9], [2, 4, 7])
    rotation = Rotation.from_euler("XYZ", angles).as_matrix()
    translation = facts.centre_to_translation(rotation, centre)
    return facts.file_camera(
        facts.CAMERAS[camera], rotation, translation, focal, middle, (k[0], k[1], p[0], p[1], k[2])
    )


@functools.lru_cache(maxsize=1)
def _metadata(uri: str) -> Metadata:
    text = read_text(uri)
    with errors_naming(uri):
        try:
            root = ElementTree.fromstring(text)
        except ElementTree.ParseError as error:
            raise DatasetError(f"it is not XML: {error}.") from error
        w0, mapping = root.findtext("w0"), root.find("mapping")
        cameras = [e.text for e in root.findall("dbcameras/index2id/*")]
        if w0 is None or mapping is None:
            raise DatasetError("it has no <w0> or no <mapping>: use the one of Human3.6M's own software.")
        if cameras and tuple(cameras[: len(facts.CAMERAS)]) != facts.CAMERAS:
            raise DatasetError(f"its cameras are {cameras}, not {list(facts.CAMERAS)} in this order.")
        numbers = np.array(w0.strip().strip("[]").split(), dtype=np.float64)
        if numbers.shape != (300,):
            raise DatasetError(f"its <w0> has {numbers.size} numbers, not 300.")
        return Metadata(numbers, _trials(mapping))


def _trials(mapping: ElementTree.Element) -> dict[tuple[str, int, int], str]:
    rows = [[cell.text or "" for cell in row] for row in mapping]
    subjects = rows[0][2:]
    trials = {}
    for action, trial, *names in rows[1:]:
        if action.isdigit() and trial.isdigit():
            trials |= {(s, int(action), int(trial)): n for s, n in zip(subjects, names, strict=False) if n}
    return trials
