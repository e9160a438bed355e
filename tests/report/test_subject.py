from dataclasses import replace

import numpy as np
import pytest

from mvpose.report.subject import bone_lengths, length_spread, limb_bones, mean_known
from mvpose.skeleton import SKELETONS, Skeleton
from tests.report.walkers import capture_report, empty, without_joint


def test_a_whole_capture_has_all_its_joints_and_rigid_limbs():
    subject = capture_report(people=2)
    assert subject.joint_share == 1.0 and subject.mean_views == 4.0
    assert subject.bone_spread == pytest.approx(0.0, abs=1e-12) and subject.mean_error_px == pytest.approx(0.0)


def test_missing_joints_lower_the_share_and_not_the_views():
    subject = without_joint(capture_report(num_frames=10), "left_wrist", slice(2, 7))
    assert subject.joint_share == pytest.approx(1 - 5 / 80)
    assert subject.mean_views == 4.0


def test_frames_before_and_after_a_persons_stay_are_not_missing_joints_but_gaps_are():
    subject = capture_report(num_frames=10)
    for joint in subject.poses.skeleton.joints:
        for rows in (slice(0, 2), slice(5, 6), slice(8, 10)):
            subject = without_joint(subject, joint, rows)
    assert subject.present[:, 0].tolist() == [False] * 2 + [True] * 6 + [False] * 2
    assert subject.joint_share == pytest.approx(5 / 6)


def test_an_empty_capture_has_no_figures():
    subject = empty(capture_report())
    reported = (subject.mean_error_px, subject.joint_share, subject.mean_views, subject.bone_spread)
    assert np.isnan(reported).all()
    assert subject.moments(4) == []


def test_moments_are_spread_over_the_rows_that_show_somebody():
    subject = capture_report(num_frames=100)
    assert subject.moments(4) == [12, 37, 62, 87]
    for joint in subject.poses.skeleton.joints[:5]:
        subject = without_joint(subject, joint, slice(0, 60))
    assert min(subject.moments(4)) >= 60
    assert capture_report(num_frames=2).moments(5) == [0, 1]


def test_spread_is_deviation_over_median_and_ignores_scale():
    rng = np.random.default_rng(0)
    lengths = 0.4 + 0.02 * rng.standard_normal((400, 1, 1))
    spread = length_spread(lengths)
    assert spread[0, 0] == pytest.approx(0.05, rel=0.15)
    np.testing.assert_allclose(length_spread(10 * lengths), spread)
    lengths[1:] = np.nan
    assert np.isnan(length_spread(lengths)).all()


def test_bones_are_measured_in_metres_between_their_ends():
    subject = capture_report()
    bones = [tuple(subject.poses.skeleton.indices("left_shoulder", "right_shoulder"))]
    np.testing.assert_allclose(bone_lengths(subject.poses, bones), 0.4)


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=lambda s: s.name)
def test_every_known_skeleton_has_the_eight_limbs(skeleton):
    assert len(limb_bones(skeleton)) == 8


def test_a_skeleton_of_other_joints_is_scored_on_all_of_them():
    subject = capture_report()
    joints = tuple(f"point{i}" for i in range(8))
    other = Skeleton("other", joints, (("point0", "point1"),))
    subject = replace(subject, poses=replace(subject.poses, skeleton=other))
    assert subject.body == list(range(8)) and limb_bones(other) == [(0, 1)]
    assert subject.joint_share == 1.0


def test_the_mean_of_nothing_is_nothing():
    values = np.array([[1.0, np.nan], [3.0, np.nan]])
    np.testing.assert_array_equal(mean_known(values, axis=0), [2.0, np.nan])
