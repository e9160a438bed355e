"""Find a camera that lost or repeated frames in mid-take: it is in step until some moment, and out of step after it.

Every moment and shift is an account of what a camera shows; the one that brings its joints nearest to the positions
expected from the other cameras wins. All frames of a side count together, so this also finds what no single stretch is
long enough to measure. A camera that moved is shifted in the image, too, but only a shift in time explains how people
move: on both sides of the moment, constant differences are subtracted and the shift must still be the better account.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mvpose.geometry.camera import CameraRig
from mvpose.quality.findings import CheckKind, Finding, Status
from mvpose.quality.sightings import Expectation, Sightings, expectation, shifted_frames
from mvpose.quality.synchronisation import CameraTiming

# A smaller shift could also be one of all frames that is not quite measured.
LOST_MIN = 2
# Distances count up to this share of people's size: a joint on another person is not worse than one that is far off.
FAR = 0.1
# Fraction by which the account reduces a camera's distances, beyond what one shift of all frames does: 0.08 to 0.27 on
# 30 drawn takes that lost 8 frames, up to 0.02 on those in step and 0.06 with a camera 10 frames late or zoomed.
GAIN = 0.07
# The same out of step alone, with constant differences subtracted: 0.14 or more if frames were lost. Where a camera
# moved by 3 degrees, -0.2 or less: the shift that puts people in the right place moves them wrongly.
MOTION_GAIN = 0.05
# Sampled frames on either side of the moment.
MIN_FRAMES = 12
# Offsets of single stretches, where they are measured, agree with the account within this many frames.
AGREES = 1.5


@dataclass(frozen=True)
class LostFrames:
    """A camera that is out of step on one side of some moment."""

    view: int
    frames: int
    """How many frames it lost; negative if it stopped or repeated as many."""
    first: int
    """Position among the sampled frames of the first frame after the moment."""
    shift: int
    """The frames by which those out of step must be shifted."""
    after: bool
    """Whether it is out of step after the moment; otherwise before it."""
    gain: float
    """Fraction by which it reduces the camera's distances, beyond what one shift of all frames does."""
    misfit_px: float
    """Median distance from the position expected from the other cameras, out of step."""
    shifted_px: float
    """The same with the frames put back."""

    def side(self, num_frames: int) -> Bool[Tensor, " T"]:
        """The sampled frames that are out of step."""
        return (torch.arange(num_frames) >= self.first) == self.after


def lost_frames(
    sightings: Sightings, rig: CameraRig, timings: Sequence[CameraTiming], max_shift: int
) -> LostFrames | None:
    """The camera, moment and shift that explain the joints best; None if nothing is gained over a camera in step.

    The rig must be aligned. Each camera is compared with the others in step (`timings`). Of two cameras, the second is
    judged: only their difference is known. None if the stretches of the camera have more than two offsets: that is
    another frame rate.
    """
    always = torch.tensor([timing.offset_frames for timing in timings]).nan_to_num().round().long()
    accounts = []
    for view in range(1, 2) if len(rig) == 2 else range(len(rig)):
        others = always.clone()
        others[view] = 0
        seen = sightings.shifted(others[:, None].expand(-1, int(sightings.run.max()) + 1))
        account = _best_account(seen, rig, view, max_shift)
        if account.gain >= GAIN and _motion_gain(seen, rig, account) >= MOTION_GAIN:
            accounts.append(account)
    best = max(accounts, key=lambda account: account.gain, default=None)
    return best if best is not None and _agrees(best, sightings.run, timings[best.view].run_offsets) else None


def put_back(sightings: Sightings, lost: LostFrames) -> Sightings:
    """The same with the camera in step throughout; it shows nobody where it has no frame."""
    source, there = shifted_frames(sightings.run, lost.shift * lost.side(len(sightings.run)))
    ideal, weight = sightings.ideal.clone(), sightings.weight.clone()
    ideal[..., lost.view, :] = sightings.ideal[source][..., lost.view, :]
    weight[..., lost.view] = sightings.weight[source][..., lost.view] * there[:, None, None]
    return replace(sightings, ideal=ideal, weight=weight)


def of_lost_frames(lost: LostFrames, around_s: tuple[float, float], rig: CameraRig, fps: float) -> Finding:
    """Finding on the camera that lost frames between these two times, in seconds after the start."""
    count, (before_s, after_s) = abs(lost.frames), around_s
    what = f"lost {count} frames" if lost.frames > 0 else f"stopped for, or repeated, {count} frames"
    when = f"about {after_s:.0f} s after the start"
    if (after_s - before_s) * fps > 2 * count:
        when = f"between {before_s:.0f} and {after_s:.0f} s after the start (frames were dropped, or its rate differs)"
    other = f", or {rig.names[1 - lost.view]} did the opposite" if len(rig) == 2 else ""
    return Finding(
        check=CheckKind.SYNCHRONISATION,
        status=Status.FAIL,
        reason=(
            f"{what} {when}{other}: with these put back, it is {lost.shifted_px:.1f} px from the other cameras' "
            f"prediction instead of {lost.misfit_px:.1f} px. Split the capture there, and correct first_frame of the "
            "second part. The checks below assume it"
        ),
        cameras=(rig.names[lost.view],),
        figures={
            "lost_frames": float(lost.frames),
            "lost_gain": lost.gain,
            "misfit_px": lost.misfit_px,
            "shifted_misfit_px": lost.shifted_px,
        },
    )


