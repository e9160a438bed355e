"""The scale that is fitted, on joints whose errors follow a known one, and the figures of rules on known 2D joints."""

from dataclasses import replace

import numpy as np
import pytest

from mvpose import scenes
from mvpose.benchmarks.cut_off import joint_figures
from mvpose.benchmarks.detected_takes import DetectedTake, FoundJoints, found_joints
from mvpose.benchmarks.reliability import fitted_scale
from mvpose.confidence import RIGHT_WITHIN, ConfidenceScale
from mvpose.errors import ConfigError
from mvpose.skeleton import BODY_JOINTS


def test_a_scale_is_found_again_from_joints_that_follow_it():
    # Fails if joints outside images enter the curve, or the factor is fitted to likelihoods instead of odds.
    rng = np.random.default_rng(0)
    scale = ConfidenceScale(likelihood=((0.0, 0.0), (0.3, 0.2), (0.6, 0.8), (0.9, 0.9)), border_odds=0.3)
    confidence, border = rng.uniform(size=60_000), rng.uniform(-0.1, 0.3, 60_000)
    cut = border < 0.1
    likelihood = np.where(cut, scale.likelihood_near(confidence, border), scale.likelihood_of(confidence))
    error = np.where(rng.uniform(size=60_000) < likelihood, 0.5, 2.0) * RIGHT_WITHIN
    found = fitted_scale(FoundJoints(confidence, error, error, border, np.where(cut, 9.0, 0.0)), RIGHT_WITHIN)
    at = np.linspace(0.05, 0.95, 10)
    np.testing.assert_allclose(found.likelihood_of(at), scale.likelihood_of(at), atol=0.03)
    assert found.border_odds == pytest.approx(0.3, abs=0.05)


def test_a_likelihood_does_not_rest_on_a_handful_of_joints():
    """Fails if the three surest joints, which happen to be right, make all such joints certain."""
    rng = np.random.default_rng(0)
    confidence = np.append(rng.uniform(0.02, 0.3, 3000), [0.6, 0.7, 0.9])
    error = np.where(rng.uniform(size=len(confidence)) < confidence, 0.5, 2.0) * RIGHT_WITHIN
    error[-3:] = 0.0
    found = fitted_scale(FoundJoints(confidence, error, error, np.ones_like(error), np.zeros_like(error)), RIGHT_WITHIN)
    assert found.likelihood[-1][0] == 0.3 and found.likelihood_of(np.array([0.9])) < 0.4
    few = FoundJoints(*(np.full(20, value) for value in (0.5, 0.0, 0.0, 1.0, 0.0)))
    with pytest.raises(ConfigError, match="20 joints of people found in the images are too few"):
        fitted_scale(few, RIGHT_WITHIN)


def take(noise_px: float) -> DetectedTake:
    scene = scenes.two_people_crossing(num_frames=12)
    body = scene.skeleton.indices(*BODY_JOINTS)
    return DetectedTake(scene.rig, scene.keypoints(noise_px), scene.joints[:, :, body], scene.fps)


def test_each_person_has_the_errors_of_its_own_detection():
    # Fails if detections are matched in the order of their slots, which are shuffled.
    found = found_joints(take(2.0))
    assert len(found.error) > 12 * 4 * 12 and np.quantile(found.error_px, 0.99) < 12.0
    assert (found.border[found.outside_px == 0] > -0.02).all() and (found.confidence > 0).mean() > 0.9


def test_right_2d_joints_give_right_3d_joints_and_people_who_are_not_found_count_as_missing():
    # Fails if missing joints are left out of the shares.
    exact = joint_figures([take(0.5)], lambda keypoints, _: keypoints)
    assert exact.complete_right == 1.0 and exact.complete_mean_mm < 10.0

    def half(keypoints, _):
        there = (np.arange(keypoints.xy.shape[1]) % 2 == 0)[:, None, None]
        return replace(
            keypoints, confidence=keypoints.confidence * there, box_score=keypoints.box_score * there[..., 0]
        )

    assert joint_figures([take(0.5)], half).complete_right == pytest.approx(0.5)
    assert joint_figures([take(0.5)], lambda k, _: replace(k, confidence=0.0 * k.confidence)).complete_right == 0.0
