"""Tell a camera that lost frames from one that moved: both fit before some moment, and not after it.

People who walk are shifted in the image by either. What explains the joints after that moment better decides: a shift
in time, or a rotation of the camera.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from mvpose.geometry.camera import CameraRig
from mvpose.quality.camera_moves import Move
from mvpose.quality.camera_turns import worst_turn
from mvpose.quality.findings import CheckKind, Finding, Status
from mvpose.quality.lost_frames import LOST_MIN
from mvpose.quality.sightings import Expectation, Sightings, expectation, shifted_frames

# Joints in the frames after the moment that a median needs: about five frames of a person.
MIN_OBSERVED = 60


@dataclass(frozen=True)
class LateAfterMove:
    """A camera that is out of step after some moment."""

    view: int
    frames: int
    """How many frames it lost; negative if it stopped or repeated as many."""
    misfit_px: float
    """Median distance from the position expected from the other cameras, after that moment."""
    shifted_px: float
    """The same with the frames put back."""


def late_after_move(sightings: Sightings, rig: CameraRig, move: Move, max_shift: int) -> LateAfterMove | None:
    """The shift in time that explains what looks like a move, better than any rotation does; None if there is none."""
    after = torch.arange(len(sightings.run)) >= move.first
    expected = expectation(sightings, rig, move.view)
    shifts = range(-max_shift, max_shift + 1)
    misfits = {shift: _misfit_px(sightings, expected, move.view, shift, after) for shift in shifts}
    best = min(misfits, key=lambda shift: misfits[shift])
    rotated = worst_turn(sightings.at(after.nonzero()[:, 0]), rig)[0]
    explained_px = rotated.corrected_px if rotated.view == move.view else misfits[0]
    if abs(best) < LOST_MIN or misfits[best] >= explained_px:
        return None
    return LateAfterMove(move.view, -best, misfits[0], misfits[best])


def of_late_after_move(lost: LateAfterMove, after_s: float, rig: CameraRig) -> Finding:
    """Finding on the camera that lost frames about `after_s` seconds into the capture."""
    what = "lost" if lost.frames > 0 else "stopped for, or repeated,"
    return Finding(
        check=CheckKind.SYNCHRONISATION,
        status=Status.FAIL,
        reason=(
            f"{what} {abs(lost.frames)} frames about {after_s:.0f} s after the start: with these put back, it is "
            f"{lost.shifted_px:.1f} px from the other cameras' prediction instead of {lost.misfit_px:.1f} px. Split "
            "the capture there, and correct first_frame of the second part. The checks below are of the longer part"
        ),
        cameras=(rig.names[lost.view],),
        figures={"lost_frames": float(lost.frames), "misfit_px": lost.misfit_px, "shifted_misfit_px": lost.shifted_px},
    )


def _misfit_px(sightings: Sightings, expected: Expectation, view: int, shift: int, after: Bool[Tensor, " T"]) -> float:
    """Median misfit of a view in some frames, if it shows in each what it shows `shift` frames later."""
    source, there = shifted_frames(sightings.run, shift)
    known = expected.known & (sightings.weight[source][..., view] > 0) & (there & after)[:, None, None]
    misfit = expected.offsets(sightings.ideal[source][..., view, :]).norm(dim=-1)[known]
    return float(misfit.median()) if len(misfit) >= MIN_OBSERVED else torch.inf
