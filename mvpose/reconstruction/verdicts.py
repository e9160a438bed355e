"""From what was measured of a capture to what is said of it: the limits, what set each of them, and the words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from mvpose.geometry.camera import CameraRig
from mvpose.reconstruction.camera_turns import Turn
from mvpose.reconstruction.findings import Check, Finding, Status, status_by
from mvpose.reconstruction.room import Room, degrees_from_up, nearest_axis
from mvpose.reconstruction.sightings import Sightings
from mvpose.reconstruction.swapped_names import Exchange
from mvpose.reconstruction.synchronisation import CameraTiming

# Shares of a person's height in the picture, so that limits hold for any resolution and distance. On the demo footage
# the turn of a camera is up to 1.3 % with the two good calibrations, 3.4 to 4.2 % with the one that is known to be 12
# to 14 px off, and 6.3 % and more for a camera turned by 2 degrees on purpose.
TURN_WARN, TURN_FAIL = 0.02, 0.05
# Misfit of a camera that no turn explains: up to 2.2 % on the demo footage, detector noise included.
MISFIT_WARN, MISFIT_FAIL = 0.035, 0.08
# Epipolar residual of a pair: good calibrations up to 1.6 %, the one that is off 4.9 %; with swapped names at least one
# pair has 11 %.
PAIR_WARN, PAIR_FAIL = 0.022, 0.08
# Share of the frames looked at in which somebody is shown.
SEEN_WARN = 0.2
# Frames. The demos' cameras are within 0.3 of each other, a camera 5 frames late is found to 0.3.
OFFSET_WARN, OFFSET_FAIL = 0.75, 2.0
# How far the offsets of parts of a capture lie apart; halves of the demos up to 0.9, thirds of 33 frames up to 1.3.
SPREAD_WARN, SPREAD_FAIL = 1.5, 3.0
# An exchange of names must explain more joints, by this share of what two cameras show. Where one camera is off or late
# at most, an exchange that explains most joints gains nothing; the least gain of a true one is 0.06 (the outer two of
# three cameras side by side), 0.5 otherwise. And it must explain most joints: true ones explain 62 % and more, also
# with another camera off, and chance ones in a rig with two faulty cameras 59 % at most.
EXCHANGE_GAIN, EXCHANGE_EXPLAINS = 0.05, 0.6
# Shortest and tallest that pass, and what a wrong scale is told against.
STATURE_M = (1.0, 2.2, 1.7)
# The demos have their feet between 0.01 m below and 0.05 m above z = 0, and people point 1 to 13 degrees from +Z.
FLOOR_WARN_M, FLOOR_FAIL_M = 0.1, 0.3
TILT_WARN, TILT_FAIL = 30.0, 60.0
UPSIDE_DOWN = 120.0


def of_exchange(exchange: Exchange, rig: CameraRig) -> Finding:
    """Whether two cameras have each other's name."""
    one, other = (rig.names[v] for v in exchange.views)
    figures = {"explained_share": exchange.explained, "explained_exchanged_share": exchange.explained_exchanged}
    if not explains_more(exchange, len(rig)):
        said = "no exchange of two cameras explains more of what they show"
        return Finding(check=Check.NAMES, status=Status.PASS, reason=said, figures=figures)
    return Finding(
        check=Check.NAMES,
        status=Status.FAIL,
        reason=(
            f"{one} and {other} have each other's calibration (or footage): exchanged, the cameras explain "
            f"{exchange.explained_exchanged:.0%} of the joints instead of {exchange.explained:.0%}. Exchange their "
            "names in the calibration, or the names of their videos; the checks below are made with them exchanged"
        ),
        cameras=(one, other),
        figures=figures,
    )


def explains_more(exchange: Exchange, num_views: int) -> bool:
    """Whether exchanging the two cameras is so much better that their names are wrong."""
    fair_share = exchange.explained_exchanged * 2 / num_views
    enough = exchange.explained_exchanged >= EXCHANGE_EXPLAINS
    return enough and exchange.explained_exchanged - exchange.explained > EXCHANGE_GAIN * fair_share


