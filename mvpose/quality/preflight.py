"""Check a capture on a few hundred frames before computing on all of it; `preflight` shows the order of the checks.

Every fault is corrected before the next is searched for, so that one fault is not reported as several: names are
exchanged, or images mirrored or turned back, or the world is flipped, then cameras shifted in time and rotated, then
zoomed. If a camera moved, only the longer part of the capture is judged further. Residuals of pairs are from before any
shift or rotation. What no correction helps ends the checks: one video under two names, and cameras without depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from mvpose.errors import NoPersonError
from mvpose.geometry.camera import CameraRig
from mvpose.quality import verdicts
from mvpose.quality.camera_findings import of_cameras
from mvpose.quality.camera_moves import largest_move, longer_side
from mvpose.quality.camera_spacing import camera_spacing, of_spacing
from mvpose.quality.camera_turns import Turn, corrected, turned
from mvpose.quality.findings import CheckKind, Finding, Preflight, PreflightConfig, Status
from mvpose.quality.focal_lengths import of_focal, refocused, zoomed
from mvpose.quality.image_orientation import of_orientation, reorientation
from mvpose.quality.lost_frames import lost_frames, of_lost_frames, put_back
from mvpose.quality.mirrored_world import mirrored_world, of_mirrored_world
from mvpose.quality.moved_or_late import late_after_move, of_late_after_move
from mvpose.quality.pose_evidence import PoseEvidence, pose_evidence
from mvpose.quality.same_footage import of_same_footage, same_footage
from mvpose.quality.sightings import MIN_CONFIDENCE, Sightings, median_misfits_px, pair_residuals_px, sighted
from mvpose.quality.swapped_names import best_exchange, exchanged
from mvpose.quality.synchronisation import CameraTiming, synchronised
from mvpose.quality.world_frame import measured_world_frame
from mvpose.records import Keypoints2D, Video

# A camera rotated to the side looks up to 2 frames out of step, because the others expect people to walk elsewhere. The
# second pass measures timing with the rotation corrected.
PASSES = 2
# In a take of 60 frames, a moment and a shift fit too easily: a camera in step was taken for one that lost frames.
LONG_FRAMES = 120
# A larger difference in length means that a recording was started or stopped at another time.
LENGTHS_S = 0.5


def sampled_runs(num_frames: int, config: PreflightConfig) -> list[range]:
    """The sampled frames: runs spread evenly, or the whole capture if it is not longer than all runs together."""
    if num_frames <= config.runs * config.run_frames:
        return [range(num_frames)]
    starts = np.linspace(0, num_frames - config.run_frames, config.runs).round().astype(int)
    return [range(int(start), int(start) + config.run_frames) for start in starts]


def preflight(
    keypoints: Keypoints2D, frames: Int[np.ndarray, " T"], rig: CameraRig, fps: float, config: PreflightConfig
) -> Preflight:
    """Findings on people, names, synchronisation, cameras, scale and floor.

    `frames` are the ascending positions of `keypoints` on the capture's clock; consecutive ones form a run. The rig is
    in pixels of the decoded videos, one camera per view. With one camera only people can be found.
    """
    if len(keypoints.xy) != len(rig) or len(frames) != keypoints.xy.shape[1]:
        raise ValueError(
            f"2D joints have shape {keypoints.xy.shape[:2]} (views, frames); expected ({len(rig)}, {len(frames)})"
        )
    shown = np.any(keypoints.likelihood >= MIN_CONFIDENCE, axis=(2, 3))
    together = shown.sum(axis=0) >= 2
    if len(rig) == 1:
        return Preflight((_of_one_camera(shown),))
    try:
        _require_people(shown, rig)
        found = _findings(keypoints, frames, together, rig, fps, config)
    except NoPersonError as error:
        found = [Finding(check=CheckKind.PEOPLE, status=Status.FAIL, reason=str(error), measured=bool(together.any()))]
    return Preflight(tuple(found))


def footage_findings(videos: Sequence[Video], notes: Sequence[str]) -> tuple[Finding, ...]:
    """Findings on the lengths of the videos, and the catalogue's notes on them (rules applied for sizes, units)."""
    frames = {video.camera: video.stop for video in videos}
    apart_s = (max(frames.values()) - min(frames.values())) / videos[0].fps
    counts = ", ".join(f"{camera} {count}" for camera, count in frames.items())
    reason = f"lengths differ by {apart_s:.2f} s ({counts}): do all videos start at the same moment?"
    status = Status.WARN if apart_s > LENGTHS_S else Status.PASS
    lengths = Finding(
        check=CheckKind.FOOTAGE,
        status=status,
        reason=reason if apart_s else f"all videos have {min(frames.values())} frames",
        figures={"length_difference_s": apart_s},
    )
    return lengths, *(Finding(check=CheckKind.FOOTAGE, status=Status.PASS, reason=note) for note in notes)


