"""What `mvpose reconstruct` found, as labels: training from footage that nobody has annotated.

A run's poses agree between views or are not there, so its surest joints are labels made by geometry alone
(EpipolarPose's self-supervision as a batch job; pseudo-labels of cross-view fusion). They know nothing that the
detector behind them got wrong in all views alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mvpose.archive.run_folder import RunFolder
from mvpose.datasets.files import DatasetError
from mvpose.datasets.sample import TRAIN, Labels, Picture, Sample, Scene, scene_samples
from mvpose.errors import ConfigError
from mvpose.records import CapturePlan, Poses3D, Video
from mvpose.skeleton import SKELETONS, Skeleton


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """The poses of a finished run as samples; a shard is a capture, a person of it one of its tracks."""

    folder: str
    """Output of `mvpose reconstruct`: a folder or s3:// URI. The footage must still lie where it did."""
    min_views: int = 3
    """Joints that fewer views agreed on are no labels. Two always agree on something."""
    max_error_px: float = 10.0
    """Joints that reproject worse, on the mean of the views used, are no labels."""
    min_joints: int = 12
    """Poses with fewer such joints are left out."""
    every: int = 1
    """Every so many frames of a capture: neighbours are nearly the same picture."""
    split: str = TRAIN

    def __post_init__(self) -> None:
        if self.min_views < 2 or self.every < 1:
            raise ConfigError(f"min_views {self.min_views} starts at 2, every {self.every} at 1.")

    @property
    def name(self) -> str:
        """The dataset, in one word."""
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
        """Samples of a capture by frame; DatasetError where it has no poses."""
        plan = _plans(self.folder)[shard]
        run = RunFolder(self.folder)
        poses = run.poses(plan)
        if poses is None:
            raise DatasetError(f"{shard} has no poses: see failures/ of {self.folder}.")
        scene = Scene(
            capture_id=shard, subject=shard, action="", split=self.split, rig=run.rig(plan), skeleton=poses.skeleton,
            fps=plan.capture.fps,
        )  # fmt: skip
        videos = plan.capture.videos
        if blind := [video.camera for video in videos if not video.uri]:
            raise DatasetError(f"{shard} has no footage of {', '.join(blind)}: its 2D joints were imported.")

        def pictures(frame: int) -> dict[str, Picture]:
            own = [int(v.frames_of(np.array([frame]))[0]) for v in videos]
            return {v.camera: Picture(v.uri, number) for v, number in zip(videos, own, strict=True)}

        return scene_samples(scene, self._labels(poses, videos), pictures)

    def _labels(self, poses: Poses3D, videos: Sequence[Video]) -> Labels:
        sure = (poses.num_views >= self.min_views) & (np.nan_to_num(poses.error_px, nan=np.inf) <= self.max_error_px)
        sure &= np.isfinite(poses.xyz).all(axis=-1)
        chosen = sure.sum(axis=-1) >= self.min_joints
        chosen[np.arange(len(chosen)) % self.every != 0] = False
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
    """By capture; read once a worker, not once a shard."""
    return {plan.capture.capture_id: plan for plan in RunFolder(folder).plans()}
