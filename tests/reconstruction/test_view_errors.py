from dataclasses import replace

import numpy as np
import pytest

from mvpose import scenes
from mvpose.reconstruction.clip import ReconstructionConfig, reconstruct
from mvpose.reconstruction.view_errors import errors_of_views
from mvpose.records import Poses3D
from mvpose.scenes import Scene
from mvpose.skeleton import HALPE26
from tests.reconstruction.left_out_views import leave_one_camera_out, view_errors


def true_poses(scene: Scene) -> Poses3D:
    """The truth as if it had been reconstructed from all views."""
    shape = scene.joints.shape[:3]
    num_views = len(scene.rig)
    return Poses3D(
        xyz=scene.joints.copy(),
        confidence=np.ones(shape),
        error_px=np.zeros(shape),
        sigma_mm=np.zeros(shape),
        num_views=np.full(shape, num_views),
        views_used=np.ones((*shape, num_views), bool),
        track_id=np.arange(shape[1]),
        skeleton=scene.skeleton,
    )


def test_the_truth_has_the_error_of_the_noise():
    scene = scenes.two_people_crossing(num_frames=40)
    errors = view_errors(true_poses(scene), scene.keypoints(noise_px=3.0), scene.rig)
    assert errors.error_px.shape == (40, 2, 26, 4)
    # The mean length of a 2D Gaussian of 3 px a coordinate is 3 sqrt(pi / 2).
    assert np.nanmean(errors.error_px) == pytest.approx(3.0 * np.sqrt(np.pi / 2), rel=0.05)
    assert np.isfinite(errors.error_px).mean() > 0.98 and not errors.swapped.any()


def test_people_are_told_apart_whatever_their_places():
    scene = scenes.two_people_crossing(num_frames=40)
    errors = view_errors(true_poses(scene), scene.keypoints(noise_px=0.0), scene.rig)
    assert np.nanmax(errors.error_px) < 0.01


def test_nothing_to_compare_is_nan():
    scene = scenes.dropped_frame()
    poses = true_poses(scene)
    poses.xyz[50, 0, 3] = np.nan
    errors = view_errors(poses, scene.keypoints(), scene.rig)
    missing = np.isnan(errors.error_px[:, 0])
    assert missing[30].all() and missing[10:20, :, 1].all() and missing[50, 3].all()
    assert missing.sum() == 26 * 4 + 10 * 26 + 4
    seen = errors.confidence[:, 0] > 0
    assert not seen[30].any() and not seen[10:20, :, 1].any() and seen[50, 3].all()


def test_errors_of_the_views_used_are_those_that_the_reconstruction_tells():
    scene = scenes.occluded(num_frames=30)
    keypoints = scene.keypoints()
    poses = reconstruct(keypoints, scene.rig, ReconstructionConfig(), scene.fps)
    errors = view_errors(poses, keypoints, scene.rig)
    used = np.where(poses.views_used, errors.error_px, 0.0).sum(axis=-1) / np.maximum(poses.num_views, 1)
    np.testing.assert_allclose(used[poses.num_views > 0], poses.error_px[poses.num_views > 0], atol=1e-3)


def test_a_swap_that_was_undone_is_told_and_not_taken_for_an_error():
    scene = scenes.ring4(num_frames=20)
    keypoints = scene.keypoints(noise_px=1.0)
    left, right = HALPE26.indices("left_shoulder", "right_shoulder")
    keypoints.xy[1, 5:15][..., [left, right], :] = keypoints.xy[1, 5:15][..., [right, left], :]
    poses = reconstruct(keypoints, scene.rig, ReconstructionConfig(), scene.fps)
    errors = view_errors(poses, keypoints, scene.rig)
    swapped = np.zeros_like(errors.swapped)
    swapped[5:15, :, [left, right], 1] = True
    np.testing.assert_array_equal(errors.swapped, swapped & poses.views_used)
    assert errors.swapped.any()
    assert np.nanmax(np.where(poses.views_used, errors.error_px, 0.0)) < 15.0


def test_chunks_change_nothing(monkeypatch):
    scene = scenes.two_people_crossing(num_frames=7)
    keypoints, poses = scene.keypoints(), true_poses(scene)
    whole = view_errors(poses, keypoints, scene.rig)
    monkeypatch.setattr("mvpose.reconstruction.view_errors.CHUNK", 3)
    np.testing.assert_array_equal(view_errors(poses, keypoints, scene.rig).error_px, whole.error_px)


def test_a_camera_left_out_is_compared_with_what_the_others_say():
    scene = scenes.ring4(num_frames=10)
    keypoints, poses = scene.keypoints(noise_px=2.0), true_poses(scene)
    left_out = leave_one_camera_out(poses, keypoints, scene.rig)
    assert left_out.shape == (10, 1, 26, 4)
    # Three views against the fourth: more than the fourth's own noise, less than twice as much.
    noise = np.nanmean(view_errors(poses, keypoints, scene.rig).error_px)
    assert noise < np.nanmean(left_out) < 2 * noise


def test_the_camera_that_is_off_stands_out_when_it_is_left_out():
    scene = replace(scenes.outlier_view(num_frames=10), shift_px=np.array([[0, 0]] * 4 + [[30.0, -20.0]]))
    left_out = leave_one_camera_out(true_poses(scene), scene.keypoints(), scene.rig)
    by_camera = np.nanmean(left_out, axis=(0, 1, 2))
    assert by_camera[4] > 30.0
    assert by_camera[:4].max() < 6.0


def test_two_cameras_cannot_do_without_one():
    scene = scenes.ring4(num_frames=3)
    rig = scene.rig.select(scene.rig.names[:2])
    two = {n: getattr(scene.keypoints(), n)[:2] for n in ("xy", "confidence", "box", "box_score")}
    keypoints = replace(scene.keypoints(), **two)
    poses = reconstruct(keypoints, rig, ReconstructionConfig(), scene.fps)
    assert np.isnan(leave_one_camera_out(poses, keypoints, rig)).all()


def test_errors_of_both_kinds_in_chunks_are_those_of_each_alone(monkeypatch):
    # Fails if a chunk judges the frames of another, or if joints below the minimum confidence are compared.
    scene = scenes.ring4(num_frames=20)
    keypoints = scene.keypoints()
    confidence = np.where(np.random.default_rng(0).random(keypoints.confidence.shape) < 0.3, 0.1, keypoints.confidence)
    keypoints = replace(keypoints, confidence=confidence.astype(np.float32))
    poses, judged = true_poses(scene), np.arange(0, len(scene.joints), 4)
    whole, left_out = view_errors(poses, keypoints, scene.rig), leave_one_camera_out(poses, keypoints, scene.rig)
    assert np.isnan(left_out[confidence.transpose(1, 2, 3, 0) == np.float32(0.1)]).all()
    monkeypatch.setattr("mvpose.reconstruction.view_errors.CHUNK", 7)
    errors, some = errors_of_views(poses, keypoints, scene.rig, None, judged)
    np.testing.assert_array_equal(errors.error_px, whole.error_px)
    np.testing.assert_array_equal(some, left_out[judged])
