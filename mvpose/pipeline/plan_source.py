"""Inputs of a task in a worker: only the part of its capture that the stage's fingerprint covers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import pyarrow as pa

from mvpose.capture import CapturePlan
from mvpose.errors import ResultsError
from mvpose.footage.rig_table import rig_from_table
from mvpose.geometry import Unit
from mvpose.geometry.camera import CameraRig
from mvpose.pipeline.worker import EarlierFailure
from mvpose.records import Breaks, Clip, Kind, Task, Video
from mvpose.run.run_folder import RunFolder
from mvpose.run.store import ClipStore, Commit


@dataclass(frozen=True)
class Footage:
    """The images that 2D joints are detected in. The frame rate is hidden: correcting it keeps the 2D joints."""

    videos: tuple[Video, ...]

    @property
    def cameras(self) -> tuple[str, ...]:
        """Camera names, one per video."""
        return tuple(video.camera for video in self.videos)


@dataclass(frozen=True, eq=False)
class Setup:
    """Inputs that turn 2D joints into 3D joints: cameras and clock."""

    rig: CameraRig
    """As calibrated."""
    fps: float
    num_frames: int
    breaks: Breaks
    assumed_unit: Unit | None
    """See `Capture.assumed_unit`."""


@dataclass(frozen=True)
class Clock:
    """The part of a capture that filters use."""

    fps: float
    num_frames: int
    breaks: Breaks
    cameras: tuple[str, ...]


@dataclass(frozen=True)
class PlanSource:
    """Reads the plan of a clip from the run folder, so that tasks need not carry a catalogue."""

    run_uri: str
    plan_digest: str
    """Distinguishes plans of one folder in a worker that outlives a replan."""

    def plan_of(self, capture_id: str) -> CapturePlan:
        """The work on a capture."""
        return _plan(self, capture_id)

    def footage(self, task: Task) -> Footage:
        """The images of a task's capture."""
        videos = self._plan_of(task).capture.videos
        return Footage(tuple(replace(video, fps=math.nan, stated_fps=None, clock=None) for video in videos))

    def num_cameras(self, task: Task) -> int:
        """The cameras with footage of a task's capture."""
        return len(self._plan_of(task).capture.videos)

    def setup(self, task: Task) -> Setup:
        """Cameras and clock of a task's capture."""
        capture = self._plan_of(task).capture
        return Setup(capture.rig, capture.fps, capture.num_frames, capture.breaks, capture.assumed_unit)

    def clock(self, task: Task) -> Clock:
        """Clock and camera names of a task's capture."""
        capture = self._plan_of(task).capture
        return Clock(capture.fps, capture.num_frames, capture.breaks, capture.rig.names)

    def commits(self, kind: Kind, task: Task) -> list[Commit]:
        """Commits of an earlier stage for the frames of a task, in order; EarlierFailure if it failed on all."""
        store = ClipStore(self.run_uri, kind)
        needed = [t for t in self._plan_of(task).tasks(kind) if kind.of_whole_captures or _within(t.clip, task.clip)]
        commits = [commit for t in needed if (commit := store.committed(t.clip, t.fingerprint))]
        if len(commits) < len(needed):
            raise ResultsError(
                f"{kind} of {task.clip.capture_id} disappeared from {self.run_uri} while the job ran: is another job "
                "writing to this output? Rerun the same command."
            )
        failures = [c.failure for c in commits if c.failure]
        if len(failures) == len(commits):
            raise EarlierFailure(failures[0])
        return [c for c in commits if not c.failure]

    def tables(self, kind: Kind, commits: Iterable[Commit]) -> Iterator[pa.Table]:
        """The tables of commits, read lazily: those of a whole capture do not fit in memory."""
        return map(ClipStore(self.run_uri, kind).read, commits)

    def committed(self, kind: Kind, task: Task) -> pa.Table:
        """The single table of an earlier stage for a task: of its clip, or of its whole capture."""
        (table,) = self.tables(kind, self.commits(kind, task))
        return table

    def rig_of(self, task: Task, adjusted: bool) -> CameraRig:
        """The rig of a task's capture, as calibrated or as adjusted."""
        return rig_from_table(self.committed(Kind.RIGS, task)) if adjusted else self.setup(task).rig

    def _plan_of(self, task: Task) -> CapturePlan:
        return self.plan_of(task.clip.capture_id)


def _within(clip: Clip, other: Clip) -> bool:
    return other.start <= clip.start and clip.stop <= other.stop


@lru_cache(maxsize=8)  # bounded: a worker of a large archive would otherwise hold its whole catalogue
def _plan(source: PlanSource, capture_id: str) -> CapturePlan:
    return RunFolder(source.run_uri).plan_of(capture_id, source.plan_digest)
