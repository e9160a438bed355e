"""Human3.6M as images and two pickled lists: the layout of H36M-Toolbox, made common by cross-view fusion.

    images/s_09_act_05_subact_02_ca_01/s_09_act_05_subact_02_ca_01_000001.jpg       (frame + 1)
    annot/h36m_train.pkl, annot/h36m_validation.pkl     a list of dicts, one per image:
        image, subject (9), action (5), subaction (2), camera_id (0..3), image_id (frame + 1), box (l t r b)
        camera: R, T (the camera *centre*, mm: x_camera = R (x - T)), fx, fy, cx, cy, k (k1 k2 k3), p (p1 p2)
        joints_3d_camera (17 3): D3_Positions_mono, in mm, in the camera's axes
        joints_3d (17 3): in the toolbox D3_Positions_mono_universal; in the authors' own files as joints_3d_camera

Joints are transformed to the world from every camera that has them. If the results disagree, the joints are those of
the universal skeleton, which has replaced bone lengths, and the file is refused.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from mvpose.datasets import human36m_facts as facts
from mvpose.datasets.files import DatasetError, array, errors_naming, read_pickle
from mvpose.datasets.sample import Labels, Sample, SampleImage, scene_samples
from mvpose.geometry.camera import CameraRig
from mvpose.storage.locations import exists, join

FILES = ("h36m_train", "h36m_validation")
# Cameras agree to float32 rounding (under 0.001 mm at 5 m); the universal skeleton moves joints by centimetres.
AGREEMENT_MM = 5.0


def shards(folder: str) -> list[str]:
    """The existing annotation files."""
    found = [name for name in FILES if exists(join(folder, "annot", f"{name}.pkl"))]
    if not found:
        raise DatasetError(f"{join(folder, 'annot')} has neither {' nor '.join(f'{n}.pkl' for n in FILES)}.")
    return found


def read(folder: str, shard: str) -> Iterator[Sample]:
    """Samples of one file, capture by capture."""
    uri = join(folder, "annot", f"{shard}.pkl")
    entries = read_pickle(uri)
    with errors_naming(uri):
        if not isinstance(entries, list):
            raise DatasetError("it does not contain a list of images.")
        entries.sort(key=_order)
        for (subject, action, trial), some in itertools.groupby(entries, key=lambda p: _order(p)[:3]):
            yield from _capture(join(folder, "images"), subject, action, trial, list(some))


def _order(entry: dict[str, Any]) -> tuple[int, int, int, int, int]:
    keys = ("subject", "action", "subaction", "image_id", "camera_id")
    subject, action, trial, image, camera = (int(entry[key]) for key in keys)
    return subject, action, trial, image, camera


def _capture(images: str, subject: int, action: int, trial: int, entries: list[dict[str, Any]]) -> Iterator[Sample]:
    if action not in facts.ACTIONS:
        raise DatasetError(f"it has action {action}; Human3.6M's are 2 to 16.")
    rig = _rig(entries)
    views = {name: i for i, name in enumerate(rig.names)}
    by_frame = [list(p) for _, p in itertools.groupby(entries, key=lambda p: int(p["image_id"]))]
    count = len(by_frame)
    box, recorded = np.full((count, len(views), 4), np.nan), np.zeros((count, len(views)), bool)
    xyz, where = np.empty((count, 17, 3)), {}
    for i, some in enumerate(by_frame):
        xyz[i] = _agreed([_world_mm(p) for p in some], some[0]["image"]) * facts.METRES
        for entry in some:
            view = views[_camera_name(entry)]
            recorded[i, view] = True
            box[i, view] = array(entry["box"], (4,), "box")
            where[int(entry["image_id"]) - 1, rig.names[view]] = SampleImage(join(images, str(entry["image"])))
    labels = Labels(
        frame=np.array([int(some[0]["image_id"]) - 1 for some in by_frame]),
        position=np.arange(count),
        xyz=xyz,
        box=box,
        recorded=recorded,
    )
    scene = facts.scene_of(f"S{subject}", facts.ACTIONS[action], trial, rig)
    nowhere = SampleImage()
    yield from scene_samples(scene, labels, lambda f: {name: where.get((f, name), nowhere) for name in views})


def _camera_name(entry: dict[str, Any]) -> str:
    camera = int(entry["camera_id"])
    if not 0 <= camera < len(facts.CAMERAS):
        raise DatasetError(f"it has camera_id {camera}; valid IDs are 0 to 3.")
    return facts.CAMERAS[camera]


def _rig(entries: list[dict[str, Any]]) -> CameraRig:
    first = {_camera_name(p): p["camera"] for p in reversed(entries)}
    cameras = []
    for name in sorted(first, key=facts.CAMERAS.index):
        camera = first[name]
        k, p = array(camera["k"], (3,), "k"), array(camera["p"], (2,), "p")
        focal, centre = ([float(np.squeeze(camera[key])) for key in keys] for keys in (("fx", "fy"), ("cx", "cy")))
        translation = facts.centre_to_translation(camera["R"], camera["T"])
        rotation = array(camera["R"], (3, 3), "R")
        cameras.append(
            facts.file_camera(
                name, rotation, translation, np.array(focal), np.array(centre), (k[0], k[1], p[0], p[1], k[2])
            )
        )
    return facts.rig_of(cameras)


def _world_mm(entry: dict[str, Any]) -> Float[np.ndarray, "17 3"]:
    joints = array(entry["joints_3d_camera" if "joints_3d_camera" in entry else "joints_3d"], (17, 3), "joints_3d")
    camera = entry["camera"]
    return joints @ array(camera["R"], (3, 3), "R") + array(camera["T"], (3,), "T")


def _agreed(seen: list[Float[np.ndarray, "17 3"]], entry: str) -> Float[np.ndarray, "17 3"]:
    apart = max(np.linalg.norm(joints - seen[0], axis=-1).max() for joints in seen)
    if apart > AGREEMENT_MM:
        raise DatasetError(
            f"the cameras of {entry} disagree by {apart:.0f} mm about a joint: its joints are those of the universal "
            "skeleton (D3_Positions_mono_universal), wrong in scale. Recreate the file from D3_Positions_mono."
        )
    return seen[0]
