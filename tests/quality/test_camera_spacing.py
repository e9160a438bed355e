"""Cameras whose rays are nearly parallel cannot measure depth: the reason says so, with the baseline and the angle."""

from dataclasses import replace

import numpy as np
import pytest

from mvpose import scenes
from mvpose.quality.camera_spacing import CameraSpacing, camera_spacing, of_spacing
from mvpose.quality.findings import CheckKind, Status
from mvpose.quality.preflight import PreflightConfig, preflight
from mvpose.quality.sightings import sighted
from mvpose.rendering.camera_rigs import rig_of

CONFIG = PreflightConfig(runs=2, run_frames=30, max_shift=8)
FRAMES = 40


def before(place: np.ndarray) -> scenes.Scene:
    """Somebody who walks about the middle, before cameras at these places."""
    count = len(place)
    rig = rig_of(
        place=place,
        target=np.tile([0.0, 0.0, 0.9], (count, 1)),
        focal=np.full(count, 1100.0),
        lens=np.zeros((count, 4)),
        size=np.tile([1920, 1080], (count, 1)),
    )
    shown = (count, FRAMES, 1)
    scene = scenes.ring4(num_frames=FRAMES)
    joints = scene.joints.shape[2]
    return replace(
        scene,
        rig=rig,
        seen=np.ones((*shown, joints), bool),
        detected=np.ones(shown, bool),
        shift_px=np.zeros((count, 2)),
    )


def side_by_side(*across: float) -> scenes.Scene:
    """Cameras 4 m from the middle, at these places across, in metres."""
    return before(np.array([[4.0, y, 1.5] for y in across]))


def spacing(scene):
    return camera_spacing(sighted(scene.keypoints(), np.zeros(FRAMES, int), scene.rig, scene.fps).body, scene.rig)


def test_four_cameras_within_30_cm_fail_for_their_spacing_alone():
    """Fails if the checks that need depth are made: people of 2.7 m are a wrong unit then."""
    scene = side_by_side(-0.15, -0.05, 0.05, 0.15)
    found = preflight(scene.keypoints(), np.arange(FRAMES), scene.rig, scenes.FPS, CONFIG)
    (failed,) = [f for f in found.findings if f.status != Status.PASS]
    assert failed.check == CheckKind.SPACING and failed.status == Status.FAIL
    assert "depth is not measurable with a baseline of 30 cm at 4.0 m" in failed.reason


def test_the_widest_pair_counts_with_its_angle_baseline_and_distance():
    found = spacing(side_by_side(-0.1, 0.0, 0.9))
    assert found.views == (0, 2) and found.baseline_m == pytest.approx(1.0)
    assert found.degrees == pytest.approx(np.degrees(np.arctan(0.1 / 4) + np.arctan(0.9 / 4)), abs=1.5)
    assert found.distance_m == pytest.approx(4.0, abs=0.4)


def test_two_cameras_that_face_each_other_have_parallel_rays_too():
    """Fails if the angle is not folded to 90 degrees: theirs is 157 then, as if depth were measured."""
    facing = spacing(before(np.array([[4.0, 0.0, 0.95], [-4.0, 0.0, 0.95]])))
    assert facing.degrees < 30.0 and spacing(scenes.ring4(num_frames=FRAMES)).degrees > 60.0


@pytest.mark.parametrize(("degrees", "status"), [(3.0, Status.FAIL), (9.5, Status.WARN)])
def test_small_angles_warn_and_smaller_ones_fail(degrees, status):
    rig = scenes.ring4(num_frames=1).rig
    (found,) = of_spacing(CameraSpacing((0, 2), degrees, 0.3, 4.0), rig)
    assert found.status == status and "cam01 and cam03" in found.reason
    assert ("uncertain by about 0.2 m" in found.reason) == (status == Status.WARN)
    assert not of_spacing(replace(CameraSpacing((0, 2), degrees, 0.3, 4.0), degrees=12.0), rig)
