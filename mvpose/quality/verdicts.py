"""Turn measurements of a capture into findings: the thresholds, the data behind each of them, and the wording."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from mvpose.geometry.camera import CameraRig
from mvpose.quality.camera_moves import Move
from mvpose.quality.findings import UNIT_FLAGS, CheckKind, Finding, Status, status_by, use_up
from mvpose.quality.sightings import Sightings
from mvpose.quality.swapped_names import Exchange
from mvpose.quality.synchronisation import CameraTiming
from mvpose.quality.world_frame import WorldFrame, degrees_from_up, nearest_axis

# Fractions of a person's height in the image, so thresholds hold for any resolution and distance. On the demo footage,
# the rotation of a camera is up to 1.3 % with the two good calibrations, 3.4 to 4.2 % with the one known to be off by
# 12 to 14 px, and 6.3 % or more for a camera deliberately rotated by 2 degrees.
TURN_WARN, TURN_FAIL = 0.02, 0.05
# Misfit of a camera that no rotation explains: up to 2.2 % on the demo footage, including detector noise.
MISFIT_WARN, MISFIT_FAIL = 0.035, 0.08
# Epipolar residual of a pair: up to 1.6 % for good calibrations, 4.9 % for the bad one; with exchanged names at least
# one pair has 11 %.
PAIR_WARN, PAIR_FAIL = 0.022, 0.08
# Fraction of the sampled frames that show a person.
SEEN_WARN = 0.2
# Fraction of the frames with people in two or more cameras in which two agree on one, and of the joints in three views
# on which three agree: 95 % or more of the frames on the demos and on 50 drawn takes, 2 to 15 % with a calibration in
# centimetres, 0 to 100 % with that of another rig.
AGREED_WARN = 0.5
# In frames. The demos' cameras are within 0.3 of each other; the offset of a camera 5 frames late is found to 0.3.
OFFSET_WARN, OFFSET_FAIL = 0.75, 2.0
# This fraction of the uncertainty is in favour of the camera. On 50 drawn takes in step, offsets reach 0.8 frames with
# an uncertainty of 1.7; true ones are found to 0.2 frames.
DOUBT = 0.25
# Difference between the offsets of parts of a capture: up to 0.9 for halves of the demos, 1.3 for thirds of 33 frames.
SPREAD_WARN, SPREAD_FAIL = 1.5, 3.0
# An exchange of names must explain more joints, by this fraction of what two cameras show. If at most one camera is off
# or late, an exchange that explains most joints gains nothing. A true one gains at least 0.06 (the outer two of three
# cameras side by side), otherwise 0.5. It must also explain most joints: true ones explain at least 62 %, even with
# another camera off; chance ones, in a rig with two faulty cameras, at most 59 %.
EXCHANGE_GAIN, EXCHANGE_EXPLAINS = 0.05, 0.6
# Minimum and maximum stature that pass, and the reference for reporting a wrong scale.
STATURE_M = (1.0, 2.2, 1.7)
# Feet below z = 0 fail only if they are below it in the median, too: somebody who goes down a step at times stands on
# the floor before.
# In the demos, feet are between 0.01 m below and 0.05 m above z = 0, and people are 1 to 13 degrees from +Z.
FLOOR_WARN_M, FLOOR_FAIL_M = 0.1, 0.3
TILT_WARN, TILT_FAIL = 30.0, 60.0
UPSIDE_DOWN = 120.0


def of_exchange(exchange: Exchange, rig: CameraRig) -> Finding:
    """Finding on two cameras with exchanged names."""
    one, other = (rig.names[v] for v in exchange.views)
    figures = {"explained_share": exchange.explained, "explained_exchanged_share": exchange.explained_exchanged}
    if not explains_more(exchange, len(rig)):
        said = "no exchange of two cameras explains more of the joints"
        return Finding(check=CheckKind.NAMES, status=Status.PASS, reason=said, figures=figures)
    return Finding(
        check=CheckKind.NAMES,
        status=Status.FAIL,
        reason=(
            f"{one} and {other} have each other's calibration (or footage): after exchanging them, the cameras explain "
            f"{exchange.explained_exchanged:.0%} of the joints instead of {exchange.explained:.0%}. Exchange their "
            "names in the calibration, or the names of their videos. The checks below assume the exchange"
        ),
        cameras=(one, other),
        figures=figures,
    )


def explains_more(exchange: Exchange, num_views: int) -> bool:
    """Whether exchanging the two cameras is so much better that their names must be wrong."""
    fair_share = exchange.explained_exchanged * 2 / num_views
    enough = exchange.explained_exchanged >= EXCHANGE_EXPLAINS
    return enough and exchange.explained_exchanged - exchange.explained > EXCHANGE_GAIN * fair_share


def of_pairs(residuals: Mapping[tuple[int, int], float], sightings: Sightings, rig: CameraRig) -> list[Finding]:
    """One finding per pair of cameras."""
    found = []
    for (one, other), residual in residuals.items():
        share = residual / float(sightings.person_px[[one, other]].mean())
        status = status_by(share, PAIR_WARN, PAIR_FAIL)
        reason = f"median {residual:.1f} px, {share:.1%} of a person's height"
        if math.isnan(share):
            reason = "they never show the same joint of the same person"
        found.append(
            Finding(
                check=CheckKind.EPIPOLAR,
                status=status,
                reason=reason,
                cameras=(rig.names[one], rig.names[other]),
                figures={"residual_px": residual, "residual_share": share},
                measured=not math.isnan(share),
            )
        )
    return found


def of_instants() -> Finding:
    """Finding on synchronisation for a capture without consecutive frames."""
    return Finding(
        check=CheckKind.SYNCHRONISATION,
        status=Status.PASS,
        reason="not measurable: the footage consists of single instants",
        measured=False,
    )


def of_timing(timing: CameraTiming, camera: str, fps: float) -> Finding:
    """Finding on the timing of a camera relative to the others, and on its stability.

    One odd stretch of several warns but does not fail: the whole take and the other stretches decide.
    """
    offset = timing.offset_frames
    finite = timing.run_offsets[timing.run_offsets.isfinite()]
    spread, trimmed_spread = _spread(finite), _trimmed_spread(finite)
    late = "late" if offset > 0 else "early"
    by_stretch = ", ".join("not measurable" if math.isnan(o) else f"{o:+.1f}" for o in timing.run_offsets.tolist())
    if trimmed_spread > SPREAD_WARN:
        status = status_by(trimmed_spread, SPREAD_WARN, SPREAD_FAIL)
        reason = (
            f"out of step by {by_stretch} frames in the sampled stretches: frames were dropped, or its frame rate "
            "differs from the others"
        )
    elif spread > SPREAD_WARN:
        status = Status.WARN
        reason = (
            f"one of {len(timing.run_offsets)} stretches disagrees with the others, which agree: {by_stretch} frames. "
            "Check that part of the videos for dropped frames"
        )
    elif timing.at_limit:
        status = Status.FAIL
        reason = (
            f"{abs(offset):.0f} frames {late} or more, the largest shift tested: correct its first_frame in "
            "capture.toml (of imported 2D joints: the numbers of its frames), and check that it is of this recording"
        )
    elif math.isnan(offset):
        status = Status.WARN
        reason = (
            "not measurable: people move too little, or are visible too briefly, to tell whether it is in step. Check "
            "a capture of the same cameras in which a person walks"
        )
    elif (
        status := status_by(abs(offset) - DOUBT * timing.uncertainty_frames, OFFSET_WARN, OFFSET_FAIL)
    ) == Status.PASS:
        reason = f"in step ({offset:+.2f} +/- {timing.uncertainty_frames:.2f} frames)"
    else:
        whose = "its" if offset > 0 else "every other camera's"
        reason = (
            f"{abs(offset):.1f} +/- {timing.uncertainty_frames:.2f} frames {late}: add {abs(round(offset))} "
            f"to {whose} first_frame in capture.toml (of imported 2D joints: renumber the frames in their files)"
        )
    return Finding(
        check=CheckKind.SYNCHRONISATION,
        status=status,
        reason=reason,
        cameras=(camera,),
        figures=timing.figures(spread, fps),
        measured=not math.isnan(offset) or spread > SPREAD_WARN,
    )


def _spread(offsets: Float[Tensor, " n"]) -> float:
    return float(offsets.max() - offsets.min()) if len(offsets) else 0.0


def _trimmed_spread(offsets: Float[Tensor, " n"]) -> float:
    """Spread without the offset farthest from the median. Of two offsets, neither can be excluded."""
    if len(offsets) < 3:
        return _spread(offsets)
    nearest = (offsets - offsets.quantile(0.5)).abs().argsort()[:-1]
    return _spread(offsets[nearest])


def of_sightings(sightings: Sightings, rig: CameraRig) -> Finding:
    """Finding on whether enough cameras see the same people for long enough."""
    seen = (sightings.weight > 0).any(dim=2)
    by_camera = seen.any(dim=1).double().mean(dim=0).tolist()
    together = float((seen.sum(dim=-1) >= 2).any(dim=1).double().mean())
    finite = ", ".join(f"{name} in {share:.0%}" for name, share in zip(rig.names, by_camera, strict=True))
    figures = {f"camera/{name}/frames_share": share for name, share in zip(rig.names, by_camera, strict=True)}
    return Finding(
        check=CheckKind.PEOPLE,
        status=Status.PASS if together >= SEEN_WARN and min(by_camera) >= SEEN_WARN else Status.WARN,
        reason=f"two or more cameras show a person in {together:.0%} of the frames ({finite})",
        cameras=tuple(name for name, share in zip(rig.names, by_camera, strict=True) if share < SEEN_WARN),
        figures={"frames_share": together, **figures},
    )


def of_move(move: Move | None, sightings: Sightings, after_s: float, rig: CameraRig) -> list[Finding]:
    """Finding on the camera that moved `after_s` seconds into the capture; none if none did."""
    if move is None:
        return []
    share = move.moved_px / float(sightings.person_px[move.view])
    return [
        Finding(
            check=CheckKind.MOVED,
            status=status_by(share, TURN_WARN, TURN_FAIL),
            reason=(
                f"moved while recording, about {after_s:.0f} s after the start, equivalent to a rotation of "
                f"{move.degrees:.1f} degrees, {move.moved_px:.0f} px or {share:.1%} of a person's height. Split the "
                "capture there and calibrate both parts, or leave out this camera. The checks below are of the longer "
                "part"
            ),
            cameras=(rig.names[move.view],),
            figures={"moved_degrees": move.degrees, "moved_px": move.moved_px, "moved_share": share},
        )
    ]


def of_calibration(found: Sequence[Finding], agreed: float, rig: CameraRig) -> list[Finding]:
    """Finding on a calibration that contradicts the footage as a whole: from the findings on its cameras and scale.

    `agreed` is the fraction of the frames with people in two or more cameras in which two agree on one. Most cameras
    cannot be wrong one by one, since each is compared with the others.
    """
    wrong = [f.cameras[0] for f in found if f.check == CheckKind.CAMERA and f.status == Status.FAIL]
    scale = next(f for f in found if f.check == CheckKind.SCALE)
    if 2 * len(wrong) > len(rig) and len(rig) > 2:
        said = f"{len(wrong)} of {len(rig)} cameras contradict each other"
    elif math.isnan(scale.figures["stature_m"]) and scale.measured:
        said = "no three cameras agree on a person"
    elif agreed < AGREED_WARN and scale.status != Status.FAIL:
        said = f"two cameras agree on a person in only {agreed:.0%} of the frames that show people in several"
    else:
        return []
    status = Status.WARN if not wrong and scale.status == Status.PASS else Status.FAIL
    reason = f"{said}: use the calibration that belongs to this recording, and check which video is of which camera"
    return [
        Finding(check=CheckKind.CALIBRATION, status=status, reason=reason, cameras=(), figures={"agreed_share": agreed})
    ]


def of_room(room: WorldFrame, rig: CameraRig) -> list[Finding]:
    """Findings on scale, up axis, floor and camera heights."""
    return [
        _of_stature(room.stature_m, room.agreed_share),
        _of_up(room),
        _of_floor(room.floor_m, room.usual_feet_m),
        _of_heights(room, rig),
    ]


def _of_stature(stature_m: float, agreed_share: float) -> Finding:
    figures = {"stature_m": stature_m}
    if math.isnan(stature_m) and not agreed_share < AGREED_WARN:
        reason = "not measurable: three cameras at once never saw the shin, thigh and trunk of a person"
        return Finding(check=CheckKind.SCALE, status=Status.WARN, reason=reason, figures=figures, measured=False)
    if math.isnan(stature_m):
        reason = (
            "no person could be measured: people, scale and cameras are inconsistent. Check that the calibration "
            f"belongs to this footage, and that its unit is right ({UNIT_FLAGS})"
        )
        return Finding(check=CheckKind.SCALE, status=Status.FAIL, reason=reason, figures=figures)
    if STATURE_M[0] <= stature_m <= STATURE_M[1]:
        return Finding(
            check=CheckKind.SCALE, status=Status.PASS, reason=f"people are {stature_m:.2f} m", figures=figures
        )
    reason = (
        f"people are {stature_m:.3g} m tall, outside {STATURE_M[0]:g} to {STATURE_M[1]:g} m: the scale is wrong by "
        f"a factor of about {stature_m / STATURE_M[2]:.2g}. Check the calibration's unit ({UNIT_FLAGS})"
    )
    return Finding(check=CheckKind.SCALE, status=Status.FAIL, reason=reason, figures=figures)


def _of_up(room: WorldFrame) -> Finding:
    people, cameras = degrees_from_up(room.body_up), degrees_from_up(room.cameras_up)
    figures = {"people_from_up_degrees": people, "cameras_from_up_degrees": cameras}
    axis = nearest_axis(room.body_up)
    if math.isnan(people):
        status, reason = Status.WARN, "not measurable: no ankles and shoulders were seen"
    elif people <= TILT_WARN:
        status, reason = Status.PASS, f"people are upright, {people:.0f} degrees from +Z"
    elif cameras <= TILT_FAIL:
        status = Status.WARN
        reason = f"people are {people:.0f} degrees from +Z but the cameras are upright: are people lying down?"
    elif people > UPSIDE_DOWN:
        status = Status.FAIL
        reason = (
            f"the floor is mirrored: heads are below feet ({people:.0f} degrees from +Z), and the cameras are also "
            f"upside down in the world. Its Z axis points down: if it was read with z up, {use_up(axis)}"
        )
    else:
        status = Status.FAIL
        reason = (
            f"people and cameras are upright along {axis}, {people:.0f} degrees from +Z: if it was read with z up, "
            f"{use_up(axis)}"
        )
    return Finding(
        check=CheckKind.UPRIGHT, status=status, reason=reason, figures=figures, measured=not math.isnan(people)
    )


def _of_floor(floor_m: float, usual_feet_m: float) -> Finding:
    """Finding on the height of feet. A wrong floor is wrong all the time; who goes down a step stands on it before."""
    status = status_by(abs(floor_m), FLOOR_WARN_M, FLOOR_FAIL_M)
    at_times = floor_m < 0 and usual_feet_m > -FLOOR_WARN_M
    where = "above" if floor_m > 0 else "below"
    reason = f"feet are {abs(floor_m):.2f} m {where} z = 0 (up to {FLOOR_WARN_M:g} m passes)"
    if status != Status.PASS and at_times:
        status = Status.WARN
        reason += (
            " at times, but not below it most of the time: do people go down steps, or is the origin on a platform?"
        )
    elif status != Status.PASS:
        reason += "; the calibration's origin is not on the floor, or its Z axis does not point up"
    if math.isnan(floor_m):
        reason = "not measurable: no feet were seen"
    measured, figures = not math.isnan(floor_m), {"floor_m": floor_m, "usual_feet_m": usual_feet_m}
    return Finding(check=CheckKind.FLOOR, status=status, reason=reason, figures=figures, measured=measured)


def _of_heights(room: WorldFrame, rig: CameraRig) -> Finding:
    """Finding on cameras below the feet: half of them or more means a wrong world; a few may be in a pit."""
    figures = {f"camera/{name}/height_m": h for name, h in zip(rig.names, room.camera_heights_m, strict=True)}
    below = tuple(name for name, h in zip(rig.names, room.camera_heights_m, strict=True) if h <= 0)
    if math.isnan(room.floor_m):
        reason = "not measurable: no feet were seen"
        return Finding(
            check=CheckKind.CAMERA_HEIGHT, status=Status.WARN, reason=reason, figures=figures, measured=False
        )
    if not below:
        reason = f"cameras are {min(room.camera_heights_m):.1f} to {max(room.camera_heights_m):.1f} m above the feet"
        return Finding(check=CheckKind.CAMERA_HEIGHT, status=Status.PASS, reason=reason, figures=figures)
    status = Status.FAIL if 2 * len(below) >= len(rig) else Status.WARN
    lowest = min(room.camera_heights_m)
    reason = f"{', '.join(below)} are below the feet, by up to {-lowest:.1f} m: the floor is mirrored or misplaced"
    return Finding(check=CheckKind.CAMERA_HEIGHT, status=status, reason=reason, cameras=below, figures=figures)
