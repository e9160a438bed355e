"""The stages of the job, each a callable from a task to its table. A worker makes one of them and keeps it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pyarrow as pa

from mvpose.archive.filtered_table import filtered_to_table
from mvpose.archive.identity_table import identities_from_table, identities_to_table, with_identities
from mvpose.archive.rig_table import figures_to_table, rig_from_table, rig_to_table
from mvpose.archive.run_folder import RunFolder
from mvpose.archive.sequences import pose_windows, sampled_keypoints
from mvpose.archive.store import ClipStore, Commit, table_file
from mvpose.archive.tables import (
    TableInfo,
    keypoints_from_table,
    keypoints_to_table,
    poses_from_table,
    poses_to_table,
)
from mvpose.archive.video import prefetched, read_frames
from mvpose.errors import ResultsError
from mvpose.geometry.camera import CameraRig
from mvpose.models.detector import DetectorConfig, People, load_detector
from mvpose.pipeline.worker import EarlierFailure, Outcome
from mvpose.reconstruction.adjust import AdjustmentConfig, adjust_on_frames, frames_to_see
from mvpose.reconstruction.filters import FilterConfig, blocks, bone_lengths, filtered_block
from mvpose.reconstruction.identities import SPARE_PEOPLE, identify, tracklets_of
from mvpose.reconstruction.quality import Part, quality_of_parts
from mvpose.reconstruction.reconstruct import ReconstructionConfig, reconstruct
from mvpose.records import Capture, CapturePlan, Clip, Keypoints2D, Kind, Poses3D, Task
from mvpose.skeleton import Skeleton


@dataclass(frozen=True)
class PlanSource:
    """Where a worker finds the plan of a clip: in the run folder, so that no task carries a catalogue about."""

    run_uri: str
    plan_digest: str
    """Tells plans of one folder apart in a worker that outlives a replan."""

    def plan_of(self, task: Task) -> CapturePlan:
        """The plan of a task's capture."""
        return _plan(self, task.clip.capture_id)

    def commits(self, kind: Kind, task: Task) -> list[Commit]:
        """What an earlier stage made for the frames of a task, in order; EarlierFailure if it failed on all of them."""
        store = ClipStore(self.run_uri, kind)
        needed = [t for t in self.plan_of(task).tasks(kind) if kind.of_whole_captures or _within(t.clip, task.clip)]
        commits = [commit for t in needed if (commit := store.committed(t.clip, t.fingerprint))]
        if len(commits) < len(needed):
            raise ResultsError(
                f"{kind} of {task.clip.capture_id} went from {self.run_uri} while the job ran: is another job at work "
                "on this output? Run the same command again."
            )
        failures = [c.failure for c in commits if c.failure]
        if len(failures) == len(commits):
            raise EarlierFailure(failures[0])
        return [c for c in commits if not c.failure]

    def tables(self, kind: Kind, commits: Iterable[Commit]) -> Iterator[pa.Table]:
        """The tables of commits, each read when it is asked for: those of a whole capture do not fit in memory."""
        return map(ClipStore(self.run_uri, kind).read, commits)

    def committed(self, kind: Kind, task: Task) -> pa.Table:
        """The one table that an earlier stage made for a task: of its clip, or of its whole capture."""
        (table,) = self.tables(kind, self.commits(kind, task))
        return table

    def rig_of(self, task: Task, adjusted: bool) -> CameraRig:
        """The rig of a task's capture, as calibrated or as adjusted."""
        if not adjusted:
            return self.plan_of(task).capture.rig
        return rig_from_table(self.committed(Kind.RIGS, task))


def _within(clip: Clip, other: Clip) -> bool:
    return other.start <= clip.start and clip.stop <= other.stop


@lru_cache(maxsize=8)  # not all of them: a worker of a large archive would hold its whole catalogue
def _plan(source: PlanSource, capture_id: str) -> CapturePlan:
    return RunFolder(source.run_uri).plan_of(capture_id, source.plan_digest)


