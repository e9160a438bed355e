"""Verdicts: the cause decides, and what could not be measured never counts as good."""

from dataclasses import replace

import numpy as np
import pytest

from mvpose import scenes
from mvpose.benchmarks.planted_faults import CalibratedTake, faults
from mvpose.benchmarks.verdicts_on_faults import take_findings
from mvpose.quality.findings import CheckKind, Finding, Status
from mvpose.quality.judgement import Grade, ranked, verdict_of
from mvpose.quality.pose_findings import pose_findings
from mvpose.quality.quality import quality
from mvpose.reconstruction.clip import reconstruct
from mvpose.reconstruction.reconstruction_settings import ReconstructionConfig
from tests.reconstruction.faults import of_views


def finding(check: CheckKind, status: Status, measured: bool = True, cameras: tuple[str, ...] = ()) -> Finding:
    return Finding(check=check, status=status, reason=f"because of {check}", measured=measured, cameras=cameras)


def test_the_cause_decides_and_camera_pairs_do_not():
    """Fails if the order of causes is lost, or if pairs are judged."""
    found = [
        finding(CheckKind.LEFT_OUT, Status.FAIL),
        finding(CheckKind.NAMES, Status.FAIL, cameras=("a", "b")),
        finding(CheckKind.EPIPOLAR, Status.FAIL),
    ]
    assert str(verdict_of(found)) == "bad: camera names a, b: because of camera names"
    assert verdict_of([finding(CheckKind.EPIPOLAR, Status.FAIL), finding(CheckKind.FLOOR, Status.PASS)]).reason == ""


@pytest.mark.parametrize("status", list(Status))
def test_what_was_not_measured_is_usable_whatever_its_status(status):
    """Fails if a pass, a warning or a failure without a measurement counts as such."""
    found = [finding(CheckKind.FLOOR, Status.PASS), finding(CheckKind.SYNCHRONISATION, status, measured=False)]
    assert verdict_of(found).grade == Grade.USABLE
    assert verdict_of([]).grade == Grade.USABLE


@pytest.fixture(scope="module")
def walk() -> CalibratedTake:
    scene = scenes.ring4(num_frames=60)
    return CalibratedTake("walk", scene.keypoints(), scene.rig, scene.fps)


def test_a_take_without_fault_is_good_and_two_of_its_cameras_are_not(walk):
    """Fails if the left-out camera, which two cameras cannot give, counts as good."""
    assert verdict_of(take_findings(walk, ReconstructionConfig())).grade == Grade.GOOD
    pair = CalibratedTake("pair", of_views(walk.keypoints, [0, 1]), walk.rig.select(walk.rig.names[:2]), walk.fps)
    verdict = verdict_of(take_findings(pair, ReconstructionConfig()))
    assert verdict.grade == Grade.USABLE and "not measurable: two cameras" in verdict.reason


@pytest.mark.parametrize(
    ("shift_m", "status", "measured"),
    [(0.0, Status.WARN, False), (0.2, Status.WARN, True), (0.4, Status.FAIL, True), (9.0, Status.FAIL, True)],
)
def test_lifted_poses_are_bad_where_their_camera_does_not_show_them_and_usable_otherwise(
    walk, shift_m, status, measured
):
    """Sideways. Fails without a limit, if poses that fit badly are left out of their own error, or if poses that match
    no 2D joint, which have no error at all, count as not measurable."""
    config = ReconstructionConfig()
    whole = reconstruct(walk.keypoints, walk.rig, config, walk.fps)
    keypoints, rig = of_views(walk.keypoints, [0]), walk.rig.select(walk.rig.names[:1])
    sideways = rig.camera_from_world.rotation[0, 0].float().numpy()
    poses = replace(whole, xyz=whole.xyz + shift_m * sideways, views_used=whole.views_used[..., :1])
    findings = pose_findings(quality(poses, keypoints, rig, walk.fps, config), config.max_error, 60, 0)
    (found,) = (each for each in findings if each.check == CheckKind.LEFT_OUT)
    assert (found.status, found.measured) == (status, measured)
    if shift_m < 1.0:
        assert shift_m / 1.9 <= found.figures["lifted_share"] < shift_m / 1.5 + 0.02


@pytest.mark.parametrize("fault", list(faults()))
def test_a_planted_fault_decides_with_its_camera(walk, fault):
    """Fails if moves are not looked for, if the calibration as a whole is not judged, or if one fault is taken for
    another."""
    planted = faults()[fault](walk, np.random.default_rng(1))
    first = ranked(take_findings(planted.take, ReconstructionConfig()))[0]
    assert first.status != Status.PASS and first.check in planted.checks
    assert set(first.cameras) == set(planted.cameras)
