"""Findings on the poses of a capture, from their figures of merit: the limits, and the data behind each of them.

All limits are shares, so they hold for any resolution and distance. See `mvpose benchmark verdicts` for how many
planted faults they find, and how many good takes they blame.
"""

from __future__ import annotations

import math

from mvpose.quality.findings import UNIT_FLAGS, CheckKind, Finding, Status, status_by
from mvpose.quality.quality import FASTEST_M_S
from mvpose.quality.quality_figures import Quality

# Error of left-out cameras over the person's size: 1.5 to 2.1 % on the demos, 3.4 to 4.3 % on 50 drawn takes, whose
# errors are independent from frame to frame; 10 to 25 % with two cameras exchanged.
LEFT_OUT_WARN, LEFT_OUT_FAIL = 0.06, 0.15
# Distance of lifted poses from the 2D joints over the person's size, in 40 clips of two seconds of other people (motion
# capture with the detector's errors, 5th to 95th percentile): 4.8 to 9.2 %, at most 10.8 %, with a residual lifter of
# 2,020 steps (132 to 210 mm relative to the root); 7 to 22 % after 202 steps (216 to 434 mm); 13 to 42 % after 66 (336
# to 665 mm). At 15 % joints are a third of a metre off.
LIFTED_WARN, LIFTED_FAIL = 0.1, 0.15
# Body joints that are not reconstructed: up to 8 % on the demos, 12 % on the drawn takes.
MISSING_WARN, MISSING_FAIL = 0.2, 0.7
# Share of the poses to which a camera contributes nothing.
UNUSED_WARN = 0.95
# Spread of bone lengths: 2 to 4 % on the demos, 9 to 24 % on the drawn takes.
SPREAD_WARN, SPREAD_FAIL = 0.25, 0.6
# Difference between left and right: up to 1.4 % on the demos, 1.7 % on the drawn takes.
ASYMMETRY_WARN, ASYMMETRY_FAIL = 0.06, 0.2
# Steps faster than a person: none on the demos, up to 0.3 % on the drawn takes, 2 to 5 % with a unit of ten times.
FAST_WARN, FAST_FAIL = 0.005, 0.05
# Fewer frames do not show whether lengths are constant.
MIN_FRAMES = 10


def pose_findings(quality: Quality, max_error: float, num_frames: int, missing_frames: int) -> list[Finding]:
    """Findings on the poses of a capture: reconstructed share, left-out cameras, views used, bone lengths, speed.

    `max_error` is the setting of the reconstruction, `num_frames` the frames that the figures are of, `missing_frames`
    those without a result because their clip failed.
    """
    if not quality.frames_share > 0:
        reason = "not measurable: nobody was reconstructed in any frame. Do two cameras ever see a person at once?"
        return [Finding(check=CheckKind.POSES, status=Status.WARN, reason=reason, measured=False)]
    if len(quality.cameras) == 1:
        lasting = round(num_frames * quality.frames_share)
        return [
            _of_poses(quality, missing_frames),
            _of_lifted(quality, max_error),
            _of_bones(quality, lasting),
            _of_speed(quality),
        ]
    return [
        _of_poses(quality, missing_frames),
        _of_left_out(quality, max_error),
        _of_views(quality),
        _of_bones(quality, round(num_frames * quality.frames_share)),
        _of_speed(quality),
    ]


def _of_lifted(quality: Quality, max_error: float) -> Finding:
    """Poses that a network lifted from one camera: whether they look as that camera shows people."""
    if math.isnan(quality.body_used.mean_px):
        reason = (
            "the poses that a network lifted from one camera match none of the 2D joints that they come from. Is the "
            "lifter trained, and for such people and cameras?"
        )
        return Finding(check=CheckKind.LEFT_OUT, status=Status.FAIL, reason=reason)
    share = quality.body_used.mean_px / (quality.error_limit_px / max_error)
    figures, status = {"lifted_share": share}, status_by(share, LIFTED_WARN, LIFTED_FAIL)
    if status != Status.PASS:
        reason = (
            f"the poses that a network lifted from one camera are {share:.1%} of a person's height from the 2D joints. "
            "Is the network trained, and for such people and cameras?"
        )
        return Finding(check=CheckKind.LEFT_OUT, status=status, reason=reason, figures=figures)
    reason = "not measurable: a network lifted the poses from one camera, and nothing checks their depth and size"
    return Finding(check=CheckKind.LEFT_OUT, status=Status.WARN, reason=reason, figures=figures, measured=False)


