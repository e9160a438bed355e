"""Crops of pinholes: where pixels go, what a lens does, and what shrinking loses."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvpose.geometry.lens import Lens, LensModel
from mvpose.models.pinhole_crops import CropRule, Jitter, crop_about, pinhole_crop
from tests.training.conftest import SIDE, ring


@given(
    turn=st.floats(-3, 3), zoom=st.floats(0.3, 3), right=st.floats(-0.4, 0.4), down=st.floats(-0.4, 0.4),
    aside=st.floats(-40, 40), below=st.floats(-40, 40),
)  # fmt: skip
def test_a_crop_turns_zooms_and_shifts_about_the_centre_of_the_box(turn, zoom, right, down, aside, below):
    box, rule = np.array([100.0, 50.0, 160.0, 170.0]), CropRule(size=(96, 192), margin=1.5)
    change = crop_about(box, rule, Jitter(turn=turn, zoom=zoom, shift=(right, down)))
    centre = change @ (130.0, 110.0, 1.0)
    np.testing.assert_allclose(centre, [47.5 + 96 * right, 95.5 + 192 * down, 1.0], atol=1e-9)
    place = (change @ (130.0 + aside, 110.0 + below, 1.0) - centre)[:2]
    # The width of 60 needs the crop's 96 more than the height of 120 its 192: both give the same factor.
    factor = zoom * 96 / (1.5 * 60)
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ (aside, below)
    np.testing.assert_allclose(place, factor * turned, atol=1e-9)


def test_a_crop_of_the_whole_image_is_a_resize_by_the_half_pixel_rule():
    whole = np.array([-0.5, -0.5, 127.5, 127.5])
    change = crop_about(whole, CropRule(size=(64, 64), margin=1.0))
    np.testing.assert_allclose(change, [[0.5, 0, -0.25], [0, 0.5, -0.25], [0, 0, 1]], atol=1e-12)


def test_a_tall_box_fits_into_a_wide_crop():
    change = crop_about(np.array([0.0, 0, 10, 100]), CropRule(size=(256, 192), margin=1.0))
    assert (change @ (5.0, 0.0, 1.0))[1] == pytest.approx(95.5 - 96)


def test_a_crop_that_changes_nothing_is_the_image():
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    np.testing.assert_array_equal(pinhole_crop(image, ring(), 0, np.eye(3), (SIDE, SIDE)), image)


def test_a_fisheye_without_coefficients_is_not_taken_for_a_pinhole():
    rig = ring()
    rig = replace(rig, lens=Lens.of(LensModel.KANNALA_BRANDT, [[]] * 4))
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3)).astype(np.uint8)
    assert (pinhole_crop(image, rig, 0, np.eye(3), (SIDE, SIDE)) != image).any()


def test_much_smaller_crops_are_averages_not_samples():
    """A checkerboard of single pixels is grey from afar."""
    board = np.indices((SIDE, SIDE)).sum(axis=0) % 2 * 255
    image = np.repeat(board[..., None], 3, axis=-1).astype(np.uint8)
    change = np.diag([0.25, 0.25, 1.0])
    change[:2, 2] = 0.5 * 0.25 - 0.5
    small = pinhole_crop(image, ring(), 0, change, (32, 32))
    assert np.abs(small.astype(int) - 127).max() <= 2
