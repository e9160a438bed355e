"""Draws move pixels and cameras together, and stay in their ranges."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import rq

from mvpose.errors import ConfigError
from mvpose.geometry.triangulation import triangulate
from mvpose.models.pinhole_crops import NO_JITTER, CropRule, crop_about
from mvpose.skeleton import HUMAN36M17
from mvpose.training.augmentation import (
    AugmentationConfig,
    covered,
    drawn_jitter,
    mirrored,
    recoloured,
    without_some_views,
)
from mvpose.training.batches import projected
from mvpose.training.training_config import NONE
from tests.training.conftest import SIDE, people, ring

SEEDS = st.integers(0, 10_000)


@settings(max_examples=25)
@given(seed=SEEDS)
def test_a_crop_is_a_similarity_within_its_ranges_about_the_box(seed):
    config = AugmentationConfig(rotation_degrees=20.0, scale=0.2, shift=0.1)
    box = np.array([10.0, 20.0, 70.0, 140.0])
    jitter = drawn_jitter(config, np.random.default_rng(seed))
    change = crop_about(box, CropRule(size=(128, 128), margin=1.5), jitter)
    a, b = change[0, 0], change[1, 0]
    assert change[0, 1] == pytest.approx(-b) and change[1, 1] == pytest.approx(a)
    assert abs(np.degrees(np.arctan2(b, a))) <= 20.0
    assert 0.8 <= np.hypot(a, b) * 1.5 * 120 / 128 <= 1.2
    middle = change @ (40.0, 80.0, 1.0)
    assert np.abs(middle[:2] - 63.5).max() <= 0.1 * 128 + 1e-9


def test_without_ranges_every_draw_is_the_crop_about_the_box():
    assert {drawn_jitter(NONE, np.random.default_rng(seed)) for seed in range(3)} == {NO_JITTER}


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


def scene(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Crops of noise, turned cameras (4 3 4) on a ring, a person beside the mirror, and what of it is known."""
    rng = np.random.default_rng(seed)
    config = AugmentationConfig(rotation_degrees=40.0, scale=0.3, shift=0.1)
    box = np.array([-0.5, -0.5, SIDE - 0.5, SIDE - 0.5])
    rule = CropRule(size=(SIDE, SIDE), margin=1.0)
    changes = np.stack([crop_about(box, rule, drawn_jitter(config, rng)) for _ in range(4)])
    crops = rng.integers(0, 256, (4, 3, SIDE, SIDE)).astype(np.uint8)
    joints = people(3)[2] + (*rng.uniform(-0.3, 0.3, 2), 0.0)
    return crops, changes @ ring().projections.numpy(), joints, rng.random(17) < 0.8


@settings(max_examples=25)
@given(seed=SEEDS)
def test_mirrored_joints_fall_on_the_mirrored_images_of_their_twins(seed):
    crops, projections, joints, known = scene(seed)
    before, inside, front = projected(projections, joints, (SIDE, SIDE))
    turned, cameras, image, still_known = mirrored(crops, projections, joints, known, HUMAN36M17.mirror)
    after, inside_after, _ = projected(cameras, image, (SIDE, SIDE))
    twins = list(HUMAN36M17.mirror)
    np.testing.assert_array_equal(inside_after, inside[:, twins])
    np.testing.assert_array_equal(still_known, known[twins])
    before[..., 0] = np.where(front, SIDE - 1 - before[..., 0], 0.0)
    np.testing.assert_allclose(after, before[:, twins], atol=1e-9)
    np.testing.assert_array_equal(turned[..., 5], crops[..., SIDE - 1 - 5])
    left, right = HUMAN36M17.indices("left_wrist", "right_wrist")
    np.testing.assert_array_equal(image[left], joints[right] * (-1, 1, 1))


@settings(max_examples=25)
@given(seed=SEEDS)
def test_mirroring_twice_is_nothing(seed):
    before = scene(seed)
    twice = mirrored(*mirrored(*before, HUMAN36M17.mirror), HUMAN36M17.mirror)
    for old, new in zip(before, twice, strict=True):
        np.testing.assert_allclose(new.astype(float), old.astype(float), atol=1e-9)


@settings(max_examples=25)
@given(seed=SEEDS)
def test_mirrored_cameras_are_cameras_and_stand_where_a_mirror_shows_them(seed):
    """A proper rotation with a positive focal length, by the RQ decomposition."""
    crops, projections, joints, known = scene(seed)
    cameras = mirrored(crops, projections, joints, known, HUMAN36M17.mirror)[1]
    for old, new in zip(projections, cameras, strict=True):
        k, rotation = rq(new[:, :3])
        signs = np.diag(np.sign(np.diag(k)))
        assert np.linalg.det(signs @ rotation) == pytest.approx(1.0)
        centre, image = (-np.linalg.solve(p[:, :3], p[:, 3]) for p in (old, new))
        np.testing.assert_allclose(image, centre * (-1, 1, 1), atol=1e-9)
        np.testing.assert_allclose(
            np.abs(np.diag(k)) / np.abs(k[2, 2]), np.abs(np.diag(rq(old[:, :3])[0])) / np.abs(rq(old[:, :3])[0][2, 2])
        )


@settings(max_examples=25)
@given(seed=SEEDS)
def test_mirrored_2d_joints_triangulate_to_the_mirrored_person(seed):
    crops, projections, joints, known = scene(seed)
    pixels, inside, _ = projected(projections, joints, (SIDE, SIDE))
    cameras = mirrored(crops, projections, joints, known, HUMAN36M17.mirror)[1]
    pixels[..., 0] = SIDE - 1 - pixels[..., 0]
    seen = torch.from_numpy(inside.T)
    found = triangulate(torch.from_numpy(pixels).swapaxes(0, 1), torch.from_numpy(cameras), seen.double(), seen)
    assert found.valid.sum() > 5
    np.testing.assert_allclose(found.points[found.valid], (joints * (-1, 1, 1))[found.valid.numpy()], atol=1e-6)
