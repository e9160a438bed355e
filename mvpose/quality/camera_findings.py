"""Findings on the poses of cameras: misaligned ones, and those that no rotation corrects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from mvpose.geometry.camera import CameraRig
from mvpose.quality.camera_turns import Turn
from mvpose.quality.findings import CheckKind, Finding, Status, status_by
from mvpose.quality.pose_evidence import PoseEvidence
from mvpose.quality.sightings import Sightings
from mvpose.quality.verdicts import MISFIT_FAIL, MISFIT_WARN, TURN_FAIL, TURN_WARN

# Advice for a camera whose misfit does not speak for its calibration.
OTHERWISE = "Look at this camera's frames before you recalibrate"


def of_cameras(
    turns: Sequence[Turn],
    misfits_px: Sequence[float],
    evidence: Sequence[PoseEvidence],
    sightings: Sightings,
    rig: CameraRig,
) -> list[Finding]:
    """Findings on the misaligned cameras, then on the others, worst first, measured with the former corrected."""
    turned = [turn.view for turn in turns]
    shares = {view: misfits_px[view] / float(sightings.person_px[view]) for view in range(len(rig))}
    others = sorted((v for v in shares if v not in turned), key=lambda v: -shares[v] if shares[v] == shares[v] else 0.0)
    found = [_of_turn(turn, evidence[turn.view], sightings, rig.names[turn.view]) for turn in turns]
    found += [_of_misfit(misfits_px[v], evidence[v], shares[v], rig.names[v], len(rig)) for v in others]
    off = [rig.names[v] for v in others if shares[v] > MISFIT_WARN]
    return [replace(each, reason=each.reason + _in_doubt(each.cameras[0], off)) for each in found]


def _in_doubt(camera: str, off: Sequence[str]) -> str:
    """One camera with wrong joints or a wrong calibration spoils what is expected of the others."""
    alike = [name for name in off if name != camera]
    if camera not in off or not alike:
        return ""
    are = "is" if len(alike) == 1 else "are"
    return f". {', '.join(alike)} {are} off, too: one of these cameras may spoil what is expected of the others"


def _of_turn(turn: Turn, evidence: PoseEvidence, sightings: Sightings, camera: str) -> Finding:
    advice = OTHERWISE if evidence.of_detections else "Recalibrate it, or use --adjust-extrinsics"
    share = turn.moved_px / float(sightings.person_px[turn.view])
    return Finding(
        check=CheckKind.CAMERA,
        status=_as_evident(status_by(share, TURN_WARN, TURN_FAIL), evidence),
        reason=(
            f"misaligned, equivalent to a rotation of {turn.degrees:.1f} degrees, {turn.moved_px:.0f} px or "
            f"{share:.1%} of a person's height. Correcting it reduces the distance from the other cameras' prediction "
            f"from {turn.misfit_px:.1f} to {turn.corrected_px:.1f} px; {evidence}. {advice}"
        ),
        cameras=(camera,),
        figures={
            "turn_degrees": turn.degrees,
            "turn_px": turn.moved_px,
            "turn_share": share,
            "misfit_px": turn.misfit_px,
            "mended_misfit_px": turn.corrected_px,
            **evidence.figures(),
        },
    )


def _as_evident(status: Status, evidence: PoseEvidence) -> Status:
    """A camera with wrongly detected joints does not fail."""
    return Status.WARN if status == Status.FAIL and evidence.of_detections else status


def _of_misfit(misfit_px: float, evidence: PoseEvidence, share: float, camera: str, num_views: int) -> Finding:
    status = _as_evident(status_by(share, MISFIT_WARN, MISFIT_FAIL), evidence)
    reason = f"{misfit_px:.1f} px from the other cameras' prediction, {share:.1%} of a person's height"
    if math.isnan(share):
        reason = "shows none of the people that the others show"
    elif status != Status.PASS:
        alone = "; with two cameras it is unknown which is wrong" if num_views == 2 else ", and no rotation corrects it"
        check = "Check the calibration, the lenses and the image size"
        reason += f"{alone}; {evidence}. {OTHERWISE if evidence.of_detections else check}"
    figures = {"misfit_px": misfit_px, "misfit_share": share, **evidence.figures()}
    return Finding(check=CheckKind.CAMERA, status=status, reason=reason, cameras=(camera,), figures=figures)