class DetectStage:
    """Footage to 2D joints. Frames live in this process only, a chunk of each view at a time."""

    def __init__(self, source: PlanSource, detector: DetectorConfig) -> None:
        self.source = source
        self.detector = load_detector(detector)
        self.skeleton = self.detector.skeleton

    def __call__(self, task: Task) -> Outcome:
        """2D joints of every person in every view and frame of the clip."""
        capture, clip = self.source.plan_of(task).capture, task.clip
        people: list[list[People]] = [[] for _ in capture.videos]
        seconds = {"decode_wait": 0.0, "detect": 0.0}
        decoding: list[float] = []
        start = time.perf_counter()
        for chunk in chunks_of_views(capture, clip, self.detector.chunk_frames, decoding):
            decoded = time.perf_counter()
            for view, found in zip(people, self.people(chunk, capture), strict=True):
                view.extend(found)
            detected = time.perf_counter()
            seconds["decode_wait"] += decoded - start
            seconds["detect"] += detected - decoded
            start = detected
        seconds["decode"] = sum(decoding)
        keypoints = stack_people(people, self.skeleton)
        return Outcome(keypoints_to_table(keypoints, info_of(capture, task, keypoints.skeleton)), seconds)

    def people(self, chunk: Sequence[np.ndarray], _capture: Capture) -> list[list[People]]:
        """Persons in consecutive frames of all views, by view and frame."""
        return self.detector(chunk)


class RigStage:
    """The adjusted rig of a capture, from the 2D joints of all its clips."""

    def __init__(self, source: PlanSource, adjustment: AdjustmentConfig) -> None:
        self.source, self.adjustment = source, adjustment

    def __call__(self, task: Task) -> Outcome:
        """The rig with adjusted extrinsics, and what the adjustment did."""
        start = time.perf_counter()
        commits = self.source.commits(Kind.KEYPOINTS, task)
        first, num_frames = commits[0].clip.start, commits[-1].clip.stop - commits[0].clip.start
        frames = frames_to_see(num_frames, self.adjustment)
        keypoints = sampled_keypoints(self.source.tables(Kind.KEYPOINTS, commits), first + frames)
        calibrated = self.source.plan_of(task).capture.rig
        rig, report = adjust_on_frames(keypoints, frames / num_frames, calibrated, self.adjustment)
        return Outcome(rig_to_table(rig, report.figures()), {"adjust": time.perf_counter() - start})


class TrackStage:
    """2D joints of a clip to 3D joints of everybody in it, as far as anybody can be among the wanted people."""

    def __init__(self, source: PlanSource, config: ReconstructionConfig, adjusted: bool) -> None:
        self.source, self.adjusted = source, adjusted
        self.config = replace(config, max_people=config.max_people + SPARE_PEOPLE)

    def __call__(self, task: Task) -> Outcome:
        """Tracks of the clip; a clip without keypoints fails for the same reason."""
        capture, start = self.source.plan_of(task).capture, time.perf_counter()
        keypoints, _ = keypoints_from_table(self.source.committed(Kind.KEYPOINTS, task))
        poses = reconstruct(keypoints, self.source.rig_of(task, self.adjusted), self.config, capture.fps)
        table = poses_to_table(poses, info_of(capture, task, poses.skeleton))
        return Outcome(table, {"reconstruct": time.perf_counter() - start})


class IdentityStage:
    """Who is who in a capture, and who is kept."""

    def __init__(self, source: PlanSource, config: ReconstructionConfig) -> None:
        self.source, self.config = source, config

    def __call__(self, task: Task) -> Outcome:
        """One row a track that is kept: clip, track in it, person."""
        start = time.perf_counter()
        tables = self.source.tables(Kind.TRACKS, self.source.commits(Kind.TRACKS, task))
        clips = (tracklets_of(poses, info.start) for poses, info in map(poses_from_table, tables))
        fps = self.source.plan_of(task).capture.fps
        people = identify(clips, fps, self.config.max_people, self.config.max_gap_s)
        return Outcome(identities_to_table(people), {"identify": time.perf_counter() - start})


class PoseStage:
    """Tracks of a clip to poses of the people of the capture."""

    def __init__(self, source: PlanSource) -> None:
        self.source = source

    def __call__(self, task: Task) -> Outcome:
        """The rows of the tracks that are kept, each under its person's number."""
        tracks, people = (self.source.committed(kind, task) for kind in (Kind.TRACKS, Kind.IDENTITIES))
        return Outcome(with_identities(tracks, identities_from_table(people)))


