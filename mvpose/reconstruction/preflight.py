"""What a few hundred frames say of a capture before compute is spent on it: read `preflight` from top to bottom.

Every fault is mended before the next is looked for, so that one fault is not reported as several: names are exchanged,
cameras shifted in time, then turned. The residuals of pairs are those before any shift or turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from mvpose.errors import ConfigError, NoPersonError
from mvpose.geometry.camera import CameraRig
from mvpose.reconstruction import verdicts
from mvpose.reconstruction.camera_turns import mended
from mvpose.reconstruction.findings import Check, Finding, Preflight, Status
from mvpose.reconstruction.room import measured_room
from mvpose.reconstruction.sightings import MIN_CONFIDENCE, median_misfits_px, pair_residuals_px, sighted
from mvpose.reconstruction.swapped_names import best_exchange, exchanged
from mvpose.reconstruction.synchronisation import synchronised
from mvpose.records import Keypoints2D, Video

# To the others a camera turned to the side looks up to 2 frames out of step, because they take people to walk
# elsewhere; the second pass looks at time with it turned back.
PASSES = 2
# Lengths that differ by more say that somebody pressed start or stop at another time.
LENGTHS_S = 0.5


@dataclass(frozen=True, kw_only=True)
class PreflightConfig:
    """What is looked at."""

    runs: int = 4
    """Stretches of time, evenly spread over the capture."""
    run_frames: int = 72
    """Consecutive frames of each."""
    max_shift: int = 24
    """Frames by which a camera may be early or late and still be found so; a run must be three times as long. Of a
    shorter capture it is a third."""

    def __post_init__(self) -> None:
        if self.runs < 1 or self.max_shift < 1 or self.run_frames < 3 * self.max_shift:
            raise ConfigError(
                f"{self.runs} runs of {self.run_frames} frames with shifts up to {self.max_shift}: give at least one "
                "run and one frame of shift, and runs three times as long as the largest shift"
            )


def sampled_runs(num_frames: int, config: PreflightConfig) -> list[range]:
    """Frames to look at: runs evenly spread, or the whole capture where it is not longer than all of them."""
    if num_frames <= config.runs * config.run_frames:
        return [range(num_frames)]
    starts = np.linspace(0, num_frames - config.run_frames, config.runs).round().astype(int)
    return [range(int(start), int(start) + config.run_frames) for start in starts]


def preflight(
    keypoints: Keypoints2D, frames: Int[np.ndarray, " T"], rig: CameraRig, fps: float, config: PreflightConfig
) -> Preflight:
    """Findings on people, names, synchronisation, cameras, scale and floor.

    `frames` are the positions on the capture's clock that `keypoints` tells of, rising; where they are consecutive they
    are one run. The rig is told in pixels of the decoded videos, one camera a view.
    """
    if len(keypoints.xy) != len(rig) or len(frames) != keypoints.xy.shape[1]:
        raise ValueError(
            f"2D joints of {keypoints.xy.shape[:2]} views and frames for {len(rig)} cameras and {len(frames)} frames"
        )
    run = np.cumsum(np.diff(frames, prepend=frames[:1]) > 1)
    try:
        found = _findings(keypoints, run, rig, fps, config)
    except NoPersonError as error:
        found = [Finding(check=Check.PEOPLE, status=Status.FAIL, reason=str(error))]
    return Preflight(tuple(found))


def footage_findings(videos: Sequence[Video], notes: Sequence[str]) -> tuple[Finding, ...]:
    """Lengths of the videos, and what the catalogue noted when it read them: rules that were used for sizes, units."""
    frames = {video.camera: video.stop for video in videos}
    apart_s = (max(frames.values()) - min(frames.values())) / videos[0].fps
    told = ", ".join(f"{camera} {count}" for camera, count in frames.items())
    reason = f"lengths differ by {apart_s:.2f} s ({told}): do all videos start at the same moment?"
    status = Status.WARN if apart_s > LENGTHS_S else Status.PASS
    lengths = Finding(
        check=Check.FOOTAGE,
        status=status,
        reason=reason if apart_s else f"all videos have {min(frames.values())} frames",
        figures={"length_difference_s": apart_s},
    )
    return lengths, *(Finding(check=Check.FOOTAGE, status=Status.PASS, reason=note) for note in notes)


def _findings(
    keypoints: Keypoints2D, run: Int[np.ndarray, " T"], rig: CameraRig, fps: float, config: PreflightConfig
) -> list[Finding]:
    _require_people(keypoints, rig)
    exchange = best_exchange(keypoints, rig)
    found = [verdicts.of_exchange(exchange, rig)]
    if verdicts.explains_more(exchange, len(rig)):
        rig = exchanged(rig, *exchange.views)
    people = sighted(keypoints, run, rig, fps)
    found += [verdicts.of_sightings(people, rig), *verdicts.of_pairs(pair_residuals_px(people.body, rig), people, rig)]
    mended_rig, limit = rig, min(config.max_shift, int(np.bincount(run).max()) // 3)
    for _ in range(PASSES):
        timings, shifts = synchronised(people.body, mended_rig, limit)
        in_step = people.shifted(shifts)
        turns, mended_rig = mended(in_step.body, rig, verdicts.TURN_WARN)
        if not turns:
            break
    if np.bincount(run).max() == 1:
        found.append(verdicts.of_instants())
    else:
        found += [verdicts.of_timing(timing, camera, fps) for camera, timing in zip(rig.names, timings, strict=True)]
    found += verdicts.of_cameras(turns, median_misfits_px(in_step.body, mended_rig).tolist(), in_step, rig)
    return found + verdicts.of_room(measured_room(in_step, mended_rig), rig)


def _require_people(keypoints: Keypoints2D, rig: CameraRig) -> None:
    sure = keypoints.confidence >= MIN_CONFIDENCE
    showing = [name for name, view in zip(rig.names, sure, strict=True) if view.any()]
    if len(showing) < 2:
        raise NoPersonError(f"people were found by {', '.join(showing) or 'none'} of {len(rig)} cameras")
