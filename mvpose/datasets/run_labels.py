"""Automatic labels from a `mvpose reconstruct` run, for training on footage without annotations.

A run's poses agree between views or are missing, so its most reliable joints are labels derived from geometry alone
(pseudo-labels of cross-view fusion; EpipolarPose's are made by `mvpose dataset label`). They cannot correct errors that
the detector makes in all views alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mvpose.capture import CapturePlan
from mvpose.datasets.files import DatasetError
from mvpose.datasets.sample import TRAIN, VALIDATION, Labels, Sample, SampleImage, SampleScene, scene_samples
from mvpose.errors import ConfigError
from mvpose.records import Poses3D, Video
from mvpose.run.run_folder import RunFolder
from mvpose.skeleton import SKELETONS, Skeleton


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """The poses of a finished run as samples; a shard is a capture, a person is one of its tracks."""

    folder: str
    """Output of `mvpose reconstruct`: a folder or s3:// URI. The footage must still be at its original location."""
    min_views: int = 3
    """Minimum number of views per joint. Two views agree too easily."""
    max_error_px: float = 10.0
    """Maximum mean reprojection error of a joint over the views used."""
    min_joints: int = 12
    """Minimum number of such joints per pose."""
    every: int = 1
    """Use every n-th frame of a capture: neighbouring frames are almost identical."""
    split: str = TRAIN
    held_out: float = 0.1
    """Share of each capture's frames, the last ones, that is of the validation split (if `split` is `train`)."""

    def __post_init__(self) -> None:
        if self.min_views < 2 or self.every < 1:
            raise ConfigError(f"min_views {self.min_views} must be at least 2, every {self.every} at least 1.")
        if not 0.0 <= self.held_out < 1.0:
            raise ConfigError(f"held_out is {self.held_out:g}; it must be from 0 to below 1.")

    @property
    def name(self) -> str:
        """Short name of the dataset."""
        return "run"

    @property
    def skeleton(self) -> Skeleton:
        """The joint set of the run's detector."""
        for plan in _plans(self.folder).values():
            poses = RunFolder(self.folder).poses(plan)
            if poses is not None:
                return SKELETONS.get(poses.skeleton.name, poses.skeleton)
        raise DatasetError(f"{self.folder} has no poses to learn from: see its failures/.")

    def shards(self) -> list[str]:
        """The captures that have a plan."""
        RunFolder(self.folder).summary()
        return sorted(_plans(self.folder))

    def read(self, shard: str) -> Iterator[Sample]:
        """Samples of a capture by frame; DatasetError if it has no poses."""
        plan = _plans(self.folder)[shard]
        run = RunFolder(self.folder)
        poses = run.poses(plan)
        if poses is None:
            raise DatasetError(f"{shard} has no poses: see failures/ of {self.folder}.")
        videos = plan.capture.videos
        if blind := [video.camera for video in videos if not video.uri]:
            raise DatasetError(f"{shard} has no footage of {', '.join(blind)}: its 2D joints were imported.")

        def images(frame: int) -> dict[str, SampleImage]:
            own = [int(v.frames_of(np.array([frame]))[0]) for v in videos]
            return {v.camera: SampleImage(v.uri, number) for v, number in zip(videos, own, strict=True)}

        held_out = self.held_out if self.split == TRAIN else 0.0
        last = round(len(poses.xyz) * (1 - held_out))
        for split, frames in ((self.split, range(last)), (VALIDATION, range(last, len(poses.xyz)))):
            scene = SampleScene(
                capture_id=shard, subject=shard, action="", split=split, rig=run.rig(plan), skeleton=poses.skeleton,
                fps=plan.capture.fps,
            )  # fmt: skip
            yield from scene_samples(scene, self._labels(poses, videos, frames), images)

    def _labels(self, poses: Poses3D, videos: Sequence[Video], frames: range) -> Labels:
        sure = (poses.num_views >= self.min_views) & (np.nan_to_num(poses.error_px, nan=np.inf) <= self.max_error_px)
        sure &= np.isfinite(poses.xyz).all(axis=-1)
        chosen = sure.sum(axis=-1) >= self.min_joints
        numbers = np.arange(len(chosen))
        chosen[(numbers % self.every != 0) | (numbers < frames.start) | (numbers >= frames.stop)] = False
        frame, place = np.nonzero(chosen)
        order = np.argsort(frame, kind="stable")
        frame, place = frame[order], place[order]
        xyz = np.where(sure[..., None], poses.xyz, np.nan)[frame, place].astype(np.float64)
        recorded = np.stack([video.frames_of(frame) >= 0 for video in videos], axis=1)
        return Labels(
            frame=frame,
            position=frame // self.every,
            xyz=xyz,
            person=poses.track_id[place],
            recorded=None if recorded.all() else recorded,
        )


@lru_cache(maxsize=1)
def _plans(folder: str) -> dict[str, CapturePlan]:
    """Plans by capture; read once per worker, not once per shard."""
    return {plan.capture.capture_id: plan for plan in RunFolder(folder).plans()}
