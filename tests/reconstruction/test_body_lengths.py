"""Joints that cannot be where the views have them: which are dropped, and which must not be."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mvpose.reconstruction.body_lengths import impossible, without_impossible
from mvpose.reconstruction.clip import reconstruct
from mvpose.reconstruction.joints import JointPoints
from mvpose.reconstruction.reconstruction_settings import ReconstructionConfig
from mvpose.scenes import ring4
from mvpose.skeleton import BODY_JOINTS, HALPE26, Skeleton

BODY = HALPE26.indices(*BODY_JOINTS)


def people(size: float = 1.0) -> torch.Tensor:
    scene = ring4()
    return size * torch.from_numpy(scene.joints[::5, 0][:, scene.skeleton.indices(*BODY_JOINTS)]).double()


def dropped(points: torch.Tensor, valid: torch.Tensor | None = None, confidence: torch.Tensor | None = None) -> list:
    """Names of the joints dropped from all of these people alike."""
    everywhere = torch.ones(points.shape[:2])
    gone = impossible(
        points, everywhere.bool() if valid is None else valid, everywhere.double() if confidence is None else confidence
    )
    assert (gone == gone[:1]).all()
    return [joint for joint, lost in zip(BODY_JOINTS, gone[0].tolist(), strict=True) if lost]


def moved(points: torch.Tensor, joint: str, by_m: tuple[float, float, float]) -> torch.Tensor:
    out = points.clone()
    out[:, BODY_JOINTS.index(joint)] += torch.tensor(by_m, dtype=torch.float64)
    return out


@pytest.mark.parametrize("size", [0.3, 1.0, 1.2])
def test_people_of_any_size_keep_all_joints(size):
    assert dropped(people(size)) == []


@pytest.mark.parametrize("size", [0.3, 1.0])
@pytest.mark.parametrize(
    ("joint", "by_m"),
    [
        ("left_elbow", (0.0, 0.8, 0.3)),
        ("right_wrist", (0.9, 0.0, 0.0)),
        ("right_knee", (0.0, -0.9, 0.0)),
        ("left_ankle", (0.0, 1.0, 0.0)),
        ("left_shoulder", (0.0, 1.0, 0.5)),
    ],
)
def test_the_joint_that_is_too_far_is_dropped_and_none_of_its_neighbours(joint, by_m, size):
    assert dropped(size * moved(people(), joint, by_m)) == [joint]


def test_a_joint_at_its_neighbours_place_is_dropped():
    """Fails without the shortest length. Of the two, the wrist has fewer lengths that are right."""
    points = people()
    points[:, BODY_JOINTS.index("left_wrist")] = points[:, BODY_JOINTS.index("left_elbow")] + 0.01
    assert dropped(points) == ["left_wrist"]


def test_a_whole_limb_elsewhere_is_dropped():
    """Fails without the reach over a bent joint: once the knee is dropped, the ankle has no bone."""
    points = moved(moved(people(), "right_knee", (0.0, 1.8, 0.0)), "right_ankle", (0.0, 1.8, 0.0))
    assert dropped(points) == ["right_knee", "right_ankle"]


@pytest.mark.parametrize("surer", ["left", "right"])
def test_of_left_and_right_in_one_place_the_less_confident_is_dropped(surer):
    points, confidence = people(), torch.full((len(people()), 12), 0.5, dtype=torch.float64)
    one, other = (BODY_JOINTS.index(f"{side}_ankle") for side in ("left", "right"))
    middle = (points[:, one] + points[:, other]) / 2
    points[:, one], points[:, other] = middle, middle + 0.01
    confidence[:, BODY_JOINTS.index(f"{surer}_ankle")] = 0.9
    assert dropped(points, confidence=confidence) == [f"{'right' if surer == 'left' else 'left'}_ankle"]


@pytest.mark.parametrize(("other", "expected"), [("right_shoulder", []), ("left_hip", []), (None, ["left_wrist"])])
def test_a_person_of_three_lengths_is_left_alone(other, expected):
    """Three lengths are too few to tell which is wrong; all joints are enough."""
    points = moved(people(), "left_wrist", (0.9, 0.0, 0.0))
    valid = torch.ones(points.shape[:2], dtype=torch.bool)
    if other:
        valid[:] = False
        valid[:, [BODY_JOINTS.index(joint) for joint in ("left_shoulder", "left_elbow", "left_wrist", other)]] = True
    assert dropped(points, valid) == expected


def test_a_missing_joint_is_no_evidence():
    """Missing points are (0, 0, 0), far from everybody."""
    points, valid = people(), torch.ones(len(people()), 12, dtype=torch.bool)
    points[:, BODY_JOINTS.index("left_elbow")] = 0.0
    valid[:, BODY_JOINTS.index("left_elbow")] = False
    assert dropped(points, valid) == []


def test_joint_sets_of_other_creatures_are_left_alone():
    mouse = Skeleton("mouse", tuple(f"point{i}" for i in range(12)), ())
    valid = torch.ones(1, 1, 12, dtype=torch.bool)
    found = JointPoints(
        torch.rand(1, 1, 12, 3, dtype=torch.float64),
        valid,
        valid[..., None].expand(-1, -1, -1, 2),
        torch.zeros(1, 1, 12, 2),
    )
    assert without_impossible(found, torch.ones(1, 1, 12), mouse) is found


def test_what_all_views_have_wrong_alike_is_missing_in_the_result():
    """A wrist that every camera sees high above its arm."""
    scene, wrist = ring4(), HALPE26.index("left_wrist")
    wrong = scene.joints.copy()
    wrong[:, :, wrist] += (0.0, 0.0, 1.4)
    keypoints = replace(scene, joints=wrong).keypoints()
    poses = reconstruct(keypoints, scene.rig, ReconstructionConfig(), scene.fps)
    right = reconstruct(scene.keypoints(), scene.rig, ReconstructionConfig(), scene.fps)
    assert np.isfinite(right.xyz[:, 0, wrist]).all()
    assert np.isnan(poses.xyz[:, 0, wrist]).all()
    assert np.isnan(poses.sigma_mm[:, 0, wrist]).all()
    assert (poses.confidence[:, 0, wrist] == 0).all()
    assert (poses.num_views[:, 0, wrist] == 0).all()
    others = [joint for joint in range(len(HALPE26.joints)) if joint != wrist]
    np.testing.assert_array_equal(np.isfinite(poses.xyz[:, 0, others]), np.isfinite(right.xyz[:, 0, others]))
