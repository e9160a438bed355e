"""The stages of the job, each a callable from a task to its table. A worker creates one stage and keeps it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch

from mvpose.exchange.keypoints import KeypointImport
from mvpose.footage.calibration.file_cameras import confirm_unit
from mvpose.footage.rig_table import rig_to_table
from mvpose.geometry.camera import CameraRig
from mvpose.pipeline.plan_source import PlanSource, Setup
from mvpose.pipeline.worker import EarlierFailure, Outcome
from mvpose.quality.findings import Finding, PreflightConfig
from mvpose.quality.pose_findings import pose_findings
from mvpose.quality.preflight import preflight, sampled_runs
from mvpose.quality.quality import CaptureFrames, quality_of_parts
from mvpose.quality.world_frame import stature_m
from mvpose.reconstruction.broken_clips import reconstruct_segments
from mvpose.reconstruction.clip import MAX_TRACKS, ReconstructionConfig, reconstruct
from mvpose.reconstruction.identities import SPARE_PEOPLE, Tracklet, identify, tracklets_of
from mvpose.records import Breaks, Keypoints2D, Kind, Poses3D, Task, positions, segments
from mvpose.rigs.adjust import AdjustmentConfig, adjust_on_frames, frames_to_see
from mvpose.run.capture_tables import (
    filtered_to_table,
    identified_figures,
    identities_from_table,
    identities_to_table,
    with_identities,
)
from mvpose.run.pose_tables import (
    TableInfo,
    keypoints_from_table,
    keypoints_to_table,
    poses_from_table,
    poses_to_table,
)
from mvpose.run.sequences import pose_windows, sampled_keypoints
from mvpose.run.store import Commit, table_file
from mvpose.run.verdict_table import judged_table, without_result
from mvpose.skeleton import Skeleton
from mvpose.temporal.filter_settings import Filtering
from mvpose.temporal.filters import blocks, bone_lengths, filtered_block

if TYPE_CHECKING:
    from mvpose.reconstruction.lifted_people import TrackLifter


class RigStage:
    """The adjusted rig of a capture, from the 2D joints of all its clips."""

    def __init__(self, source: PlanSource, adjustment: AdjustmentConfig) -> None:
        self.source, self.adjustment = source, adjustment

    def __call__(self, task: Task) -> Outcome:
        """The rig with adjusted extrinsics, and the figures of the adjustment; one camera stays as calibrated."""
        start = time.perf_counter()
        if len(alone := self.source.setup(task).rig) == 1:
            return Outcome(rig_to_table(alone, {}))
        commits = self.source.commits(Kind.KEYPOINTS, task)
        first, num_frames = commits[0].clip.start, commits[-1].clip.stop - commits[0].clip.start
        frames = frames_to_see(num_frames, self.adjustment)
        keypoints = sampled_keypoints(self.source.tables(Kind.KEYPOINTS, commits), first + frames)
        rig, report = adjust_on_frames(keypoints, frames / num_frames, self.source.setup(task).rig, self.adjustment)
        return Outcome(rig_to_table(rig, report.figures()), {"adjust": time.perf_counter() - start})


@dataclass(frozen=True)
class SavedLifter:
    """The lifter of a job, where workers can read it."""

    model: str
    weights_sha256: str

    def opened(self) -> TrackLifter:
        """The network, ready to lift tracks."""
        from mvpose.models.saved import open_model
        from mvpose.reconstruction.lifted_people import TrackLifter

        return TrackLifter.of(open_model(self.model, self.weights_sha256))


class TrackStage:
    """2D joints of a clip to 3D joints of all people who may be among the `max_people` (None: all) of the capture."""

    def __init__(
        self,
        source: PlanSource,
        config: ReconstructionConfig,
        max_people: int | None,
        adjusted: bool,
        lifter: SavedLifter | None = None,
    ) -> None:
        self.source, self.config, self.adjusted = source, config, adjusted
        self.max_tracks = MAX_TRACKS if max_people is None else max_people + SPARE_PEOPLE
        self.lift = lifter.opened() if lifter else None

    def __call__(self, task: Task) -> Outcome:
        """Tracks of the clip; a clip without keypoints fails for the same reason. Those of one camera are lifted."""
        start = time.perf_counter()
        keypoints, _ = keypoints_from_table(self.source.committed(Kind.KEYPOINTS, task))
        rig, clip, setup = self.source.rig_of(task, self.adjusted), task.clip, self.source.setup(task)
        parts = [slice(a - clip.start, b - clip.start) for a, b in segments(clip.start, clip.stop, setup.breaks)]
        lifted = len(rig) == 1 and (self.lift is not None or keypoints.lifted is not None)

        def people(part: Keypoints2D) -> Poses3D:
            if lifted:
                from mvpose.reconstruction.lifted_people import lift_people

                return lift_people(part, rig, self.lift, self.config, setup.fps, self.max_tracks)
            return reconstruct(part, rig, self.config, setup.fps, self.max_tracks)

        poses = reconstruct_segments(keypoints, parts, people)
        table = poses_to_table(poses, info_of(task, rig.names, poses.skeleton, setup.fps, setup.breaks))
        return Outcome(table, {"reconstruct": time.perf_counter() - start})


class IdentityStage:
    """Link tracks into the people of a capture, and select those to keep."""

    def __init__(self, source: PlanSource, config: ReconstructionConfig, max_people: int | None) -> None:
        self.source, self.config, self.max_people = source, config, max_people

    def __call__(self, task: Task) -> Outcome:
        """One row per kept track: clip, track in the clip, person; with figures of the people left out.

        CalibrationError if the people's height contradicts the assumed unit of the calibration: this is the first stage
        that sees all people of a capture.
        """
        start, setup = time.perf_counter(), self.source.setup(task)
        tables = self.source.tables(Kind.TRACKS, self.source.commits(Kind.TRACKS, task))
        statures: list[float] = []

        def clips() -> Iterator[list[Tracklet]]:
            for poses, info in map(poses_from_table, tables):
                statures.append(_stature_m(poses))
                yield tracklets_of(poses, info.start)

        num_frames = task.clip.stop
        people = identify(clips(), setup.fps, self.max_people, self.config.max_gap_s, num_frames, setup.breaks)
        confirm_unit(float(torch.tensor(statures).nanmedian()), setup.assumed_unit)
        return Outcome(identities_to_table(people), {"identify": time.perf_counter() - start})


class PoseStage:
    """Tracks of a clip to poses of the people of the capture."""

    def __init__(self, source: PlanSource) -> None:
        self.source = source

    def __call__(self, task: Task) -> Outcome:
        """The rows of the kept tracks, each with its person's ID."""
        tracks, people = (self.source.committed(kind, task) for kind in (Kind.TRACKS, Kind.IDENTITIES))
        return Outcome(with_identities(tracks, identities_from_table(people)))