def of_pairs(residuals: Mapping[tuple[int, int], float], sightings: Sightings, rig: CameraRig) -> list[Finding]:
    """One finding for each pair of cameras."""
    found = []
    for (one, other), residual in residuals.items():
        share = residual / float(sightings.person_px[[one, other]].mean())
        status = status_by(share, PAIR_WARN, PAIR_FAIL)
        reason = f"{residual:.1f} px in the median, {share:.1%} of a person's height"
        if math.isnan(share):
            reason = "they never show the same joint of the same person"
        names = (rig.names[one], rig.names[other])
        figures = {"residual_px": residual, "residual_share": share}
        found.append(Finding(check=Check.EPIPOLAR, status=status, reason=reason, cameras=names, figures=figures))
    return found


def of_instants() -> Finding:
    """Of a capture without consecutive frames."""
    return Finding(
        check=Check.SYNCHRONISATION, status=Status.PASS, reason="not measurable here, and not judged: single instants"
    )


def of_timing(timing: CameraTiming, camera: str, fps: float) -> Finding:
    """Whether a camera is in step with the others, and stays so.

    One odd stretch of several warns and does not fail: the whole take and the other stretches decide.
    """
    offset = timing.offset_frames
    told = timing.run_offsets[timing.run_offsets.isfinite()]
    spread, spread_of_most = _spread(told), _spread_of_most(told)
    late = "late" if offset > 0 else "early"
    by_stretch = ", ".join("not measurable" if math.isnan(o) else f"{o:+.1f}" for o in timing.run_offsets.tolist())
    if spread_of_most > SPREAD_WARN:
        status = status_by(spread_of_most, SPREAD_WARN, SPREAD_FAIL)
        reason = (
            f"out of step by {by_stretch} frames in the stretches looked at: frames were dropped, or its frame rate is "
            "not that of the others"
        )
    elif spread > SPREAD_WARN:
        status = Status.WARN
        reason = (
            f"one stretch of {len(timing.run_offsets)} does not fit the others, which agree: {by_stretch} frames. Were "
            "frames dropped there? Look at that part of the videos"
        )
    elif timing.at_limit:
        status, reason = Status.FAIL, f"{abs(offset):.0f} frames {late} or more: the largest shift that was tried"
    elif math.isnan(offset):
        status = Status.WARN
        reason = (
            "not measurable here: people move too little, or are seen too briefly, to tell whether it is in step. Look "
            "at a capture of the same cameras in which somebody walks"
        )
    elif (status := status_by(abs(offset), OFFSET_WARN, OFFSET_FAIL)) == Status.PASS:
        reason = f"in step ({offset:+.2f} frames, give or take {timing.uncertainty_frames:.2f})"
    else:
        whose = "its" if offset > 0 else "every other camera's"
        reason = (
            f"{abs(offset):.1f} frames {late} (give or take {timing.uncertainty_frames:.2f}): add {abs(round(offset))} "
            f"to {whose} first_frame in capture.toml"
        )
    figures = {
        "offset_frames": offset,
        "uncertainty_frames": timing.uncertainty_frames,
        "offset_s": offset / fps,
        "offset_spread_frames": spread,
        "stretches": float(len(timing.run_offsets)),
        "stretches_measured": float(len(told)),
        "drift_frames": timing.drift_frames,
        "misfit_px": timing.misfit_px,
        "unshifted_misfit_px": timing.unshifted_px,
    }
    return Finding(check=Check.SYNCHRONISATION, status=status, reason=reason, cameras=(camera,), figures=figures)


def _spread(offsets: Float[Tensor, " n"]) -> float:
    return float(offsets.max() - offsets.min()) if len(offsets) else 0.0