def _of_poses(quality: Quality, missing_frames: int) -> Finding:
    share = quality.body_reconstructed_share * quality.present_share
    missing = 1.0 - share
    status = status_by(missing, MISSING_WARN, MISSING_FAIL)
    reason = f"{share:.1%} of the body joints are reconstructed, between a person's first and last frame"
    if status != Status.PASS:
        reason += ": are people hidden, too small or outside the images of most cameras?"
    elif missing_frames:
        status, reason = Status.WARN, f"{missing_frames} frames have no result, because their clips failed"
    figures = {"missing_share": missing, "failed_frames": float(missing_frames)}
    return Finding(check=CheckKind.POSES, status=status, reason=reason, figures=figures)


def _of_left_out(quality: Quality, max_error: float) -> Finding:
    sizes_px = [limit / max_error for limit in quality.camera_error_limit_px]
    shares = [e.mean_px / size for e, size in zip(quality.camera_left_out, sizes_px, strict=True)]
    mean = quality.body_left_out.mean_px / (quality.error_limit_px / max_error)
    figures = {"left_out_share": mean} | {
        f"camera/{camera}/left_out_share": share for camera, share in zip(quality.cameras, shares, strict=True)
    }
    if math.isnan(mean):
        few = "two cameras" if len(quality.cameras) == 2 else "every joint was seen by fewer than three cameras"
        reason = f"not measurable: {few}, so that no camera can be compared with the others"
        return Finding(check=CheckKind.LEFT_OUT, status=Status.WARN, reason=reason, figures=figures, measured=False)
    worst = max((i for i, share in enumerate(shares) if not math.isnan(share)), key=lambda i: shares[i])
    status = status_by(mean, LEFT_OUT_WARN, LEFT_OUT_FAIL)
    reason = f"a camera is {mean:.1%} of a person's height from what the others reconstruct"
    if status != Status.PASS:
        reason += f" ({quality.cameras[worst]} {shares[worst]:.1%}): check its calibration with `mvpose check`"
    return Finding(
        check=CheckKind.LEFT_OUT,
        status=status,
        reason=reason,
        cameras=(quality.cameras[worst],) if status != Status.PASS else (),
        figures=figures,
    )


def _of_views(quality: Quality) -> Finding:
    unused = tuple(
        camera
        for camera, share in zip(quality.cameras, quality.camera_unused_frames_share, strict=True)
        if not share < UNUSED_WARN
    )
    figures = {"views_used": quality.body_views_used} | {
        f"camera/{camera}/used_share": 1.0 - share
        for camera, share in zip(quality.cameras, quality.camera_unused_frames_share, strict=True)
    }
    reason = f"{quality.body_views_used:.1f} of {len(quality.cameras)} cameras are used for a joint"
    if unused:
        reason = (
            f"used for less than {1 - UNUSED_WARN:.0%} of the poses: does it show the people, and is it calibrated?"
        )
    status = Status.WARN if unused else Status.PASS
    return Finding(check=CheckKind.VIEWS, status=status, reason=reason, cameras=unused, figures=figures)


def _of_bones(quality: Quality, num_frames: int) -> Finding:
    spread, asymmetry = quality.body_bone_spread, quality.body_asymmetry
    figures = {"bone_spread_share": spread, "bone_asymmetry_share": asymmetry}
    status = max(
        status_by(spread, SPREAD_WARN, SPREAD_FAIL),
        status_by(asymmetry, ASYMMETRY_WARN, ASYMMETRY_FAIL),
        key=list(Status).index,
    )
    reason = f"arms and legs vary by {spread:.1%} over time, and differ by {asymmetry:.1%} from left to right"
    if status != Status.PASS:
        reason += ": the poses are inaccurate. Are people mixed up, hidden or very small in the images?"
    measured = num_frames >= MIN_FRAMES and not math.isnan(spread) and not math.isnan(asymmetry)
    if not measured:
        reason = f"not measurable: {num_frames} frames with people, or too few of the joints of arms and legs"
    return Finding(check=CheckKind.BONES, status=status, reason=reason, figures=figures, measured=measured)


def _of_speed(quality: Quality) -> Finding:
    share = quality.too_fast_share
    status = status_by(share, FAST_WARN, FAST_FAIL)
    reason = f"{share:.2%} of the steps are faster than {FASTEST_M_S:g} m/s"
    if math.isnan(share):
        reason = "not measurable: no two successive frames show a person"
    elif status != Status.PASS:
        reason += f": check the frame rate (--catalogue.fps, or --fps of `mvpose import`) and the unit ({UNIT_FLAGS})"
    return Finding(
        check=CheckKind.SPEED,
        status=status,
        reason=reason,
        figures={"too_fast_share": share},
        measured=not math.isnan(share),
    )
