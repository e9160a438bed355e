"""The stage that detects people in footage: the only stage with a network, decoder and images."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from mvpose.confidence import AS_STATED, ConfidenceScale
from mvpose.footage.video.capture_frames import ViewFrames
from mvpose.models.detection.detector import load_detector, scale_of
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.models.detection.people import People
from mvpose.pipeline.detections import detections
from mvpose.pipeline.plan_source import PlanSource
from mvpose.pipeline.stages import info_of
from mvpose.pipeline.worker import Outcome
from mvpose.records import Keypoints2D, Task
from mvpose.run.pose_tables import keypoints_to_table
from mvpose.skeleton import Skeleton


class DetectStage:
    """Footage to 2D joints. Frames stay in this process, one chunk per view at a time."""

    as_decoded = True
    """Whether `refined` takes images as decoded, and not RGB alone."""

    def __init__(self, source: PlanSource, detector: DetectorConfig) -> None:
        self.source = source
        self.detector = load_detector(detector)
        self.skeleton, self.scale = self.detector.skeleton, scale_of(self.detector)

    def __call__(self, task: Task) -> Outcome:
        """2D joints of every person in every view and frame of the clip."""
        footage, fps = self.source.footage(task), self.source.clock(task).fps
        people: list[list[People]] = [[] for _ in footage.videos]
        start, seconds = time.perf_counter(), {}
        for chunk, found in detections(
            self.detector, footage.videos, task.clip, fps, as_decoded=self.as_decoded, seconds=seconds
        ):
            for view, own in zip(people, self.refined(chunk, found, task), strict=True):
                view.extend(own)
        seconds["detect"] = time.perf_counter() - start - seconds["decode_wait"]
        keypoints = self.stacked(people)
        info = info_of(task, footage.cameras, keypoints.skeleton)
        return Outcome(keypoints_to_table(keypoints, info), seconds)

    def refined(self, _chunk: Sequence[ViewFrames], found: list[list[People]], _task: Task) -> list[list[People]]:
        """The people detected in a chunk, by view and frame, as they go into the table."""
        return found

    def stacked(self, people: Sequence[Sequence[People]]) -> Keypoints2D:
        """The 2D joints of people by view and frame."""
        return stack_people(people, self.skeleton, self.scale)


def stack_people(
    people: Sequence[Sequence[People]], skeleton: Skeleton, scale: ConfidenceScale = AS_STATED
) -> Keypoints2D:
    """Detections by view and frame as arrays, padded to the largest number of people in a frame."""
    num_views, num_frames = len(people), len(people[0])
    maximum = max((len(found.score) for view in people for found in view), default=0)
    shape = (num_views, num_frames, maximum)
    keypoints = Keypoints2D(
        xy=np.full((*shape, len(skeleton.joints), 2), np.nan, np.float32),
        confidence=np.zeros((*shape, len(skeleton.joints)), np.float32),
        box=np.zeros((*shape, 4), np.float32),
        box_score=np.zeros(shape, np.float32),
        skeleton=skeleton,
        scale=scale,
    )
    for v, view in enumerate(people):
        for t, found in enumerate(view):
            p = slice(len(found.score))
            seen = found.confidence > 0
            keypoints.xy[v, t, p] = np.where(seen[..., None], found.xy, np.nan)
            keypoints.confidence[v, t, p] = np.where(seen, found.confidence, 0.0)
            keypoints.box[v, t, p], keypoints.box_score[v, t, p] = found.box, found.score
    return keypoints
