"""Rows to what networks are trained on: pixels, cameras and truth agree."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvpose.datasets.files import DatasetError
from mvpose.datasets.sample import SampleImage
from mvpose.geometry.triangulation import triangulate
from mvpose.models.input_rule import MARGIN
from mvpose.models.pinhole_crops import CropRule
from mvpose.skeleton import COCO17, HUMAN36M17
from mvpose.training.augmentation import AugmentationConfig
from mvpose.training.batches import CropView, TrainingBatch, sample_arrays, stacked
from tests.training.conftest import SIDE, drawn_sample, people, ring

VIEW = CropView(skeleton=HUMAN36M17, crop=CropRule(size=(128, 128), margin=MARGIN))
PERSON = people(5)[3]
HEAVY = AugmentationConfig(rotation_degrees=40.0, scale=0.3, shift=0.1, colour=0.0, occluders=0.0)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), lens=st.booleans())
def test_cameras_stay_exact_under_any_augmentation(seed, lens):
    sample = drawn_sample(ring(lens=lens), PERSON)
    found = {k: torch.from_numpy(v) for k, v in sample_arrays(sample, VIEW, rng(seed), HEAVY).items()}
    inside = found["inside"]
    enough = inside.sum(dim=0) >= 2
    points = triangulate(
        found["joints_2d"].double().swapaxes(0, 1),
        found["projections"].double(),
        inside.double().swapaxes(0, 1),
        inside.swapaxes(0, 1),
    ).points
    assert enough.sum() > 8
    torch.testing.assert_close(points[enough], torch.from_numpy(PERSON)[enough], atol=1e-4, rtol=0)


@pytest.mark.parametrize("lens", [False, True])
@pytest.mark.parametrize("size", [(128, 128), (64, 64), (256, 192)])
def test_what_is_drawn_lies_where_the_camera_says(lens, size):
    """A white dot at the nose of a black image, found again by its centre of mass in every augmented crop."""
    rig = ring(lens=lens)
    sample = drawn_sample(rig, PERSON)
    nose = HUMAN36M17.index("nose")
    places = rig.project(torch.from_numpy(PERSON[nose : nose + 1]))[0][:, 0].numpy()
    dots = [spot(place) for place in places]
    sample = replace(sample, images=tuple(SampleImage(crop=png(dot)) for dot in dots))
    found = sample_arrays(sample, replace(VIEW, crop=CropRule(size=size, margin=MARGIN)), rng(5), HEAVY)
    for v in range(4):
        grey = found["crops"][v].astype(float).mean(axis=0)
        y, x = np.mgrid[: size[1], : size[0]]
        centre = np.array([(grey * x).sum(), (grey * y).sum()]) / grey.sum()
        assert np.abs(centre - found["joints_2d"][v, nose]).max() < 0.15


def spot(place: np.ndarray) -> np.ndarray:
    """A Gaussian spot of 3 pixels about a place, in an image of the ring's cameras."""
    y, x = np.mgrid[:SIDE, :SIDE]
    value = 255 * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / 18)
    return np.repeat(value[..., None], 3, axis=-1).round().astype(np.uint8)


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def test_missing_views_are_absent_and_spare_ones_are_left_out():
    sample = drawn_sample(ring(3), PERSON)
    padded = sample_arrays(sample, VIEW, rng())
    assert padded["present"].tolist() == [True, True, True, False]
    assert not padded["crops"][3].any() and not padded["inside"][3].any()
    chosen = sample_arrays(drawn_sample(ring(6), PERSON), replace(VIEW, cameras=("cam5", "cam2")), rng())
    rig = ring(6).select(("cam5", "cam2"))
    assert chosen["present"].tolist() == [True, True, False, False]
    ratio = chosen["projections"][0] @ np.append(rig.centres_world[0].numpy(), 1.0)
    assert np.abs(ratio).max() < 1e-3


def test_a_view_without_the_person_is_absent():
    sample = drawn_sample(ring(), PERSON)
    sample.box[1] = np.nan
    assert sample_arrays(sample, VIEW, rng())["present"].tolist() == [True, False, True, True]


