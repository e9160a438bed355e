"""2D joints of another tool as the 2D stage of a run."""

from __future__ import annotations

import time

from mvpose.archive.keypoint_import import KeypointImport, keypoints_of
from mvpose.archive.tables import keypoints_to_table
from mvpose.pipeline.plan_source import PlanSource
from mvpose.pipeline.stages import info_of
from mvpose.pipeline.worker import Outcome
from mvpose.records import Task


class ImportStage:
    """Files of 2D joints to the table that a detector would have made of the footage."""

    def __init__(self, source: PlanSource, imported: KeypointImport) -> None:
        self.source, self.imported = source, imported

    def __call__(self, task: Task) -> Outcome:
        """2D joints of every person in every view and frame of the clip, as the files have them."""
        start, footage = time.perf_counter(), self.source.footage(task)
        first = footage.videos[0].first_frame
        sources = tuple((video.keypoints, video.stamp) for video in footage.videos)
        keypoints = keypoints_of(sources, self.imported, range(task.clip.start + first, task.clip.stop + first))
        table = keypoints_to_table(keypoints, info_of(task, footage.cameras, keypoints.skeleton))
        return Outcome(table, {"read": time.perf_counter() - start})
