"""Figures of sigma on errors that follow it and on errors that do not, and on reconstructed people of known places."""

import numpy as np
import pytest

from mvpose import scenes
from mvpose.benchmarks.detected_takes import DetectedTake
from mvpose.benchmarks.sigma_reliability import errors_and_sigmas_mm, sigma_figures
from mvpose.reconstruction.joint_spread import share_within
from mvpose.skeleton import BODY_JOINTS


def test_errors_that_follow_sigma_are_counted_as_said_and_doubled_ones_are_not():
    rng = np.random.default_rng(0)
    sigma = rng.uniform(10.0, 60.0, 100_000)
    distances = np.linspace(0.0, 300.0, 3001)
    shares = share_within(1.0, 1.0 / distances[1:])
    error = sigma * np.interp(rng.uniform(size=sigma.size), np.append(0.0, shares), distances)
    figures = sigma_figures(error, sigma, 20.0)
    assert figures["every sigma"].joints == 100_000 == sum(row.joints for row in figures.values()) - 100_000
    for row in figures.values():
        assert row.within_sigma == pytest.approx(0.68, abs=0.02) and row.said == pytest.approx(row.counted, abs=0.02)
    assert figures["0 to 20 mm"].said > 2 * figures["50 to 70 mm"].said
    boastful = sigma_figures(2.0 * error, sigma, 20.0)["every sigma"]
    assert boastful.within_sigma < 0.5 and boastful.counted < boastful.said - 0.1


def test_each_error_stands_beside_the_sigma_of_its_own_joint():
    """Fails if sigmas are those of another person or of all joints of the skeleton in their order."""
    scene = scenes.two_people_crossing(num_frames=12)
    body = scene.skeleton.indices(*BODY_JOINTS)
    keypoints = scene.keypoints(2.0)
    worse = keypoints.skeleton.index("left_wrist")
    keypoints.confidence[..., worse] *= 0.6
    take = DetectedTake(scene.rig, keypoints, scene.joints[:, :, body], scene.fps)
    error, sigma = errors_and_sigmas_mm([take], 4)
    assert error.shape == sigma.shape == (12 * 2 * 12,) and np.isfinite(sigma).all()
    of_joints = np.median(sigma.reshape(-1, 12), axis=0)
    assert of_joints.argmax() == BODY_JOINTS.index("left_wrist") and of_joints.max() > 1.2 * np.median(of_joints)
    assert np.median(errors_and_sigmas_mm([take], 2)[1]) > np.median(sigma)
