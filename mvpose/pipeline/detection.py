"""A detector on frames of a capture, of which views may lack some."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mvpose.archive.capture_frames import ViewFrames
from mvpose.models.detector import Detector, People


def detected(detector: Detector, chunk: Sequence[ViewFrames]) -> list[list[People]]:
    """What a detector finds, by view and frame; nobody in frames that a view lacks."""
    joints = np.zeros((0, len(detector.skeleton.joints), 2), np.float32)
    nobody = People(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), joints, joints[..., 0])
    found = [iter(people) for people in detector([view.pictures for view in chunk])]
    views = zip(found, chunk, strict=True)
    return [[next(own) if there else nobody for there in view.there] for own, view in views]
