"""What the confidence of a source means, as a likelihood."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvpose.confidence import AS_STATED, BORDER, ConfidenceScale
from mvpose.errors import ConfigError

SCALE = ConfidenceScale(likelihood=((0.0, 0.0), (0.1, 0.3), (1.0, 0.98)), border_odds=0.25)


def test_a_confidence_between_two_points_has_a_likelihood_between_theirs_and_a_missing_joint_none():
    # Fails without interpolation, and if a joint without confidence gets the likelihood of the first point.
    np.testing.assert_allclose(SCALE.likelihood_of(np.array([0.05, 0.1, 0.55, 1.0])), [0.15, 0.3, 0.64, 0.98])
    assert ConfidenceScale(likelihood=((0.0, 0.2), (1.0, 1.0))).likelihood_of(np.zeros(1)) == 0.0


def test_on_the_border_the_odds_are_those_of_the_scale_and_away_from_it_they_do_not_change():
    # Fails if the factor is applied to the likelihood instead of its odds, or continues beyond the border.
    confidence = np.full(4, 0.55)
    near = SCALE.likelihood_near(confidence, np.array([-3.0, 0.0, BORDER / 2, BORDER]))
    odds = near / (1.0 - near)
    np.testing.assert_allclose(odds / odds[3], [0.25, 0.25, 0.5, 1.0])
    assert near[3] == pytest.approx(0.64)


@given(st.floats(0.0, 1.0), st.floats(-0.5, 0.5))
def test_a_likelihood_is_not_above_the_one_inside_the_image_and_rises_with_confidence(confidence, border):
    two = np.array([confidence, min(1.0, confidence + 0.1)])
    near, inside = SCALE.likelihood_near(two, np.full(2, border)), SCALE.likelihood_of(two)
    assert (near <= inside + 1e-12).all() and near[0] <= near[1] and (near >= 0).all() and (near <= 1).all()


def test_without_a_scale_confidence_is_the_likelihood_bit_for_bit_wherever_the_joint_is():
    confidence = np.random.default_rng(0).uniform(size=1000)
    assert (AS_STATED.likelihood_near(confidence, np.full(1000, -1.0)) == confidence).all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"likelihood": ((0.0, 0.0), (0.5, 0.4), (0.4, 0.8))},
        {"likelihood": ((0.0, 0.5), (1.0, 0.4))},
        {"likelihood": ((0.0, 0.0), (100.0, 1.0))},
        {"likelihood": ()},
        {"border_odds": 0.0},
        {"border_odds": 2.0},
    ],
)
def test_a_scale_that_falls_or_leaves_0_to_1_is_refused(wrong):
    with pytest.raises(ConfigError, match="pairs of confidence and likelihood, ascending"):
        ConfidenceScale(**wrong)