def _findings(
    keypoints: Keypoints2D,
    frames: Int[np.ndarray, " T"],
    together: Bool[np.ndarray, " T"],
    rig: CameraRig,
    fps: float,
    config: PreflightConfig,
) -> list[Finding]:
    if pairs := same_footage(keypoints):
        return of_same_footage(pairs, rig)
    exchange = best_exchange(keypoints, rig)
    flipped = mirrored_world(keypoints, rig, exchange)
    found = [of_mirrored_world(flipped) if flipped else verdicts.of_exchange(exchange, rig)]
    if flipped:
        rig = flipped.rig
    elif verdicts.explains_more(exchange, len(rig)):
        rig = exchanged(rig, *exchange.views)
    elif (changed := reorientation(keypoints, rig, exchange.as_named)) is not None:
        found += of_orientation(changed, rig)
        keypoints, rig = changed.keypoints, changed.rig
    run = np.cumsum(np.diff(frames, prepend=frames[:1]) > 1)
    people = sighted(keypoints, run, rig, fps)
    agreed = float((people.weight > 0).any(dim=2).sum(dim=-1).ge(2).any(dim=1).numpy()[together].mean())
    spacing = of_spacing(camera_spacing(people.body, rig), rig)
    found += spacing
    if any(each.status == Status.FAIL for each in spacing):
        return found
    found += [verdicts.of_sightings(people, rig), *verdicts.of_pairs(pair_residuals_px(people.body, rig), people, rig)]
    aligned = _aligned(people, rig, config)
    for _ in rig.names if len(frames) >= LONG_FRAMES else ():
        lost = lost_frames(people.body, aligned.rig, aligned.timings, _max_shift(people, config))
        if lost is None:
            break
        around_s = (float(frames[lost.first - 1]) / fps, float(frames[lost.first]) / fps)
        found.append(of_lost_frames(lost, around_s, rig, fps))
        people = put_back(people, lost)
        aligned = _aligned(people, rig, config)
    zoom = refocused(aligned.people.body, aligned.rig)
    if zoom is not None:
        found += of_focal(zoom, rig)
        rig = zoomed(rig, zoom.view, zoom.factor)
        aligned = _aligned(people, rig, config)
    move = largest_move(aligned.people.body, rig, verdicts.TURN_WARN)
    if move is not None:
        after_s = float(frames[move.first]) / fps
        late = late_after_move(people.body, rig, move, config.max_shift)
        found += [of_late_after_move(late, after_s, rig)] if late else verdicts.of_move(move, people, after_s, rig)
        aligned = _aligned(people.at(longer_side(move, len(frames))), rig, config)
    if np.bincount(run).max() == 1:
        found.append(verdicts.of_instants())
    else:
        found += [verdicts.of_timing(t, camera, fps) for camera, t in zip(rig.names, aligned.timings, strict=True)]
    misfits_px = median_misfits_px(aligned.people.body, aligned.rig).tolist()
    evidence = [_evidence(aligned, view) for view in range(len(rig))]
    found += of_cameras(aligned.turns, misfits_px, evidence, aligned.people, rig)
    found += verdicts.of_room(measured_world_frame(aligned.people, aligned.rig), rig)
    return found + verdicts.of_calibration(found, agreed, rig)


@dataclass(frozen=True, eq=False)
class _Aligned:
    """People shifted in time, and the rig with its cameras rotated, until they fit."""

    people: Sightings
    rig: CameraRig
    timings: Sequence[CameraTiming]
    turns: Sequence[Turn]


def _aligned(people: Sightings, rig: CameraRig, config: PreflightConfig) -> _Aligned:
    corrected_rig, limit = rig, _max_shift(people, config)
    for _ in range(PASSES):
        timings, shifts = synchronised(people.body, corrected_rig, limit)
        in_step = people.shifted(shifts)
        turns, corrected_rig = corrected(in_step.body, rig, verdicts.TURN_WARN)
        if not turns:
            break
    return _Aligned(in_step, corrected_rig, timings, turns)


def _max_shift(people: Sightings, config: PreflightConfig) -> int:
    return min(config.max_shift, int(people.run.bincount().max()) // 3)


def _evidence(aligned: _Aligned, view: int) -> PoseEvidence:
    """How the misfit of a view is spread; of a misaligned one, with only the others corrected."""
    for turn in aligned.turns:
        if turn.view == view:
            uncorrected = turned(aligned.rig, view, turn.rotation.T)
            return pose_evidence(aligned.people.body, uncorrected, view, verdicts.TURN_WARN)
    return pose_evidence(aligned.people.body, aligned.rig, view, verdicts.MISFIT_WARN)


def _of_one_camera(shown: Bool[np.ndarray, "1 T"]) -> Finding:
    """Whether the only camera shows people: nothing else can be checked without another."""
    share = float(shown.mean())
    reason = f"people in {share:.0%} of the frames; one camera: names, synchronisation and calibration are not checked"
    status = Status.PASS if share else Status.FAIL
    return Finding(check=CheckKind.PEOPLE, status=status, reason=reason, figures={"shown_share": share})


def _require_people(shown: Bool[np.ndarray, "V T"], rig: CameraRig) -> None:
    showing = [name for name, view in zip(rig.names, shown, strict=True) if view.any()]
    if len(showing) < 2:
        raise NoPersonError(f"people were found by {', '.join(showing) or 'none'} of {len(rig)} cameras")