class FilterStage:
    """Raw poses of a whole capture to separate filtered poses: gaps and smoothing cross the edges of clips."""

    def __init__(self, source: PlanSource, config: Filtering) -> None:
        self.source, self.config = source, config

    def __call__(self, task: Task) -> Outcome:
        """Filtered poses of everyone in the capture, with a flag on every value that was not measured."""
        start, clock = time.perf_counter(), self.source.clock(task)
        commits = self.source.commits(Kind.POSES, task)
        parts = blocks(clock.num_frames, clock.fps, self.config, clock.breaks)
        lengths = bone_lengths(self._poses(commits), self.config)
        windows = pose_windows(self.source.tables(Kind.POSES, commits), [(part.first, part.last) for part in parts])

        def tables() -> Iterator[pa.Table]:
            for part, raw in zip(parts, windows, strict=True):
                made = filtered_block(raw, part, clock.fps, self.config, lengths)
                info = info_of(task, clock.cameras, raw.skeleton, clock.fps, clock.breaks)
                yield filtered_to_table(made, info, part.start)

        return Outcome(table_file(tables()), {"filter": time.perf_counter() - start})

    def _poses(self, commits: Iterable[Commit]) -> Iterator[Poses3D]:
        return (poses for poses, _ in map(poses_from_table, self.source.tables(Kind.POSES, commits)))


