"""What a misfit speaks for: the calibration, or joints that are cut off or covered."""

import numpy as np
import pytest

from mvpose import scenes
from mvpose.quality.findings import CheckKind, PreflightConfig, Status
from mvpose.quality.pose_evidence import pose_evidence
from mvpose.quality.preflight import preflight
from mvpose.quality.sightings import sighted
from mvpose.skeleton import HALPE26
from tests.reconstruction.faults import turned_by

LEGS = HALPE26.indices(*(f"{side}_{part}" for side in ("left", "right") for part in ("knee", "ankle")))


def evidence_of(scene, keypoints, rig):
    people = sighted(keypoints, np.zeros(keypoints.xy.shape[1], int), rig, scene.fps)
    return pose_evidence(people.body, rig, 1, 0.02)


def test_a_turned_camera_is_off_in_all_joints_and_frames():
    scene = scenes.ring4(num_frames=30)
    found = evidence_of(scene, scene.keypoints(), turned_by(scene.rig, 1, 1, 3.0))
    assert len(found.joints_off) == len(found.joints) == 12 and found.frames_off == found.frames == 30
    assert "12 of 12 joints are off, in 30 of 30 frames: this speaks for a wrong calibration" in str(found)


def test_covered_joints_are_named():
    scene = scenes.ring4(num_frames=30)
    keypoints = scene.keypoints()
    keypoints.xy[1][..., LEGS, :] += 60.0
    found = evidence_of(scene, keypoints, scene.rig)
    assert found.of_detections and set(found.joints_off) == {HALPE26.joints[j] for j in LEGS}
    assert "4 of 12 joints are off" in str(found) and "left knee" in str(found)


def test_all_joints_for_part_of_the_time_leave_two_readings():
    scene = scenes.ring4(num_frames=30)
    keypoints = scene.keypoints()
    keypoints.xy[1, :18] += 60.0
    found = evidence_of(scene, keypoints, scene.rig)
    assert not found.of_detections and found.of_some_frames
    assert "in 18 of 30 frames: something covers the people there, or the camera was moved" in str(found)


def test_joints_at_the_border_are_people_cut_off():
    scene = scenes.ring4(num_frames=30)
    keypoints = scene.keypoints()
    keypoints.xy[1][..., LEGS, 1] = 1078.0
    found = evidence_of(scene, keypoints, scene.rig)
    assert found.at_border and "cut off by the image" in str(found)


@pytest.mark.parametrize("degrees", [0.0, 3.0])
def test_a_single_instant_is_reported_as_one(degrees):
    scene = scenes.ring4(num_frames=1)
    rig = turned_by(scene.rig, 1, 1, degrees)
    found = preflight(scene.keypoints(), np.arange(1), rig, scene.fps, PreflightConfig()).of(CheckKind.CAMERA)
    bad = [f for f in found if f.status != Status.PASS]
    assert [f.cameras for f in bad] == ([("cam02",)] if degrees else [])
    assert all("in the one instant that was checked" in f.reason for f in bad)
