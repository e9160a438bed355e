"""2D figures of several people in an image: counted by hand."""

import math

import numpy as np
import pytest
import torch

from mvpose.datasets.sample import TEST
from mvpose.evaluation.image_people import ImagePeople, image_figures, in_stored_image, true_people
from mvpose.models.network_settings import CropRule
from mvpose.rendering.camera_rigs import static_rig
from mvpose.rendering.scene import ImageConfig, scene_people
from mvpose.skeleton import BODY_JOINTS, HALPE26
from mvpose.training.batches import CropView, sample_arrays
from tests.rendering.test_scene import Mannequins

RNG = np.random.default_rng(0)
TRUE = RNG.uniform(0, 100, (2, 12, 2)) + np.array([[[0.0, 0.0]], [[400.0, 0.0]]])
TRUE[:, :2] = [[[0.0, 0.0], [100.0, 100.0]], [[400.0, 0.0], [500.0, 100.0]]]
ALL = np.ones((2, 12), bool)
"""The boxes about both are 100 x 100 pixels: an area of 5300."""


def image(predicted, score=None, inside=ALL, capture="c") -> ImagePeople:
    score = np.linspace(1.0, 0.5, len(predicted)) if score is None else np.array(score)
    return ImagePeople(capture, np.array(predicted), score, TRUE, inside, np.array([20.0, 20.0]))


def means(*images: ImagePeople) -> dict[str, float]:
    return {name: estimate.mean for name, estimate in image_figures(images).items()}


def test_the_similarity_is_cocos():
    """An elbow off by 10 pixels: exp(-100 / (2 * 5300 * (2 * 0.072)^2)), the others as they are."""
    off = TRUE.copy()
    off[0, BODY_JOINTS.index("left_elbow")] += [6.0, 8.0]
    expected = (11 + math.exp(-100 / (2 * 5300 * 0.144**2))) / 12
    assert image(off).similarity()[0, 0] == pytest.approx(expected, abs=1e-12)
    missing = TRUE.copy()
    missing[1, 3:6] = np.nan
    assert image(missing).similarity()[1, 1] == pytest.approx(9 / 12)
    inside = ALL.copy()
    inside[1, 3:6] = False
    assert image(missing, inside=inside).similarity()[1, 1] == pytest.approx(1.0)


def test_the_truth_has_every_figure_at_one():
    assert means(image(TRUE)) == pytest.approx(
        {"ap_2d": 1.0, "ap_2d@0.5": 1.0, "recall_2d@0.5": 1.0, "pckh_2d@0.5": 1.0, "pcp_2d": 1.0}
    )
    assert image_figures([]) == {}


def test_nobody_found_is_nothing_right():
    assert means(image(np.zeros((0, 12, 2)))) == pytest.approx(
        {"ap_2d": 0.0, "ap_2d@0.5": 0.0, "recall_2d@0.5": 0.0, "pckh_2d@0.5": 0.0, "pcp_2d": 0.0}
    )


def test_a_person_who_is_not_there_costs_precision_and_one_found_twice_too():
    nobody = np.concatenate([TRUE, TRUE[:1] + 4000.0])
    assert means(image(nobody, [0.9, 0.8, 0.1]))["ap_2d"] == pytest.approx(1.0)
    # Surer than the second: precisions 1/1, 1/2, 2/3 at recalls 1/2, 1/2, 1.
    assert means(image(nobody, [0.9, 0.5, 0.8]))["ap_2d"] == pytest.approx(0.5 + 0.5 * 2 / 3)
    twice = np.concatenate([TRUE, TRUE[:1]])
    assert means(image(twice, [0.9, 0.5, 0.8]))["ap_2d"] == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_joints_of_neighbours_that_are_exchanged_are_wrong():
    """Two people of whom each has the left arm and leg of the other: half of everything is wrong."""
    left = [i for i, joint in enumerate(BODY_JOINTS) if joint.startswith("left_")]
    mixed = TRUE.copy()
    mixed[:, left] = TRUE[::-1, left]
    found = means(image(mixed))
    assert found["pckh_2d@0.5"] == pytest.approx(0.5) and found["pcp_2d"] == pytest.approx(0.5)
    # Both are half alike to either person: hits at 0.5 alone.
    assert found["ap_2d@0.5"] == pytest.approx(1.0) and found["ap_2d"] == pytest.approx(0.1)


def test_a_joint_counts_in_pckh_within_half_of_the_head():
    near, far = TRUE.copy(), TRUE.copy()
    near[0, 4] += [9.9, 0.0]
    far[0, 4] += [10.1, 0.0]
    assert means(image(near))["pckh_2d@0.5"] == 1.0
    assert means(image(far))["pckh_2d@0.5"] == pytest.approx((11 / 12 + 1) / 2)


def test_pixels_of_a_crop_go_back_to_the_stored_image_without_its_distortion():
    """True joints through crops of the person are where the image's own camera without its lens has them."""
    people = scene_people(4, TEST, 1, Mannequins(), static_rig("ring8"), ImageConfig(side=96), group=2)
    sample = people[1]
    assert sample.rig.lens.coefficients.abs().max() > 0.01
    view = CropView(skeleton=HALPE26, crop=CropRule(size=(64, 64), margin=1.3), views=8)
    arrays = sample_arrays(sample, view, np.random.default_rng(0))
    found = in_stored_image(arrays["joints_2d"].astype(np.float64), arrays["projections"], sample.rig)
    for v in range(8):
        truth, inside, head = true_people(people, v)
        assert truth.shape == (2, 12, 2) and inside.all() and (head > 1.0).all()
        np.testing.assert_allclose(found[v][HALPE26.indices(*BODY_JOINTS)], truth[1], atol=0.01)
    straight, _ = sample.rig.undistorted(sample.rig.project(torch.from_numpy(sample.xyz))[0])
    np.testing.assert_allclose(found, straight.numpy(), atol=0.05)
    empty = arrays["projections"].copy()
    empty[3] = 0.0
    assert np.isnan(in_stored_image(arrays["joints_2d"].astype(np.float64), empty, sample.rig)[3]).all()
