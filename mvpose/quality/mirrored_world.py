"""Detect a calibration in a left-handed world: the rig is the mirror image of the real one.

Engines such as Unity and Unreal have left-handed axes. A calibration exported from them without a change of handedness
fits no footage, since no rotation maps a rig onto its mirror image; with one axis flipped, all cameras fit at once.
Videos that are all mirrored look the same: the joints of mirrored people are those of other people.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from mvpose.geometry.camera import CameraRig
from mvpose.geometry.rigid import Rigid
from mvpose.quality.findings import CheckKind, Finding, Status
from mvpose.quality.swapped_names import Exchange, Explained
from mvpose.records import Keypoints2D

AXES = "xyz"
# The cameras explain less than this share of the joints before an axis is flipped, and at least so much more with it.
# On 16 drawn takes, 0.00 to 0.33 before and 0.60 to 0.82 after; for other faults, no flip explains more by 0.15.
UNEXPLAINED, GAIN = 0.5, 0.25


@dataclass(frozen=True, eq=False)
class MirroredWorld:
    """The flip after which the cameras fit."""

    axis: int
    positions_only: bool
    """Whether only the cameras' positions are mirrored; otherwise their orientations are, too."""
    explained: float
    """Share of all joints that the other cameras explain, before."""
    explained_after: float
    rig: CameraRig


def mirrored_world(keypoints: Keypoints2D, rig: CameraRig, exchange: Exchange) -> MirroredWorld | None:
    """The flip of an axis after which the cameras explain far more joints than before; None for a rig of two.

    A flip is of the world's axis alone, which moves positions, or of the same axis of the world and of each camera. It
    must also explain more than the best exchange of two names: the mirror image of four cameras in a square nearly is
    the square with two of them exchanged (95 % of the joints, and 99 % with the flip).
    """
    before = exchange.explained
    if before >= UNEXPLAINED or len(rig) < 3:
        return None
    tried = [
        MirroredWorld(axis, alone, before, Explained.of(keypoints, flipped).share, flipped)
        for axis in range(3)
        for alone, flipped in ((False, flipped_rig(rig, axis)), (True, flipped_positions(rig, axis)))
    ]
    best = max(tried, key=lambda each: each.explained_after)
    return best if best.explained_after > max(before + GAIN, exchange.explained_exchanged) else None


def flipped_rig(rig: CameraRig, axis: int) -> CameraRig:
    """The mirror image of the rig: `axis` of the world and of every camera points the other way."""
    flip = _flip(rig, axis)
    pose = rig.camera_from_world
    return replace(rig, camera_from_world=Rigid(flip @ pose.rotation @ flip, pose.translation @ flip))


def flipped_positions(rig: CameraRig, axis: int) -> CameraRig:
    """The same orientations at mirrored positions."""
    rotation = rig.camera_from_world.rotation
    places = rig.centres_world @ _flip(rig, axis)
    return replace(rig, camera_from_world=Rigid(rotation, -(rotation @ places[..., None])[..., 0]))


def of_mirrored_world(found: MirroredWorld) -> Finding:
    """Finding on a calibration that is the mirror image of the real rig."""
    axis = AXES[found.axis]
    what = "the cameras' positions" if found.positions_only else "the world and of the cameras"
    return Finding(
        check=CheckKind.CALIBRATION,
        status=Status.FAIL,
        reason=(
            f"mirrored: with the {axis} axis of {what} flipped, the cameras explain {found.explained_after:.0%} of the "
            f"joints instead of {found.explained:.0%}. Either it was exported from a left-handed world: export it with "
            "right-handed axes; or all videos are mirrored: mirror them back (ffmpeg -vf hflip). The checks below "
            "assume the flip"
        ),
        figures={"explained_share": found.explained, "explained_after_share": found.explained_after},
    )


def _flip(rig: CameraRig, axis: int) -> torch.Tensor:
    flip = torch.eye(3).to(rig.camera_from_world.rotation)
    flip[axis, axis] = -1.0
    return flip
