"""Training samples of lifters: the 2D joints of one camera in a window of frames, as a detector finds them.

Any table of samples serves, since no image is read: rendered people, motion capture (`mvpose dataset motion`), other
data sets, and the poses of a finished run (`mvpose dataset convert run`). The true joints are seen by one of a row's
cameras; the detector's errors (`datasets.detector_noise`) are drawn again in every epoch.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float, Int
from torch.utils.data import Dataset

from mvpose.datasets.detector_noise import draw_detections, measured_noise
from mvpose.datasets.row_reader import RowReader
from mvpose.datasets.sample import Sample
from mvpose.models.network_settings import LiftingMethod
from mvpose.skeleton import SKELETONS, Skeleton
from mvpose.training.augmentation import AugmentationConfig
from mvpose.training.order import Take

NO_ROW = -1
_HIPS, _SHOULDERS = ("left_hip", "right_hip"), ("left_shoulder", "right_shoulder")


class LiftingReader(Dataset):
    """Maps takes to columns of `LiftingBatch`: for each row the window around it.

    A sample depends only on seed, epoch and row, not on the reader. Of the augmentations, `rotation_degrees` and
    `mirror` apply.
    """

    def __init__(
        self,
        table: RowReader,
        method: LiftingMethod,
        cameras: tuple[str, ...],
        augmentation: AugmentationConfig | None,
        seed: int,
    ) -> None:
        self._table, self._cameras, self._augmentation, self._seed = table, cameras, augmentation, seed
        self._skeleton, self._windows = SKELETONS[method.skeleton], Windows(table, method)

    def __getitem__(self, take: Take) -> dict[str, np.ndarray]:
        samples = [self._sample(row, np.random.default_rng([self._seed, take.epoch, row])) for row in take.read]
        return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}

    def _sample(self, row: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        window = [None if r == NO_ROW else self._table.sample(int(r)) for r in self._windows.around(row)]
        names = self._table.sample(row).rig.names
        allowed = [name for name in names if name in self._cameras] if self._cameras else list(names)
        camera = allowed[int(rng.integers(len(allowed)))]
        poses, visible = in_camera(window, camera, self._skeleton)
        if self._augmentation is not None:
            poses, visible = self._changed(poses, visible, rng)
        points = detected(poses, visible, self._skeleton, rng)
        return _columns(points, poses, self._skeleton)

    def _changed(
        self, poses: Float[np.ndarray, "T J 3"], visible: Bool[np.ndarray, "T J"], rng: np.random.Generator
    ) -> tuple[Float[np.ndarray, "T J 3"], Bool[np.ndarray, "T J"]]:
        """The window mirrored or turned about the camera's axis, at random."""
        assert self._augmentation is not None
        if rng.random() < self._augmentation.mirror:
            mirror = list(self._skeleton.mirror)
            poses, visible = poses[:, mirror] * [-1.0, 1.0, 1.0], visible[:, mirror]
        turn = math.radians(self._augmentation.rotation_degrees) * rng.uniform(-1, 1)
        cos, sin = math.cos(turn), math.sin(turn)
        return poses @ np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]]), visible


class Windows:
    """The rows of a table that surround each of its rows in time: one person of one capture, at the window's rate."""

    def __init__(self, table: RowReader, method: LiftingMethod) -> None:
        keys = table.keys(("capture", "person", "frame"))
        capture, person = keys.capture.astype("category").cat.codes.to_numpy(), keys.person.to_numpy()
        frame = keys.frame.to_numpy()
        self._order = np.lexsort((frame, person, capture))
        self._place = np.argsort(self._order)
        self._who = np.stack([capture, person], axis=1)[self._order]
        self._frame = frame[self._order]
        fps = table.sample(0).fps
        self._step = max(1, round(fps / method.lifter.fps)) if math.isfinite(fps) else 1
        self._window = method.window

    def around(self, row: int) -> Int[np.ndarray, " T"]:
        """Rows of the window with `row` in its middle; `NO_ROW` for frames that the table does not have."""
        offset = self._step * (np.arange(self._window) - self._window // 2)
        place = self._place[row]
        wanted = self._frame[place] + offset
        # Rows of one person are neighbours in order, and no two have the same frame.
        first, last = max(place + int(offset[0]), 0), min(place + int(offset[-1]), len(self._order) - 1)
        near = np.arange(first, last + 1)
        near = near[(self._who[near] == self._who[place]).all(axis=1)]
        at = np.minimum(np.searchsorted(self._frame[near], wanted), len(near) - 1)
        return np.where(self._frame[near][at] == wanted, self._order[near][at], NO_ROW)


def in_camera(
    window: list[Sample | None], camera: str, skeleton: Skeleton
) -> tuple[Float[np.ndarray, "T J 3"], Bool[np.ndarray, "T J"]]:
    """Joints in the axes of a camera, metres, and whether each is in its image; NaN for a missing frame or joint."""
    poses = np.full((len(window), len(skeleton.joints), 3), np.nan)
    visible = np.zeros(poses.shape[:2], bool)
    for t, sample in enumerate(window):
        if sample is None or camera not in sample.rig.names:
            continue
        v = sample.rig.names.index(camera)
        source, found = sample.skeleton.remap(skeleton)
        motion = sample.rig.camera_from_world
        seen = sample.xyz[source] @ motion.rotation[v].numpy().T + motion.translation[v].numpy()
        poses[t] = np.where(found[:, None], seen, np.nan)
        visible[t] = sample.visible[v][source] & found & np.isfinite(seen).all(axis=-1) & (seen[:, 2] > 0)
    return poses, visible


def detected(
    poses: Float[np.ndarray, "T J 3"], visible: Bool[np.ndarray, "T J"], skeleton: Skeleton, rng: np.random.Generator
) -> Float[np.ndarray, "T J 2"]:
    """2D joints on the plane z = 1 with the errors of the measured detector; NaN for a joint that it misses."""
    known: np.ndarray = np.all(np.isfinite(poses), axis=-1)
    there: np.ndarray = np.all(known[:, skeleton.indices(*_SHOULDERS, *_HIPS)], axis=1) & visible.any(axis=1)
    points = np.full((*visible.shape, 2), np.nan)
    if there.any():
        # A missing joint is drawn somewhere, and missed because it is not in the image.
        xyz = np.where(known[there][..., None], poses[there], 1.0)
        plane = xyz[..., :2] / np.maximum(xyz[..., 2:], 0.1)
        points[there] = draw_detections(measured_noise(), plane, xyz, visible[there], skeleton, rng).xy
    return points


def _columns(
    points: Float[np.ndarray, "T J 2"], poses: Float[np.ndarray, "T J 3"], skeleton: Skeleton
) -> dict[str, np.ndarray]:
    relative = poses - root_of(poses, skeleton)[:, None]
    seen: np.ndarray = np.all(np.isfinite(points), axis=-1)
    known: np.ndarray = np.all(np.isfinite(relative), axis=-1)
    found: np.ndarray = np.any(seen, axis=1, keepdims=True)
    return {
        "points": np.where(seen[..., None], points, 0.0).astype(np.float32),
        "seen": seen,
        "poses": np.where(known[..., None], relative, 0.0).astype(np.float32),
        "known": known & found,
    }


def root_of(poses: Float[np.ndarray, "*n J 3"], skeleton: Skeleton) -> Float[np.ndarray, "*n 3"]:
    """The joint `hip`, or the middle of both hips in a joint set without it."""
    joints = ("hip",) if "hip" in skeleton.joints else _HIPS
    return poses[..., skeleton.indices(*joints), :].mean(axis=-2)