class FilterStage:
    """Raw poses of a whole capture to filtered ones, beside them: gaps and smoothing know no edges of clips."""

    def __init__(self, source: PlanSource, config: FilterConfig) -> None:
        self.source, self.config = source, config

    def __call__(self, task: Task) -> Outcome:
        """Filtered poses of everybody in the capture, with a flag for each value that is not a measured one."""
        start, capture = time.perf_counter(), self.source.plan_of(task).capture
        commits = self.source.commits(Kind.POSES, task)
        parts = blocks(capture.num_frames, capture.fps, self.config)
        lengths = bone_lengths(self._poses(commits), self.config)
        windows = pose_windows(self.source.tables(Kind.POSES, commits), [(part.first, part.last) for part in parts])

        def tables() -> Iterator[pa.Table]:
            for part, raw in zip(parts, windows, strict=True):
                made = filtered_block(raw, part, capture.fps, self.config, lengths)
                yield filtered_to_table(made, info_of(capture, task, raw.skeleton), part.start)

        return Outcome(table_file(tables()), {"filter": time.perf_counter() - start})

    def _poses(self, commits: Iterable[Commit]) -> Iterator[Poses3D]:
        return (poses for poses, _ in map(poses_from_table, self.source.tables(Kind.POSES, commits)))


class QualityStage:
    """Figures of merit of a whole capture."""

    def __init__(self, source: PlanSource, config: ReconstructionConfig, adjusted: bool) -> None:
        self.source, self.config, self.adjusted = source, config, adjusted

    def __call__(self, task: Task) -> Outcome:
        """One row a figure, over the clips that have poses."""
        start, capture = time.perf_counter(), self.source.plan_of(task).capture
        poses, rig = self.source.commits(Kind.POSES, task), self.source.rig_of(task, self.adjusted)
        reconstructed = {commit.clip for commit in poses}
        keypoints = [c for c in self.source.commits(Kind.KEYPOINTS, task) if c.clip in reconstructed]
        frames = (poses[0].clip.start, poses[-1].clip.stop)
        figures = quality_of_parts(self._parts(poses, keypoints), frames, rig, capture.fps, self.config).figures()
        table = figures_to_table(task.clip.capture_id, figures)
        return Outcome(table, {"quality": time.perf_counter() - start})

    def _parts(self, poses: Iterable[Commit], keypoints: Iterable[Commit]) -> Iterator[Part]:
        tables = self.source.tables(Kind.POSES, poses), self.source.tables(Kind.KEYPOINTS, keypoints)
        for of_poses, of_keypoints in zip(*tables, strict=True):
            made, info = poses_from_table(of_poses)
            yield Part(info.start, made, keypoints_from_table(of_keypoints)[0])


def stack_people(people: Sequence[Sequence[People]], skeleton: Skeleton) -> Keypoints2D:
    """What a detector found, by view and frame, as arrays with as many places as the fullest frame needs."""
    num_views, num_frames = len(people), len(people[0])
    most = max((len(found.score) for view in people for found in view), default=0)
    shape = (num_views, num_frames, most)
    keypoints = Keypoints2D(
        xy=np.full((*shape, len(skeleton.joints), 2), np.nan, np.float32),
        confidence=np.zeros((*shape, len(skeleton.joints)), np.float32),
        box=np.zeros((*shape, 4), np.float32),
        box_score=np.zeros(shape, np.float32),
        skeleton=skeleton,
    )
    for v, view in enumerate(people):
        for t, found in enumerate(view):
            p = slice(len(found.score))
            seen = found.confidence > 0
            keypoints.xy[v, t, p] = np.where(seen[..., None], found.xy, np.nan)
            keypoints.confidence[v, t, p] = np.where(seen, found.confidence, 0.0)
            keypoints.box[v, t, p], keypoints.box_score[v, t, p] = found.box, found.score
    return keypoints


def chunks_of_views(
    capture: Capture, clip: Clip, size: int, decoding: list[float] | None = None
) -> Iterator[list[np.ndarray]]:
    """Chunks of frames of all views, decoded ahead in one thread a view; `decoding` gets the seconds of each."""
    decoding = [] if decoding is None else decoding
    views = [
        prefetched(
            _timed(read_frames(v, clip.start + v.first_frame, clip.stop + v.first_frame, chunk=size), decoding), depth=1
        )
        for v in capture.videos
    ]
    for chunk in zip(*views, strict=True):
        yield list(chunk)


def _timed(chunks: Iterator[np.ndarray], seconds: list[float]) -> Iterator[np.ndarray]:
    while True:
        started = time.perf_counter()
        chunk = next(chunks, None)
        seconds.append(time.perf_counter() - started)
        if chunk is None:
            return
        yield chunk
        del chunk  # not kept while the next is waited for


def info_of(capture: Capture, task: Task, skeleton: Skeleton) -> TableInfo:
    """What a table of a task is about."""
    return TableInfo(
        capture_id=capture.capture_id,
        start=task.clip.start,
        stop=task.clip.stop,
        fps=capture.fps,
        cameras=capture.rig.names,
        skeleton=skeleton,
        fingerprint=task.fingerprint,
    )