def test_views_are_drawn_from_those_there_are_in_their_order():
    sample = drawn_sample(ring(8), PERSON)
    config = replace(HEAVY, rotation_degrees=0.0, scale=0.0, shift=0.0)
    chosen = set()
    for seed in range(30):
        projections = sample_arrays(sample, replace(VIEW, views=3), rng(seed), config)["projections"]
        centres = [np.linalg.svd(p)[2][-1] for p in projections]
        centres = np.array([c[:3] / c[3] for c in centres])
        near = np.linalg.norm(centres[:, None] - sample.rig.centres_world.numpy(), axis=-1).argmin(axis=1)
        assert (np.diff(near) > 0).all()
        chosen.add(tuple(near))
    assert len(chosen) > 15


def test_joints_that_the_table_lacks_are_not_known():
    found = sample_arrays(drawn_sample(ring(), PERSON), replace(VIEW, skeleton=COCO17), rng())
    known = dict(zip(COCO17.joints, found["known"], strict=True))
    assert known["left_wrist"] and not known["left_ear"]
    np.testing.assert_allclose(
        found["joints"][COCO17.index("left_wrist")], PERSON[HUMAN36M17.index("left_wrist")], atol=1e-6
    )
    assert not found["inside"][:, ~found["known"]].any()


def test_what_is_drawn_depends_on_the_generator_alone():
    sample = drawn_sample(ring(), PERSON)
    first, second, other = (sample_arrays(sample, VIEW, rng(s), AugmentationConfig()) for s in (1, 1, 2))
    assert all((first[name] == second[name]).all() for name in first)
    assert (first["crops"] != other["crops"]).any()


@pytest.mark.parametrize("lens", [False, True])
def test_a_mirrored_sample_is_the_flipped_one_with_left_for_right(lens):
    sample = drawn_sample(ring(lens=lens), PERSON)
    plain = sample_arrays(sample, VIEW, rng(3), HEAVY)
    image = sample_arrays(sample, VIEW, rng(3), replace(HEAVY, mirror=1.0))
    twins = list(HUMAN36M17.mirror)
    np.testing.assert_array_equal(image["crops"], plain["crops"][..., ::-1])
    np.testing.assert_array_equal(image["inside"], plain["inside"][:, twins])
    flipped = plain["joints_2d"].copy()
    seen = plain["present"][:, None]  # everybody is in front of the cameras
    flipped[..., 0] = np.where(seen, VIEW.crop.size[0] - 1 - flipped[..., 0], 0.0)
    np.testing.assert_allclose(image["joints_2d"], flipped[:, twins], atol=1e-4)
    np.testing.assert_array_equal(image["joints"], plain["joints"][twins] * np.array([-1, 1, 1], np.float32))


def test_a_probability_of_zero_draws_nothing_and_one_of_a_half_mirrors_half():
    """So that samples of recipes without mirroring are bit-equal to what they were before there was any."""
    sample = drawn_sample(ring(), PERSON)
    without, with_one = rng(4), rng(4)
    plain = sample_arrays(sample, VIEW, without, HEAVY)
    same = sample_arrays(sample, VIEW, with_one, replace(HEAVY, mirror=1e-12))
    without.random()
    assert without.bit_generator.state == with_one.bit_generator.state
    assert all((plain[name] == same[name]).all() for name in plain)
    half = [sample_arrays(sample, VIEW, rng(s), replace(HEAVY, mirror=0.5))["joints"] for s in range(40)]
    assert 10 <= sum(bool((joints == plain["joints"]).all()) for joints in half) <= 30


def test_damaged_images_and_videos_are_refused_by_name():
    sample = drawn_sample(ring(), PERSON, frame=7)
    with pytest.raises(DatasetError, match="walk frame 7"):
        sample_arrays(replace(sample, images=(SampleImage(crop=b"no"),) * 4), VIEW, rng())
    with pytest.raises(DatasetError, match=r"--crops\.side"):
        sample_arrays(replace(sample, images=(SampleImage("a.mp4", 3),) * 4), VIEW, rng())


def test_a_batch_in_parts_is_the_batch():
    arrays = stacked([sample_arrays(drawn_sample(ring(), xyz), VIEW, rng()) for xyz in people(4)])
    batch = TrainingBatch.of({k: torch.from_numpy(v) for k, v in arrays.items()})
    parts = batch.parts(2)
    assert [len(p) for p in parts] == [2, 2]
    torch.testing.assert_close(torch.cat([p.truth.joints for p in parts]), batch.truth.joints)
