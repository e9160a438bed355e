"""Hand-made poses with errors that are known."""

import numpy as np
import pytest

from mvpose.evaluation.scoring import CommonJoints, detection_rate, score, velocity_errors
from mvpose.skeleton import COCO17, HALPE26, HUMAN36M17, Skeleton

FOUR = Skeleton("four", ("hip", "neck", "head", "hand"), (("hip", "neck"), ("neck", "head"), ("neck", "hand")))
POSE = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 1.5], [0.0, 0.0, 1.8], [0.6, 0.0, 1.5]])
COMMON = CommonJoints.between(FOUR, FOUR)


def reported(predicted: np.ndarray, truth: np.ndarray = POSE, common: CommonJoints = COMMON) -> dict[str, float]:
    return {k: v[0] for k, v in score(predicted[None], truth[None], common).items() if v.ndim == 1}


def test_a_shift_is_an_absolute_error_alone():
    found = reported(POSE + np.array([0.03, 0.04, 0.0]))
    assert found["mpjpe_m"] == pytest.approx(0.05)
    for name in ("mpjpe_relative_m", "n_mpjpe_m", "pa_mpjpe_m"):
        assert found[name] == pytest.approx(0.0, abs=1e-9)
    assert (found["pck"], found["npck"], found["found"], found["pcp"]) == (1.0, 1.0, 1.0, 1.0)


def test_a_size_is_forgiven_by_scaled_errors_and_a_turn_by_procrustes_alone():
    larger = POSE[0] + 1.1 * (POSE - POSE[0])
    # 0, 50, 80 mm and 0.1 |(0.6, 0.5)| = 78.1 mm
    assert reported(larger)["mpjpe_relative_m"] == pytest.approx(np.mean([0, 0.05, 0.08, 0.1 * np.hypot(0.6, 0.5)]))
    assert reported(larger)["n_mpjpe_m"] == pytest.approx(0.0, abs=1e-9)
    turned = POSE[:, [1, 0, 2]] * [1.0, -1.0, 1.0]
    assert reported(turned)["n_mpjpe_m"] > 0.05
    assert reported(turned)["pa_mpjpe_m"] == pytest.approx(0.0, abs=1e-9)


def test_a_joint_without_an_answer_leaves_metres_alone_and_counts_as_a_miss():
    predicted = POSE.copy()
    predicted[3] = np.nan
    found = reported(predicted)
    assert found["mpjpe_m"] == pytest.approx(0.0) and found["found"] == 0.75
    assert found["pck"] == 0.75 and found["npck"] == 0.75 and found["auc"] == pytest.approx(0.75)
    assert found["pcp"] == pytest.approx(2 / 3)


def test_without_its_root_a_prediction_has_no_relative_error_and_no_correct_joint():
    predicted = POSE.copy()
    predicted[0] = np.nan
    found = reported(predicted)
    assert np.isnan(found["mpjpe_relative_m"]) and found["pck"] == 0.0 and found["mpjpe_m"] == pytest.approx(0.0)


def test_a_joint_without_a_truth_does_not_count():
    truth = POSE.copy()
    truth[3] = np.nan
    found = reported(POSE + 0.01, truth)
    assert found["found"] == 1.0 and np.isfinite(found["mpjpe_m"]) and found["pck"] == 1.0


def test_nothing_answered_is_nan_in_metres_and_nought_in_shares():
    found = reported(np.full_like(POSE, np.nan))
    assert np.isnan(found["mpjpe_m"]) and found["found"] == 0.0 and found["pck"] == 0.0 and found["pcp"] == 0.0


def test_the_structure_score_needs_the_same_cluster():
    centroids = np.stack([POSE - POSE[0], (POSE - POSE[0])[:, [2, 1, 0]]])
    centroids /= np.linalg.norm(centroids, axis=(1, 2), keepdims=True)
    assert score(POSE[None], POSE[None], COMMON, centroids)["pss"][0] == 1.0
    other = POSE[0] + (POSE - POSE[0])[:, [2, 1, 0]]
    assert score(other[None], POSE[None], COMMON, centroids)["pss"][0] == 0.0


def test_the_structure_score_of_fewer_joints_ignores_the_others():
    # The root is not the first joint, so that its place changes when the neck is left out.
    skeleton = Skeleton("four", ("neck", "hip", "head", "hand"), (("hip", "neck"), ("neck", "head"), ("neck", "hand")))
    pose = POSE[[1, 0, 2, 3]]
    centroids = np.stack([pose - pose[1], (pose - pose[1])[:, [2, 1, 0]]])
    centroids /= np.linalg.norm(centroids, axis=(1, 2), keepdims=True)
    common = CommonJoints.between(skeleton, skeleton, joints=("hip", "head", "hand"))
    answer = np.where(common.counted[:, None], pose, np.nan)
    # In the cluster of the truth as seen from the hip, in the other as seen from the head or the hand.
    answer[2:] += [[0.7, 0.4, 0.1], [-0.2, 0.7, 1.0]]
    assert score(answer[None], pose[None], common, centroids)["pss"][0] == 1.0
    other = pose[1] + (np.where(common.counted[:, None], pose, np.nan) - pose[1])[:, [2, 1, 0]]
    assert score(other[None], pose[None], common, centroids)["pss"][0] == 0.0
    answer[3] = np.nan
    assert np.isnan(score(answer[None], pose[None], common, centroids)["pss"][0])


def test_joints_are_matched_by_name_and_those_of_one_side_only_do_not_count():
    common = CommonJoints.between(HALPE26, HUMAN36M17)
    assert {n for n, c in zip(HUMAN36M17.joints, common.counted, strict=True) if not c} == {"spine", "thorax"}
    poses = np.random.default_rng(0).uniform(size=(2, 26, 3))
    predicted = common.selected(poses)
    np.testing.assert_array_equal(predicted[:, HUMAN36M17.index("left_knee")], poses[:, HALPE26.index("left_knee")])
    truth = np.where(np.isfinite(predicted), predicted, 9.0)
    assert score(predicted, truth, common)["found"].tolist() == [1.0, 1.0]


def test_the_root_is_the_named_joint_or_both_hips_or_none():
    assert CommonJoints.between(HUMAN36M17, HUMAN36M17).root == (0,)
    assert CommonJoints.between(COCO17, COCO17).root == (11, 12)
    without = CommonJoints.between(COCO17, COCO17, joints=("nose", "left_hip"))
    assert without.root == () and without.counted.sum() == 2
    poses = np.zeros((1, 17, 3))
    assert "mpjpe_relative_m" not in score(poses, poses, without)


def test_velocity_is_scored_between_neighbours_of_one_track_whatever_their_order():
    positions = np.array([2, 0, 1, 0, 5])
    track = [("a", 0), ("a", 0), ("a", 0), ("b", 0), ("a", 0)]
    truth = np.zeros((5, 4, 3))
    predicted = np.zeros((5, 4, 3))
    predicted[0, :, 0] = 0.3
    predicted[2, :, 0] = 0.1
    found = velocity_errors(predicted, truth, track, positions)
    np.testing.assert_allclose(found, [0.2, np.nan, 0.1, np.nan, np.nan])


def test_the_detection_rate_counts_joints_within_half_a_head_in_all_images():
    truth = np.zeros((1, 2, 4, 2))
    predicted = truth.copy()
    predicted[0, 0, 0, 0] = 12.9
    predicted[0, 1, 0, 0] = 12.7
    inside = np.ones((1, 2, 4), bool)
    inside[0, 1, 3] = False
    assert detection_rate(predicted, truth, inside, (256, 256))[0] == pytest.approx(6 / 7)
