"""The stages of the job, each a callable from a task to its table. A worker makes one of them and keeps it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa

from mvpose.archive.rig_table import figures_to_table, rig_from_table, rig_to_table
from mvpose.archive.run_folder import RunFolder
from mvpose.archive.sequences import concatenated_keypoints, concatenated_poses
from mvpose.archive.store import ClipStore
from mvpose.archive.tables import TableInfo, keypoints_to_table, poses_to_table, table_info
from mvpose.archive.video import prefetched, read_frames
from mvpose.geometry.camera import CameraRig
from mvpose.models.detector import DetectorConfig, People, load_detector
from mvpose.pipeline.worker import Outcome
from mvpose.reconstruction.adjust import AdjustmentConfig, adjust_extrinsics
from mvpose.reconstruction.quality import quality
from mvpose.reconstruction.reconstruct import ReconstructionConfig, reconstruct
from mvpose.records import Capture, CapturePlan, Clip, ClipFailure, Keypoints2D, Task
from mvpose.skeleton import Skeleton


@dataclass(frozen=True)
class PlanSource:
    """Where a worker finds the plan of a clip: in the run folder, so that no task carries a catalogue about."""

    run_uri: str
    plan_digest: str
    """Tells plans of one folder apart in a worker that outlives a replan."""

    def plan_of(self, task: Task) -> CapturePlan:
        """The plan of a task's capture."""
        return _plans(self)[task.clip.capture_id]


@lru_cache(maxsize=1)
def _plans(source: PlanSource) -> Mapping[str, CapturePlan]:
    return {plan.capture.capture_id: plan for plan in RunFolder(source.run_uri).plans()}


class DetectStage:
    """Footage to 2D joints. Frames live in this process only, a chunk of each view at a time."""

    def __init__(self, source: PlanSource, detector: DetectorConfig) -> None:
        self.source = source
        self.detector = load_detector(detector)

    def __call__(self, task: Task) -> Outcome:
        """2D joints of every person in every view and frame of the clip."""
        capture, clip = self.source.plan_of(task).capture, task.clip
        people: list[list[People]] = [[] for _ in capture.videos]
        seconds = {"decode_wait": 0.0, "detect": 0.0}
        start = time.perf_counter()
        for chunk in _chunks(capture, clip, self.detector.chunk_frames):
            decoded = time.perf_counter()
            for view, found in zip(people, self.detector(chunk), strict=True):
                view.extend(found)
            detected = time.perf_counter()
            seconds["decode_wait"] += decoded - start
            seconds["detect"] += detected - decoded
            start = detected
        keypoints = stack_people(people, self.detector.skeleton)
        return Outcome(keypoints_to_table(keypoints, _info(capture, task, keypoints.skeleton)), seconds)


class RigStage:
    """The adjusted rig of a capture, from the 2D joints of all its clips."""

    def __init__(self, source: PlanSource, adjustment: AdjustmentConfig) -> None:
        self.source, self.adjustment = source, adjustment

    def __call__(self, task: Task) -> Outcome:
        """The rig with adjusted extrinsics, and what the adjustment did."""
        plan = self.source.plan_of(task)
        start = time.perf_counter()
        keypoints = _keypoints(self.source.run_uri, plan.keypoints)
        if isinstance(keypoints, ClipFailure):
            return Outcome(keypoints)
        rig, report = adjust_extrinsics(keypoints, plan.capture.rig, self.adjustment)
        return Outcome(rig_to_table(rig, report.figures()), {"adjust": time.perf_counter() - start})


class ReconstructStage:
    """2D joints of a clip to 3D joints."""

    def __init__(self, source: PlanSource, config: ReconstructionConfig, adjusted: bool) -> None:
        self.source, self.config, self.adjusted = source, config, adjusted

    def __call__(self, task: Task) -> Outcome:
        """3D joints of the people of the clip; a clip without keypoints fails for the same reason."""
        plan, start = self.source.plan_of(task), time.perf_counter()
        keypoints = _keypoints(self.source.run_uri, [t for t in plan.keypoints if t.clip == task.clip])
        if isinstance(keypoints, ClipFailure):
            return Outcome(keypoints)
        rig = _rig(self.source.run_uri, plan, self.adjusted)
        if isinstance(rig, ClipFailure):
            return Outcome(ClipFailure(task.clip, rig.stage, rig.reason, rig.detail))
        poses = reconstruct(keypoints, rig, self.config, plan.capture.fps)
        table = poses_to_table(poses, _info(plan.capture, task, poses.skeleton))
        return Outcome(table, {"reconstruct": time.perf_counter() - start})


class QualityStage:
    """Figures of merit of a whole capture."""

    def __init__(self, source: PlanSource, config: ReconstructionConfig, adjusted: bool) -> None:
        self.source, self.config, self.adjusted = source, config, adjusted

    def __call__(self, task: Task) -> Outcome:
        """One row a figure, over the clips that have poses."""
        plan, start = self.source.plan_of(task), time.perf_counter()
        tables = _committed(self.source.run_uri, "poses", plan.poses)
        rig = _rig(self.source.run_uri, plan, self.adjusted)
        if isinstance(tables, ClipFailure) or isinstance(rig, ClipFailure):
            return Outcome(tables if isinstance(tables, ClipFailure) else rig)
        reconstructed = {table_info(table).start for table in tables}
        keypoints = _keypoints(self.source.run_uri, [t for t in plan.keypoints if t.clip.start in reconstructed])
        assert isinstance(keypoints, Keypoints2D)
        figures = quality(concatenated_poses(tables), keypoints, rig, plan.capture.fps).figures()
        table = figures_to_table(task.clip.capture_id, figures)
        return Outcome(table, {"quality": time.perf_counter() - start})


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


def _chunks(capture: Capture, clip: Clip, size: int) -> Iterator[list[np.ndarray]]:
    """Chunks of frames of all views, decoded ahead in one thread a view."""
    views = [
        prefetched(read_frames(v, clip.start + v.first_frame, clip.stop + v.first_frame, chunk=size), depth=1)
        for v in capture.videos
    ]
    for chunk in zip(*views, strict=True):
        yield list(chunk)


def _info(capture: Capture, task: Task, skeleton: Skeleton) -> TableInfo:
    return TableInfo(
        capture_id=capture.capture_id,
        start=task.clip.start,
        stop=task.clip.stop,
        fps=capture.fps,
        cameras=capture.rig.names,
        skeleton=skeleton,
        fingerprint=task.fingerprint,
    )


def _keypoints(run_uri: str, tasks: Sequence[Task]) -> Keypoints2D | ClipFailure:
    """2D joints of the clips that have them, as one; if none has, the failure of the first."""
    tables = _committed(run_uri, "keypoints", tasks)
    return tables if isinstance(tables, ClipFailure) else concatenated_keypoints(tables)


def _rig(run_uri: str, plan: CapturePlan, adjusted: bool) -> CameraRig | ClipFailure:
    if not adjusted:
        return plan.capture.rig
    tables = _committed(run_uri, "rigs", [plan.rig])
    return tables if isinstance(tables, ClipFailure) else rig_from_table(tables[0])


def _committed(run_uri: str, kind: str, tasks: Sequence[Task]) -> list[pa.Table] | ClipFailure:
    """Tables that an earlier stage has committed for these tasks; if it has none, the first failure."""
    store = ClipStore(run_uri, kind)
    commits = [commit for t in tasks if (commit := store.committed(t.clip, t.fingerprint))]
    assert len(commits) == len(tasks), f"{kind} must be committed before this stage"
    return [store.read(c) for c in commits if not c.failure] or commits[0].failure or []
