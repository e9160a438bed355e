"""Detect a camera whose images are mirrored or turned against its calibration.

Programs for webcams and telephones mirror what their front camera records, and a camera that hangs upside down may turn
its images or not: nothing in the file tells. Its joints then fit nowhere, as those of a wrong calibration; but undone,
they fit as well as the other cameras' do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mvpose.geometry.camera import CameraRig
from mvpose.geometry.image_turns import image_turned
from mvpose.quality.findings import CheckKind, Finding, Status
from mvpose.quality.swapped_names import Explained
from mvpose.records import Keypoints2D

# Of a camera's joints, the others explain less than this share before a change of its images is tried: at most 0.31 of
# one that is mirrored or upside down on 8 drawn takes and the demos. They explain 0.49 or more of a healthy one (0.49
# where a bystander is seen by two cameras only).
UNEXPLAINED = 0.5
# After it, they explain at least this share of them, and all cameras more than before by this share of one camera's:
# 0.49 and 0.52 or more for true ones.
EXPLAINS, GAIN = 0.4, 0.3


@dataclass(frozen=True, eq=False)
class Reorientation:
    """The change of a camera's images after which all cameras fit, with the joints and the rig after it."""

    view: int
    quarter_turns: int
    """From the calibrated image to the video's, clockwise; 0 if the image is mirrored."""
    explained: float
    """Share of all cameras' joints that the others explain, before."""
    explained_after: float
    keypoints: Keypoints2D
    rig: CameraRig


def reorientation(keypoints: Keypoints2D, rig: CameraRig, before: Explained) -> Reorientation | None:
    """The one camera whose images fit only when mirrored or turned; None if there is none, and for a rig of two.

    `before` is what the cameras explain as they are. Quarter turns are tried for square images alone: others would have
    another size than the calibration's.
    """
    if len(rig) < 3:
        return None
    tried = []
    for view in np.flatnonzero(before.shares < UNEXPLAINED).tolist():
        width, height = rig.size[view].tolist()
        for turns in (0, 1, 2, 3) if width == height else (0, 2):
            fitted = image_turned(rig, view, turns)
            joints = keypoints if turns else mirrored(keypoints, view, width)
            after = Explained.of(joints, fitted)
            gained = (after.joints.sum() - before.joints.sum()) / before.shown[view]
            if after.shares[view] >= EXPLAINS and gained >= GAIN:
                tried.append(Reorientation(view, turns, before.share, after.share, joints, fitted))
    return max(tried, key=lambda each: each.explained_after, default=None)


def mirrored(keypoints: Keypoints2D, view: int, width: int) -> Keypoints2D:
    """The joints that a detector finds in one view's mirrored images: left and right are exchanged, too."""
    flip = list(keypoints.skeleton.mirror)
    xy, confidence, box = keypoints.xy.copy(), keypoints.confidence.copy(), keypoints.box.copy()
    xy[view] = keypoints.xy[view][..., flip, :]
    xy[view, ..., 0] = width - 1 - xy[view, ..., 0]
    confidence[view] = keypoints.confidence[view][..., flip]
    there = keypoints.box_score[view] > 0
    box[view, there, 0], box[view, there, 2] = (width - 1 - keypoints.box[view, there, side] for side in (2, 0))
    return replace(keypoints, xy=xy, confidence=confidence, box=box)


def of_orientation(found: Reorientation | None, rig: CameraRig) -> list[Finding]:
    """Finding on the camera whose images are mirrored or turned; none if none are."""
    if found is None:
        return []
    if found.quarter_turns:
        degrees = 90 * found.quarter_turns
        what = f"turned by {degrees} degrees"
        remedy = f'Set its image_fit to "turn_{degrees}" in capture.toml (or to "turn_0" if that stands there)'
    else:
        what, remedy = "mirrored", "Mirror its video back (ffmpeg -vf hflip)"
    return [
        Finding(
            check=CheckKind.ORIENTATION,
            status=Status.FAIL,
            reason=(
                f"its images are {what} against its calibration: with that undone, the cameras explain "
                f"{found.explained_after:.0%} of the joints instead of {found.explained:.0%}. {remedy}. The checks "
                "below assume it"
            ),
            cameras=(rig.names[found.view],),
            figures={"explained_share": found.explained, "explained_after_share": found.explained_after},
        )
    ]