def _spread_of_most(offsets: Float[Tensor, " n"]) -> float:
    """Without the one that is farthest from the median. Of two nobody can say which that is."""
    if len(offsets) < 3:
        return _spread(offsets)
    nearest = (offsets - offsets.quantile(0.5)).abs().argsort()[:-1]
    return _spread(offsets[nearest])


def of_sightings(sightings: Sightings, rig: CameraRig) -> Finding:
    """Whether people are seen by enough cameras for long enough."""
    seen = (sightings.weight > 0).any(dim=2)
    by_camera = seen.any(dim=1).double().mean(dim=0).tolist()
    together = float((seen.sum(dim=-1) >= 2).any(dim=1).double().mean())
    told = ", ".join(f"{name} in {share:.0%}" for name, share in zip(rig.names, by_camera, strict=True))
    figures = {f"camera/{name}/frames_share": share for name, share in zip(rig.names, by_camera, strict=True)}
    return Finding(
        check=Check.PEOPLE,
        status=Status.PASS if together >= SEEN_WARN and min(by_camera) >= SEEN_WARN else Status.WARN,
        reason=f"somebody is shown by two cameras or more in {together:.0%} of the frames ({told})",
        cameras=tuple(name for name, share in zip(rig.names, by_camera, strict=True) if share < SEEN_WARN),
        figures={"frames_share": together, **figures},
    )


def of_cameras(
    turns: Sequence[Turn], misfits_px: Sequence[float], sightings: Sightings, rig: CameraRig
) -> list[Finding]:
    """The cameras that are off by a turn, then the others, measured with those turned back."""
    turned = [turn.view for turn in turns]
    others = [view for view in range(len(rig)) if view not in turned]
    return [_of_turn(turn, sightings, rig.names[turn.view]) for turn in turns] + [
        _of_misfit(misfits_px[view], float(sightings.person_px[view]), rig.names[view], len(rig)) for view in others
    ]


def _of_turn(turn: Turn, sightings: Sightings, camera: str) -> Finding:
    share = turn.moved_px / float(sightings.person_px[turn.view])
    return Finding(
        check=Check.CAMERA,
        status=status_by(share, TURN_WARN, TURN_FAIL),
        reason=(
            f"off by as much as a turn of {turn.degrees:.1f} degrees, {turn.moved_px:.0f} px or {share:.1%} of a "
            f"person's height: turned back, it is {turn.mended_px:.1f} px from where the others say instead of "
            f"{turn.misfit_px:.1f}. Calibrate it anew, or use --adjust-extrinsics"
        ),
        cameras=(camera,),
        figures={
            "turn_degrees": turn.degrees,
            "turn_px": turn.moved_px,
            "turn_share": share,
            "misfit_px": turn.misfit_px,
            "mended_misfit_px": turn.mended_px,
        },
    )


def _of_misfit(misfit_px: float, person_px: float, camera: str, num_views: int) -> Finding:
    share = misfit_px / person_px
    status = status_by(share, MISFIT_WARN, MISFIT_FAIL)
    reason = f"{misfit_px:.1f} px from where the others say, {share:.1%} of a person's height"
    if math.isnan(share):
        reason = "shows nobody whom the others show"
    elif status != Status.PASS:
        alone = "; with two cameras nobody can say which is off" if num_views == 2 else ", and no turn of it mends that"
        reason += f"{alone}: check the calibration, lenses and the size of the pictures"
    figures = {"misfit_px": misfit_px, "misfit_share": share}
    return Finding(check=Check.CAMERA, status=status, reason=reason, cameras=(camera,), figures=figures)


def of_room(room: Room, rig: CameraRig) -> list[Finding]:
    """Scale, up, floor and heights of the cameras."""
    return [_of_stature(room.stature_m), _of_up(room), _of_floor(room.floor_m), _of_heights(room, rig)]