def _best_account(sightings: Sightings, rig: CameraRig, view: int, max_shift: int) -> LostFrames:
    """The best moment of one view, with a shift before it and another after it.

    Frames whose shifted ones are not sampled speak neither for nor against a shift.
    """
    expected = expectation(sightings, rig, view)
    far_px = FAR * float(sightings.person_px[view])
    now, shown = _distances(sightings, expected, view, 0, far_px)
    shifts = torch.arange(-max_shift, max_shift + 1)
    saved = torch.zeros(len(now) + 1, len(shifts), dtype=torch.float64)
    for i, shift in enumerate(shifts.tolist()):
        then, there = _distances(sightings, expected, view, shift, far_px)
        saved[1:, i] = torch.where(shown & there, now - then, 0.0).sum(dim=(1, 2)).cumsum(dim=0)
    saved /= torch.where(shown, now, 0.0).sum().clamp_min(1e-9)
    moments = torch.arange(MIN_FRAMES, max(len(now) - MIN_FRAMES, MIN_FRAMES) + 1).clamp_max(len(now))
    gains = saved[moments, :, None] + (saved[-1] - saved[moments])[:, None, :]
    gains[:, (shifts[:, None] - shifts).abs() < LOST_MIN] = -torch.inf
    moment, before, after = (int(i) for i in torch.unravel_index(gains.argmax(), gains.shape))
    gain = float(gains[moment, before, after] - saved[-1].max())
    jump, late = int(shifts[after] - shifts[before]), bool(shifts[after].abs() > shifts[before].abs())
    lost = LostFrames(view, -jump, int(moments[moment]), jump if late else -jump, late, gain, 0.0, 0.0)
    misfits = [
        float(distance[there & lost.side(len(now))[:, None, None]].nanmedian())
        for distance, there in (_distances(sightings, expected, view, shift, float("inf")) for shift in (0, lost.shift))
    ]
    return replace(lost, misfit_px=misfits[0], shifted_px=misfits[1])


def _distances(
    sightings: Sightings, expected: Expectation, view: int, shift: int, far_px: float
) -> tuple[Float[Tensor, "T K J"], Bool[Tensor, "T K J"]]:
    """Distances of a view's joints from the expected ones, at most `far_px`, if it shows in each frame what it shows
    `shift` frames later; and where they are known."""
    source, there = shifted_frames(sightings.run, shift)
    known = expected.known & (sightings.weight[source][..., view] > 0) & there[:, None, None]
    return expected.offsets(sightings.ideal[source][..., view, :]).norm(dim=-1).clamp_max(far_px), known


def _motion_gain(sightings: Sightings, rig: CameraRig, lost: LostFrames) -> float:
    """Fraction by which the account reduces how far joints move from the expected ones, out of step."""
    side = lost.side(len(sightings.run))
    segment = 2 * sightings.run + side
    shifted = put_back(sightings, lost)
    expected = expectation(sightings, rig, lost.view)
    known = expected.known & (sightings.weight[..., lost.view] > 0) & (shifted.weight[..., lost.view] > 0)
    known &= side[:, None, None]
    far_px = FAR * float(sightings.person_px[lost.view])
    now, then = (
        _moving(expected.offsets(seen.ideal[..., lost.view, :]), known, segment).clamp_max(far_px).nansum()
        for seen in (sightings, shifted)
    )
    return float(1.0 - then / now)


def _moving(
    apart: Float[Tensor, "T K J 2"], known: Bool[Tensor, "T K J"], segment: Int[Tensor, " T"]
) -> Float[Tensor, "T K J"]:
    """Distance of each joint from its median offset in its segment; NaN where it is not known."""
    moving = torch.where(known[..., None], apart, torch.nan)
    for each in segment.unique():
        of_segment = moving[segment == each]
        moving[segment == each] = of_segment - of_segment.nanmedian(dim=0, keepdim=True).values
    return moving.norm(dim=-1)


def _agrees(lost: LostFrames, run: Int[Tensor, " T"], offsets: Float[Tensor, " R"]) -> bool:
    """Whether the offsets that stretches have by themselves are those of the account, but for the one of the moment."""
    side = lost.side(len(run))
    shares = torch.stack([side[run == r].double().mean() for r in range(len(offsets))])
    judged = offsets.isfinite() & ((shares == 0) | (shares == 1))
    return bool(((offsets - lost.shift * shares)[judged].abs() <= AGREES).all())