class QualityStage:
    """Figures of merit of a whole capture, and the findings that make its verdict."""

    def __init__(self, source: PlanSource, config: ReconstructionConfig, adjusted: bool) -> None:
        self.source, self.config, self.adjusted = source, config, adjusted

    def __call__(self, task: Task) -> Outcome:
        """One row per figure, over the clips that have poses. A capture without poses is judged by its 2D joints."""
        start, setup = time.perf_counter(), self.source.setup(task)
        keypoints = self.source.commits(Kind.KEYPOINTS, task)
        try:
            poses, rig = self.source.commits(Kind.POSES, task), self.source.rig_of(task, self.adjusted)
        except EarlierFailure as earlier:
            found = [*self._checked(keypoints, setup.rig, setup), *without_result(earlier.failure)]
            return Outcome(judged_table(task.clip.capture_id, {}, found), {"verdict": time.perf_counter() - start})
        reconstructed = {commit.clip for commit in poses}
        keypoints = [commit for commit in keypoints if commit.clip in reconstructed]
        frames = (poses[0].clip.start, poses[-1].clip.stop)
        parts = self._parts(poses, keypoints, frozenset(frame for frame, _ in setup.breaks))
        quality = quality_of_parts(parts, frames, rig, setup.fps, self.config)
        measured = time.perf_counter()
        missing = setup.num_frames - sum(clip.stop - clip.start for clip in reconstructed)
        of_poses = pose_findings(quality, self.config.max_error, frames[1] - frames[0], missing)
        found = [*self._checked(keypoints, rig, setup), *of_poses]
        people = identified_figures(self.source.committed(Kind.IDENTITIES, task))
        people |= {"monocular": 1.0} if len(rig) == 1 else {}
        table = judged_table(task.clip.capture_id, people | quality.figures(), found)
        return Outcome(table, {"quality": measured - start, "verdict": time.perf_counter() - measured})

    def _checked(self, commits: Sequence[Commit], rig: CameraRig, setup: Setup) -> tuple[Finding, ...]:
        """What `mvpose check` finds, on as many frames of these clips."""
        known = np.concatenate([np.arange(commit.clip.start, commit.clip.stop) for commit in commits])
        config = PreflightConfig()
        frames = np.concatenate([known[part.start : part.stop] for part in sampled_runs(len(known), config)])
        sampled = [c for c in commits if np.any((c.clip.start <= frames) & (frames < c.clip.stop))]
        keypoints = sampled_keypoints(self.source.tables(Kind.KEYPOINTS, sampled), frames)
        return preflight(keypoints, positions(frames, setup.breaks), rig, setup.fps, config).findings

    def _parts(
        self, poses: Iterable[Commit], keypoints: Iterable[Commit], breaks: frozenset[int]
    ) -> Iterator[CaptureFrames]:
        tables = self.source.tables(Kind.POSES, poses), self.source.tables(Kind.KEYPOINTS, keypoints)
        for of_poses, of_keypoints in zip(*tables, strict=True):
            made, info = poses_from_table(of_poses)
            yield CaptureFrames(info.start, made, keypoints_from_table(of_keypoints)[0], breaks)


def _stature_m(poses: Poses3D) -> float:
    """Height of the first person in a clip, the one with the most support; NaN if it cannot be measured."""
    xyz = torch.from_numpy(poses.xyz[:, :1])
    return stature_m({joint: xyz[:, :, i] for i, joint in enumerate(poses.skeleton.joints)})


def info_of(
    task: Task, cameras: tuple[str, ...], skeleton: Skeleton, fps: float | None = None, breaks: Breaks = ()
) -> TableInfo:
    """Metadata of a task's table."""
    return TableInfo(
        capture_id=task.clip.capture_id,
        start=task.clip.start,
        stop=task.clip.stop,
        fps=fps,
        cameras=cameras,
        skeleton=skeleton,
        fingerprint=task.fingerprint,
        breaks=breaks,
    )


class ImportStage:
    """Files of 2D joints to the table that a detector would make from footage."""

    def __init__(self, source: PlanSource, imported: KeypointImport) -> None:
        self.source, self.imported = source, imported

    def __call__(self, task: Task) -> Outcome:
        """2D joints of every person in every view and frame of the clip, as stored in the files."""
        from mvpose.exchange.keypoints.contents import keypoints_of

        start, footage = time.perf_counter(), self.source.footage(task)
        first = footage.videos[0].first_frame
        sources = tuple((video.keypoints, video.stamp) for video in footage.videos)
        keypoints = keypoints_of(sources, self.imported, range(task.clip.start + first, task.clip.stop + first))
        table = keypoints_to_table(keypoints, info_of(task, footage.cameras, keypoints.skeleton))
        return Outcome(table, {"read": time.perf_counter() - start})
