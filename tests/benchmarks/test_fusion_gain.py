"""The benchmark of canonical fusion: what is covered, what is compared, and the crops of the other network."""

import math

import numpy as np
import pytest
import torch

from mvpose.benchmarks.blaze_pose import SIDE, _from_crop
from mvpose.benchmarks.covered_cameras import GREY, Cover, CoveredCameras, covered
from mvpose.benchmarks.fusion_gain import Gain, _left_out_px, _ReferenceJoints, take_conditions
from mvpose.scenes import ring4
from mvpose.skeleton import BODY_JOINTS


def test_covers_hide_what_they_say_and_an_edge_ends_the_image() -> None:
    images = np.arange(2 * 10 * 8 * 3, dtype=np.uint8).reshape(2, 10, 8, 3)
    middle = np.array([3.2, 5.9])
    lower, left = (covered(images, middle, cover) for cover in (Cover.LOWER, Cover.LEFT))
    assert (lower[:, 6:] == GREY).all() and (left[:, :, :3] == GREY).all()
    np.testing.assert_array_equal(lower[:, :6], images[:, :6])
    np.testing.assert_array_equal(left[:, :, 3:], images[:, :, 3:])
    np.testing.assert_array_equal(covered(images, middle, Cover.EDGE), images[:, :6])
    np.testing.assert_array_equal(covered(images, middle, Cover.NOTHING), images)


def test_errors_are_compared_on_the_joints_that_both_have() -> None:
    """Fails if a method gains by losing its worst joints."""
    gain = Gain.of(np.array([10.0, 20.0, np.nan, 90.0]), np.array([5.0, 10.0, 3.0, np.nan]))
    assert (gain.without, gain.fused, gain.change) == (15.0, 7.5, -0.5)
    assert (gain.found_without, gain.found_fused) == (0.75, 0.75)


def test_conditions_use_two_to_all_cameras_and_cover_at_most_two_of_four() -> None:
    conditions = take_conditions(6)
    assert [len(conditions[f"{n} cameras"][0][0]) for n in range(2, 7)] == [2, 3, 4, 5, 6]
    for name, variants in conditions.items():
        for views, covers in variants:
            assert set(covers) <= {0, 1} and (not covers or list(views) == [0, 1, 2, 3]), name


@pytest.mark.parametrize("angle", [0.0, math.pi / 2])
def test_a_crop_of_the_other_network_is_upright_about_its_centre(angle: float) -> None:
    """The crop's upward direction is the body's, turned clockwise by the angle. Fails if it turns the other way."""
    matrix = _from_crop(np.array([100.0, 50.0]), 512.0, angle)
    middle = (SIDE - 1) / 2
    np.testing.assert_allclose(matrix @ [middle, middle, 1], [100, 50])
    above = matrix @ [middle, middle - 10, 1] - [100, 50]
    np.testing.assert_allclose(above, 20 * np.array([math.sin(angle), -math.cos(angle)]), atol=1e-9)


def test_a_joint_that_is_missing_has_no_error_in_a_camera_left_out() -> None:
    """Fails if missing joints are projected into the middle of the image, which gives them large errors."""
    scene = ring4(num_frames=1)
    body = scene.joints[:, :1, scene.skeleton.indices(*BODY_JOINTS)].copy()
    seen = scene.rig.project(torch.from_numpy(body))[0].numpy()[:, 0]
    reference = _ReferenceJoints(seen[2], np.array([500.0]))
    body[0, 0, 3] = np.nan
    cameras = CoveredCameras("", scene.rig, 25.0, np.zeros((4, 2)), {})
    error = _left_out_px(body, [reference], cameras, 2)
    assert np.isnan(error[3]) and np.delete(error, 3).max() < 1e-6
