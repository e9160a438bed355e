"""Bones of constant length: exact, and by the smallest change that there is."""

import numpy as np
import pytest
from scipy.optimize import minimize

from mvpose.scenes import ring4
from mvpose.skeleton import COCO17, HALPE26, Skeleton
from mvpose.temporal.bone_lengths import limb_bones, measured_lengths, with_constant_bones

BONES = tuple(HALPE26.bone_indices)


def noisy_walk(noise_m: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    truth = ring4(num_frames=40).joints[:, 0]
    return truth, truth + noise_m * np.random.default_rng(4).normal(size=truth.shape)


def test_poses_whose_bones_have_their_length_are_not_moved():
    truth, _ = noisy_walk()
    lengths = measured_lengths(truth, BONES)
    assert np.allclose(with_constant_bones(truth, np.ones(truth.shape[:2]), BONES, lengths), truth, atol=1e-8)


def test_all_bones_come_to_their_length_and_nearer_to_the_truth():
    truth, noisy = noisy_walk()
    lengths = measured_lengths(truth, BONES)
    moved = with_constant_bones(noisy, np.ones(noisy.shape[:2]), BONES, lengths)
    for (a, b), length in zip(BONES, lengths, strict=True):
        assert np.allclose(np.linalg.norm(moved[:, a] - moved[:, b], axis=-1), length, atol=1e-7)
    assert np.linalg.norm(moved - truth, axis=-1).mean() < np.linalg.norm(noisy - truth, axis=-1).mean()


def test_no_other_pose_of_these_bones_is_nearer():
    """Slow twin: a general solver on three frames, started at several places."""
    chain = Skeleton("arm", ("a", "b", "c", "d"), (("a", "b"), ("b", "c"), ("b", "d")))
    bones = tuple(chain.bone_indices)
    lengths = np.array([0.3, 0.25, 0.2])
    rng = np.random.default_rng(6)
    poses = np.array([[0, 0, 0], [0.3, 0, 0], [0.5, 0.1, 0], [0.3, 0.0, 0.2]]) + 0.03 * rng.normal(size=(3, 4, 3))
    weights = rng.uniform(0.2, 1.0, (3, 4))
    ours = with_constant_bones(poses, weights, bones, lengths)

    def cost(x: np.ndarray, t: int) -> float:
        return float((weights[t][:, None] * (x.reshape(4, 3) - poses[t]) ** 2).sum())

    for t in range(3):
        constraint = {
            "type": "eq",
            "fun": lambda x: [np.linalg.norm(x.reshape(4, 3)[a] - x.reshape(4, 3)[b]) - lengths[i]
                              for i, (a, b) in enumerate(bones)],
        }  # fmt: skip
        starts = [poses[t] + 0.05 * rng.normal(size=(4, 3)) for _ in range(4)]
        best = min(
            minimize(cost, s.ravel(), args=(t,), method="SLSQP", constraints=constraint, options={"ftol": 1e-12}).fun
            for s in starts
        )
        assert cost(ours[t], t) == pytest.approx(best, rel=1e-4)


def test_a_sure_joint_moves_less_than_an_unsure_one():
    pose = np.array([[[0.0, 0.0, 0.0], [0.0, 0.0, 0.5]]])
    moved = with_constant_bones(pose, np.array([[0.9, 0.1]]), ((0, 1),), np.array([0.4]))
    assert np.allclose(moved[0], [[0, 0, 0.01], [0, 0, 0.41]], atol=1e-9)


def test_missing_joints_stay_missing_and_bind_nothing():
    _, noisy = noisy_walk()
    elbow, wrist = HALPE26.indices("left_elbow", "left_wrist")
    noisy[:, elbow] = np.nan
    lengths = measured_lengths(noisy, BONES)
    moved = with_constant_bones(noisy, np.ones(noisy.shape[:2]), BONES, lengths)
    assert np.isnan(moved[:, elbow]).all()
    assert np.array_equal(moved[:, wrist], noisy[:, wrist])
    assert np.isfinite(moved[:, HALPE26.index("left_shoulder")]).all()


def test_a_bone_of_no_length_grows_and_does_not_break():
    pose = np.zeros((1, 2, 3))
    moved = with_constant_bones(pose, np.ones((1, 2)), ((0, 1),), np.array([0.4]))
    assert np.linalg.norm(moved[0, 0] - moved[0, 1]) == pytest.approx(0.4)


def test_limbs_leave_spine_shoulders_and_face_free():
    names = {(COCO17.joints[a], COCO17.joints[b]) for a, b in limb_bones(COCO17)}
    assert ("left_shoulder", "left_elbow") in names and ("right_knee", "right_ankle") in names
    assert not any("eye" in a or "nose" in a for a, b in names)
    halpe = {(HALPE26.joints[a], HALPE26.joints[b]) for a, b in limb_bones(HALPE26)}
    assert ("left_ankle", "left_heel") in halpe and ("neck", "left_shoulder") not in halpe


def test_the_median_length_ignores_frames_without_both_ends():
    xyz = np.zeros((5, 2, 3))
    xyz[:, 1, 2] = [0.4, 0.4, 0.41, 9.0, np.nan]
    assert measured_lengths(xyz, ((0, 1),))[0] == pytest.approx(0.405)
    assert np.isnan(measured_lengths(xyz * np.nan, ((0, 1),))).all()


@pytest.mark.parametrize(("bones", "lengths"), [((), np.zeros(0)), (((0, 1),), np.array([np.nan]))])
def test_without_bones_or_lengths_nothing_moves(bones, lengths):
    pose = np.random.default_rng(0).normal(size=(5, 3, 3))
    pose[2] = np.nan
    assert np.array_equal(with_constant_bones(pose, np.ones((5, 3)), bones, lengths), pose, equal_nan=True)
