"""Draws move pixels and cameras together, and stay in their ranges."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvpose.errors import ConfigError
from mvpose.training.augmentation import (
    NONE,
    AugmentationConfig,
    covered,
    crop_from_picture,
    recoloured,
    without_some_views,
)

SEEDS = st.integers(0, 10_000)


@given(seed=SEEDS)
def test_a_crop_is_a_similarity_within_its_ranges_about_the_box(seed):
    config = AugmentationConfig(rotation_degrees=20.0, scale=0.2, shift=0.1)
    box = np.array([10.0, 20.0, 70.0, 140.0])
    change = crop_from_picture(box, (128, 128), 1.5, config, np.random.default_rng(seed))
    a, b = change[0, 0], change[1, 0]
    assert change[0, 1] == pytest.approx(-b) and change[1, 1] == pytest.approx(a)
    assert abs(np.degrees(np.arctan2(b, a))) <= 20.0
    assert 0.8 <= np.hypot(a, b) * 1.5 * 120 / 128 <= 1.2
    middle = change @ (40.0, 80.0, 1.0)
    assert np.abs(middle[:2] - 63.5).max() <= 0.1 * 128 + 1e-9


def test_without_augmentation_a_crop_of_the_whole_picture_is_a_resize_by_the_half_pixel_rule():
    whole = np.array([-0.5, -0.5, 127.5, 127.5])
    change = crop_from_picture(whole, (64, 64), 1.0, NONE, np.random.default_rng(0))
    np.testing.assert_allclose(change, [[0.5, 0, -0.25], [0, 0.5, -0.25], [0, 0, 1]], atol=1e-12)


def test_a_tall_box_fits_into_a_wide_crop():
    change = crop_from_picture(np.array([0.0, 0, 10, 100]), (256, 192), 1.0, NONE, np.random.default_rng(0))
    assert (change @ (5.0, 0.0, 1.0))[1] == pytest.approx(95.5 - 96)


@given(seed=SEEDS, dropout=st.floats(0, 1), kept=st.integers(1, 4))
def test_dropped_views_leave_as_many_as_must_be_kept_and_bring_none_back(seed, dropout, kept):
    rng = np.random.default_rng(seed)
    present = rng.random(5) < 0.7
    config = AugmentationConfig(view_dropout=dropout, kept_views=kept)
    left = without_some_views(present, config, rng)
    assert not (left & ~present).any()
    assert left.sum() >= min(kept, present.sum())


def test_all_views_but_those_kept_are_dropped_at_probability_one():
    config = AugmentationConfig(view_dropout=1.0, kept_views=2)
    left = [without_some_views(np.ones(4, bool), config, np.random.default_rng(s)) for s in range(50)]
    assert {int(m.sum()) for m in left} == {2}
    assert len({m.tobytes() for m in left}) == 6


def test_colours_change_as_much_as_asked_for_and_places_do_not():
    crop = np.full((8, 8, 3), 100, np.uint8)
    changed = recoloured(crop, AugmentationConfig(colour=0.3), np.random.default_rng(1))
    assert (changed == changed[0, 0]).all() and (changed != crop).any()
    assert recoloured(crop, NONE, np.random.default_rng(1)) is crop


def test_an_occluder_covers_a_part_and_leaves_the_original_alone():
    crop = np.zeros((64, 64, 3), np.uint8)
    shares = []
    for seed in range(40):
        out = covered(crop, AugmentationConfig(occluders=1.0, occluder_side=0.5), np.random.default_rng(seed))
        shares.append(float((out > 0).any(axis=-1).mean()))
    assert not crop.any()
    assert min(shares) > 0.0 and max(shares) <= 0.27


def test_shares_beyond_their_range_are_refused():
    with pytest.raises(ConfigError, match="occluders"):
        AugmentationConfig(occluders=1.5)
    with pytest.raises(ConfigError, match="negative"):
        AugmentationConfig(rotation_degrees=-1.0)
