from dataclasses import replace

import numpy as np
import torch

from mvpose.report.reprojection import camera_errors, project, reproject
from tests.report.walkers import capture_report, four_cameras, without_joint


def test_projections_are_the_rigs_with_its_lenses():
    subject = capture_report()
    expected = subject.capture.rig.project(torch.from_numpy(subject.poses.xyz))[0].numpy()
    np.testing.assert_allclose(reproject(subject, slice(None)).projected, expected, atol=1e-9)


def test_a_missing_joint_and_a_point_behind_a_camera_are_projected_nowhere():
    rig = four_cameras()
    behind_north = rig.centres_world[0].numpy() * 1.5
    xyz = np.stack([behind_north, [0.0, 0.0, 1.0], [np.nan] * 3])[None, None]
    known = np.isfinite(project(xyz, rig)[:, 0, 0, :, 0])
    assert known[0].tolist() == [False, True, False]
    assert known[2].tolist() == [True, True, False]


def test_detections_are_found_whatever_their_place():
    subject = capture_report(people=3, noise_px=0.5)
    r = reproject(subject, slice(2, 9))
    assert np.nanmax(r.error_px) < 3.0 and np.isfinite(r.error_px).all()
    assert np.isnan(r.unrelated).all()


def test_errors_averaged_over_views_are_those_of_the_poses():
    subject = capture_report(people=2, noise_px=2.0)
    np.testing.assert_allclose(camera_errors(subject).mean(axis=0), subject.poses.error_px, rtol=1e-5)


def test_a_view_that_was_not_used_has_no_error_but_keeps_its_detection():
    subject = capture_report()
    used = subject.poses.views_used.copy()
    used[:, :, :, 1] = False
    r = reproject(replace(subject, poses=replace(subject.poses, views_used=used)), slice(None))
    assert np.isnan(r.error_px[1]).all() and np.isfinite(r.detected[1]).all()
    assert np.isfinite(r.error_px[[0, 2, 3]]).all()


def test_a_bystander_is_nobodys_detection():
    subject = capture_report()
    keypoints, used = subject.keypoints, subject.poses.views_used.copy()
    assert keypoints is not None
    xy = keypoints.xy.copy()
    xy[3] += 200.0
    used[..., 3] = False
    far = replace(subject, keypoints=replace(keypoints, xy=xy), poses=replace(subject.poses, views_used=used))
    r = reproject(far, slice(None))
    assert np.isnan(r.detected[3]).all()
    np.testing.assert_array_equal(r.unrelated[3], xy[3])
    assert np.isnan(r.unrelated[:3]).all()


def test_a_detection_belongs_to_its_person_and_to_no_other_that_only_covers_it():
    subject = capture_report(people=2, noise_px=0.5)
    poses, keypoints = subject.poses, subject.keypoints
    assert keypoints is not None
    # The second person stands where the first does, and camera 2 has one detection, which was used for the first.
    xyz, used, score = poses.xyz.copy(), poses.views_used.copy(), keypoints.box_score.copy()
    xyz[:, 1] = xyz[:, 0] + 0.01
    own = reproject(subject, slice(None)).projected[2, :, :1]
    owner = np.nanmedian(np.linalg.norm(own - keypoints.xy[2], axis=-1), axis=-1).argmin(axis=1)
    score[2, np.arange(len(owner)), 1 - owner] = 0.0
    used[:, 1, :, 2] = False
    both = replace(
        subject, poses=replace(poses, xyz=xyz, views_used=used), keypoints=replace(keypoints, box_score=score)
    )
    r = reproject(both, slice(None))
    assert np.isfinite(r.detected[2, :, 0]).all() and np.isnan(r.detected[2, :, 1]).all()
    used[:, :, :, 2] = False
    r = reproject(replace(both, poses=replace(both.poses, views_used=used)), slice(None))
    assert np.isfinite(r.detected[2, :, 0]).all() and np.isnan(r.detected[2, :, 1]).all()


def test_a_place_without_a_person_is_no_detection():
    subject = capture_report(people=2)
    assert subject.keypoints is not None
    score = np.zeros_like(subject.keypoints.box_score)
    r = reproject(replace(subject, keypoints=replace(subject.keypoints, box_score=score)), slice(None))
    assert np.isnan(r.detected).all() and np.isnan(r.unrelated).all()


def test_without_keypoints_there_are_projections_and_no_errors():
    subject = replace(capture_report(), keypoints=None)
    assert np.isfinite(reproject(subject, slice(None)).projected).all()
    assert np.isnan(camera_errors(subject)).all()


def test_long_captures_are_taken_in_parts_with_the_same_result():
    long = capture_report(num_frames=1100, noise_px=1.0)
    whole = reproject(long, slice(None)).error_px
    np.testing.assert_allclose(camera_errors(long), whole.astype(np.float32))


def test_a_joint_missing_in_some_rows_has_no_error_there_alone():
    errors = camera_errors(without_joint(capture_report(), "left_wrist", slice(3, 5)))
    missing = np.isnan(errors[:, :, 0, 3])
    assert missing[:, 3:5].all() and not missing[:, :3].any() and not missing[:, 5:].any()