def _of_stature(stature_m: float) -> Finding:
    figures = {"stature_m": stature_m}
    if math.isnan(stature_m):
        reason = (
            "nobody could be measured: people, scale and cameras do not fit together. Is this calibration that of this "
            "footage, and is its unit what it is taken for (--catalogue.unit)?"
        )
        return Finding(check=Check.SCALE, status=Status.FAIL, reason=reason, figures=figures)
    if STATURE_M[0] <= stature_m <= STATURE_M[1]:
        return Finding(check=Check.SCALE, status=Status.PASS, reason=f"people are {stature_m:.2f} m", figures=figures)
    reason = (
        f"people are {stature_m:.3g} m tall, not {STATURE_M[0]:g} to {STATURE_M[1]:g}: the scale is off by a factor of "
        f"about {stature_m / STATURE_M[2]:.2g}. Check the unit of the calibration (--catalogue.unit)"
    )
    return Finding(check=Check.SCALE, status=Status.FAIL, reason=reason, figures=figures)


def _of_up(room: Room) -> Finding:
    people, cameras = degrees_from_up(room.body_up), degrees_from_up(room.cameras_up)
    figures = {"people_from_up_degrees": people, "cameras_from_up_degrees": cameras}
    axis = nearest_axis(room.body_up)
    if math.isnan(people):
        status, reason = Status.WARN, "nobody's ankles and shoulders were seen"
    elif people <= TILT_WARN:
        status, reason = Status.PASS, f"people point along +Z, {people:.0f} degrees off"
    elif cameras <= TILT_FAIL:
        status = Status.WARN
        reason = f"people are {people:.0f} degrees from +Z while the cameras are upright: do they lie or hang?"
    elif people > UPSIDE_DOWN:
        status = Status.FAIL
        reason = (
            f"the floor is mirrored: heads are below feet ({people:.0f} degrees from +Z), and the cameras are upside "
            f"down in the world too. Its Z axis points down: use --catalogue.up={axis} if it was read with z up"
        )
    else:
        status = Status.FAIL
        reason = (
            f"people and cameras point along {axis}, {people:.0f} degrees from +Z: use "
            f"--catalogue.up={axis} if it was read with z up"
        )
    return Finding(check=Check.UPRIGHT, status=status, reason=reason, figures=figures)


def _of_floor(floor_m: float) -> Finding:
    status = status_by(abs(floor_m), FLOOR_WARN_M, FLOOR_FAIL_M)
    where = "above" if floor_m > 0 else "below"
    reason = f"feet are {abs(floor_m):.2f} m {where} z = 0 (up to {FLOOR_WARN_M:g} m passes)"
    if status != Status.PASS:
        reason += "; the calibration's origin is not on the floor, or its Z axis is not up"
    if math.isnan(floor_m):
        reason = "nobody's feet were seen"
    return Finding(check=Check.FLOOR, status=status, reason=reason, figures={"floor_m": floor_m})


def _of_heights(room: Room, rig: CameraRig) -> Finding:
    """Cameras stand above the feet; half of them or more below is a wrong world, a few may stand in a pit."""
    figures = {f"camera/{name}/height_m": h for name, h in zip(rig.names, room.camera_heights_m, strict=True)}
    below = tuple(name for name, h in zip(rig.names, room.camera_heights_m, strict=True) if h <= 0)
    if math.isnan(room.floor_m):
        reason = "nobody's feet were seen"
        return Finding(check=Check.CAMERA_HEIGHT, status=Status.WARN, reason=reason, figures=figures)
    if not below:
        reason = f"cameras stand {min(room.camera_heights_m):.1f} to {max(room.camera_heights_m):.1f} m above the feet"
        return Finding(check=Check.CAMERA_HEIGHT, status=Status.PASS, reason=reason, figures=figures)
    status = Status.FAIL if 2 * len(below) >= len(rig) else Status.WARN
    lowest = min(room.camera_heights_m)
    reason = f"{', '.join(below)} stand below the feet, by up to {-lowest:.1f} m: the floor is mirrored or misplaced"
    return Finding(check=Check.CAMERA_HEIGHT, status=status, reason=reason, cameras=below, figures=figures)
