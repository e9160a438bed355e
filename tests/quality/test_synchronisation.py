"""Timing of cameras from 2D joints, against shifts that are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mvpose import scenes
from mvpose.quality.sightings import sighted
from mvpose.quality.synchronisation import synchronised
from tests.reconstruction.faults import late, seen_at, turned_by

LIMIT = 8


@pytest.fixture(scope="module")
def scene():
    return scenes.ring4(num_frames=70)


def offsets(keypoints, scene, rig=None, run=None):
    run = np.zeros(keypoints.xy.shape[1], int) if run is None else run
    seen = sighted(keypoints, run, scene.rig, scene.fps).body
    timings, shifts = synchronised(seen, rig or scene.rig, LIMIT)
    return np.array([t.offset_frames for t in timings]), timings, shifts


@pytest.mark.parametrize("frames", [-6, -2, 0, 1, 3, 7])
def test_the_offset_is_the_frames_by_which_a_camera_is_late(scene, frames):
    found, timings, shifts = offsets(late(scene.keypoints(), 2, frames), scene)
    assert np.abs(found - [0, 0, frames, 0]).max() < 0.15
    assert shifts[:, 0].tolist() == [0, 0, frames, 0]
    assert max(t.uncertainty_frames for t in timings) < 1.0


def test_half_a_frame_is_told_from_a_whole_one():
    scene = scenes.ring4(num_frames=140)
    shown = [np.arange(0, 120, 2)] * 4
    shown[1] = np.arange(1, 121, 2)
    found, _, _ = offsets(seen_at(scene.keypoints(), shown), scene)
    # Half a frame is not shifted away, so that the others are told against a mean that it moves.
    assert found[1] == pytest.approx(-0.5, abs=0.15) and np.abs(found[[0, 2, 3]]).max() < 0.45


def test_two_cameras_out_of_step_are_both_told(scene):
    scene = scenes.occluded(num_frames=70)
    found, _, _ = offsets(late(late(scene.keypoints(), 1, 4), 3, -3), scene)
    assert np.abs(found - found[0] - [0, 4, 0, -3, 0]).max() < 0.25


def test_a_camera_that_is_tilted_is_not_taken_for_a_late_one(scene):
    found, _, _ = offsets(scene.keypoints(), scene, rig=turned_by(scene.rig, 1, 0, 3.0))
    assert np.abs(found).max() < 0.5


def test_a_slow_clock_is_told_run_by_run_and_as_drift():
    scene = scenes.ring4(num_frames=200)
    frames = np.r_[0:40, 70:110, 140:180]
    run = np.repeat([0, 1, 2], 40)
    shown = [frames] * 4
    shown[3] = frames - np.r_[np.full(40, 0), np.full(40, 2), np.full(40, 4)]
    _, timings, shifts = offsets(seen_at(scene.keypoints(), shown), scene, run=run)
    assert timings[3].run_offsets.numpy() == pytest.approx([0, 2, 4], abs=0.3)
    assert timings[3].drift_frames == pytest.approx(4.0, abs=0.4)
    assert shifts[3].tolist() == [0, 2, 4] and not shifts[:3].any()
    assert max(abs(t.drift_frames) for t in timings[:3]) < 0.5


def test_a_stretch_in_which_a_camera_shows_people_for_a_moment_alone_does_not_count():
    """Fails if a joint seen once, whose misfit without its median is 0, has a part in the mean of all stretches."""
    keypoints = scenes.ring4(num_frames=140).keypoints()
    run = np.repeat([0, 1], 70)
    hidden = replace(keypoints, confidence=keypoints.confidence.copy())
    hidden.confidence[0, 70:] = 0.0
    moment = replace(keypoints, confidence=hidden.confidence.copy())
    moment.confidence[0, 105] = keypoints.confidence[0, 105]
    scene = scenes.ring4(num_frames=140)
    without, with_moment = (offsets(each, scene, run=run)[1][0] for each in (hidden, moment))
    assert with_moment.misfit_px == pytest.approx(without.misfit_px, rel=1e-6)
    assert with_moment.offset_frames == pytest.approx(0.0, abs=0.15)


def test_runs_too_short_for_the_limit_tell_nothing(scene):
    found, timings, shifts = offsets(seen_at(scene.keypoints(), [np.arange(2 * LIMIT)] * 4), scene)
    assert np.isnan(found).all() and not shifts.any()
    assert all(t.uncertainty_frames == torch.inf for t in timings)


def test_a_camera_later_than_the_limit_is_at_the_limit(scene):
    _, timings, _ = offsets(late(scene.keypoints(), 0, LIMIT + 4), scene)
    assert timings[0].at_limit
