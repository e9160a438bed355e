import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvpose.geometry.epipolar import epipolar_distances, fundamental_of
from mvpose.geometry.polynomial import corrected_pixels, triangulate_by_pairs, triangulate_polynomial, vector_median
from mvpose.geometry.refinement import RobustLoss, refine
from mvpose.geometry.triangulation import reprojection_errors, triangulate
from tests.geometry.rigs import h36m, ideal_pixels, noisy, people_points, ring


@pytest.mark.parametrize("pair", [[0, 1], [0, 2], [0, 3], [1, 2]])
def test_corrected_pixels_are_those_of_opencv(pair):
    projections = h36m().projections[pair]
    left, right = noisy(ideal_pixels(people_points(300), projections), 5.0).unbind(dim=1)
    f = fundamental_of(projections[0], projections[1])
    ours = corrected_pixels(left, right, f)
    theirs = cv2.correctMatches(f.numpy(), left.numpy()[None], right.numpy()[None])
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one.numpy(), other[0], atol=1e-3)
    assert epipolar_distances(*ours, f).max() < 1e-7


def test_a_rectified_pair_whose_epipoles_lie_at_infinity_is_no_special_case():
    k = h36m().intrinsics[0]
    left = k @ torch.eye(3, 4, dtype=torch.float64)
    right = left.clone()
    right[0, 3] = -500.0
    points = people_points(50) + torch.tensor([0.0, 0.0, 4.0])
    a, b = noisy(ideal_pixels(points, torch.stack([left, right])), 3.0).unbind(dim=1)
    one, other = corrected_pixels(a, b, fundamental_of(left, right))
    middle = (a[:, 1] + b[:, 1]) / 2
    torch.testing.assert_close(one[:, 1], middle, atol=1e-4, rtol=0.0)
    torch.testing.assert_close(other[:, 1], middle, atol=1e-4, rtol=0.0)
    torch.testing.assert_close(one[:, 0], a[:, 0], atol=1e-4, rtol=0.0)


@given(st.integers(0, 2**31 - 1), st.floats(0.0, 10.0))
@settings(max_examples=15, deadline=None)
def test_no_point_near_by_has_a_smaller_reprojection_error(seed, sigma):
    projections = ring(3).projections[:2]
    pixels = noisy(ideal_pixels(people_points(10, seed), projections), sigma, seed)
    found = triangulate_polynomial(pixels, projections)
    assert found.valid.all()
    cost = reprojection_errors(found.points, pixels, projections).square().sum(dim=-1)
    refined = refine(found.points, pixels, projections, loss=RobustLoss.SQUARED, steps=20)
    assert (cost <= refined.residuals_px.square().sum(dim=-1) + 1e-6).all()
    linear = triangulate(pixels, projections).points
    assert (cost <= reprojection_errors(linear, pixels, projections).square().sum(dim=-1) + 1e-6).all()


def test_exact_pixels_stay_where_they_are():
    points, projections = people_points(20), h36m().projections[:2]
    pixels = ideal_pixels(points, projections)
    left, right = corrected_pixels(pixels[:, 0], pixels[:, 1], fundamental_of(projections[0], projections[1]))
    torch.testing.assert_close(torch.stack([left, right], dim=1), pixels, atol=1e-6, rtol=0.0)
    torch.testing.assert_close(triangulate_polynomial(pixels, projections).points, points, atol=1e-7, rtol=0.0)


def test_the_vector_median_is_one_of_the_points_and_ignores_a_stray():
    points = torch.tensor([[[0.0, 0, 0], [0.1, 0, 0], [0.0, 0.1, 0], [-9.0, -9, -9], [torch.nan, 0, 0]]])
    mask = torch.tensor([[True, True, True, True, False]])
    assert torch.equal(vector_median(points, mask), points[:, 0])
    assert torch.equal(vector_median(points, torch.zeros_like(mask)), torch.zeros(1, 3))
    assert torch.equal(vector_median(points, torch.tensor([[False, False, False, True, False]])), points[:, 3])


def test_the_median_over_pairs_survives_a_wrong_view_and_absent_ones():
    points, projections = people_points(100), ring(5).projections
    pixels = noisy(ideal_pixels(points, projections), 1.0)
    pixels[:, 4] += 150.0
    mask = torch.ones(100, 5, dtype=torch.bool)
    mask[0] = torch.tensor([True, False, False, False, False])
    mask[1] = torch.tensor([True, True, False, False, False])
    pixels[0, 1:] = torch.nan
    found = triangulate_by_pairs(pixels, projections, mask=mask)
    assert not found.valid[0]
    assert found.valid[1:].all()
    assert (found.points - points)[1:].norm(dim=-1).median() < 0.02
    torch.testing.assert_close(
        found.points[1], triangulate_polynomial(pixels[1, :2], projections[:2]).points, atol=1e-9, rtol=0.0
    )
