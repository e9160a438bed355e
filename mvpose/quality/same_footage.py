"""Detect one video under two cameras' names: their 2D joints are equal to the pixel, which two cameras never show.

No geometry is needed, and none helps: one of the two has a calibration that is not of its video, and spoils the
reference of all others.
"""

from __future__ import annotations

import itertools

import numpy as np

from mvpose.geometry.camera import CameraRig
from mvpose.quality.findings import CheckKind, Finding, Status
from mvpose.quality.sightings import MIN_CONFIDENCE
from mvpose.records import Keypoints2D

# Half a pixel leaves room for a detector whose sums depend on the batch. In two cameras of 50 drawn takes, the median
# joint is 32 px apart or more.
SAME_PX = 0.5
# Joints that both show, about five frames of a person.
MIN_JOINTS = 60


def same_footage(keypoints: Keypoints2D) -> list[tuple[int, int]]:
    """Pairs of views that show the same images."""
    return [
        (one, other)
        for one, other in itertools.combinations(range(len(keypoints.xy)), 2)
        if median_apart_px(keypoints, one, other) <= SAME_PX
    ]


def median_apart_px(keypoints: Keypoints2D, one: int, other: int) -> float:
    """Median distance in pixels of the joints that two views show of their k-th person; infinite if they are few."""
    shown = keypoints.likelihood[[one, other]] >= MIN_CONFIDENCE
    both = shown.all(axis=0)
    if both.sum() < max(MIN_JOINTS, shown.any(axis=0).sum() / 2):
        return float("inf")
    return float(np.median(np.linalg.norm(keypoints.xy[one] - keypoints.xy[other], axis=-1)[both]))


def of_same_footage(pairs: list[tuple[int, int]], rig: CameraRig) -> list[Finding]:
    """One finding per pair of cameras with the same video; none if there is none."""
    return [
        Finding(
            check=CheckKind.SAME_FOOTAGE,
            status=Status.FAIL,
            reason=(
                "show the same images, to the pixel: the video of one of them was stored under the name of the other, "
                "too. Give each camera its own video, or leave out the one whose video is missing. The other checks "
                "were not made"
            ),
            cameras=(rig.names[one], rig.names[other]),
        )
        for one, other in pairs
    ]
