import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares

from mvpose.geometry.refinement import RobustLoss, refine
from mvpose.geometry.triangulation import triangulate
from tests.geometry.rigs import h36m, ideal_pixels, noisy, people_points, ring


@given(st.integers(2, 6), st.integers(0, 2**31 - 1))
@settings(max_examples=10, deadline=None)
def test_exact_pixels_bring_a_point_home_from_a_hand_s_breadth_away(views, seed):
    points, projections = people_points(10, seed), ring(views).projections
    found = refine(points + 0.1, ideal_pixels(points, projections), projections, loss=RobustLoss.SQUARED, steps=15)
    torch.testing.assert_close(found.points, points, atol=1e-6, rtol=0.0)
    assert found.converged.all()
    assert found.residuals_px.max() < 1e-2


@pytest.mark.parametrize("loss", [RobustLoss.SQUARED, RobustLoss.HUBER])
def test_the_minimum_is_the_one_that_scipy_finds(loss):
    points, projections = people_points(8), h36m().projections
    pixels = noisy(ideal_pixels(points, projections), 3.0)
    weights = torch.rand(8, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.3
    found = refine(points, pixels, projections, weights, loss=loss, scale_px=4.0, steps=40)
    for i in range(8):

        def costs(x: np.ndarray, i: int = i) -> np.ndarray:
            offset = ideal_pixels(torch.from_numpy(x)[None], projections)[0] - pixels[i]
            cost = weights[i] ** 2 * loss.cost(offset.norm(dim=-1), 4.0)
            return cost.sqrt().numpy()

        theirs = least_squares(costs, points[i].numpy(), xtol=1e-12, ftol=1e-12).x
        np.testing.assert_allclose(found.points[i].numpy(), theirs, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_point_ends_with_a_larger_cost_than_it_began_with(dtype):
    points, projections = people_points(500), h36m().projections[[0, 3]]
    pixels = noisy(ideal_pixels(points, projections), 5.0).to(dtype)
    start = triangulate(pixels, projections)
    found = refine(start.points, pixels, projections, loss=RobustLoss.SQUARED)
    before = refine(start.points, pixels, projections, steps=0).residuals_px.square().sum(dim=-1)
    after = found.residuals_px.square().sum(dim=-1)
    assert (after <= before * (1 + 1e-3) + 1e-3)[start.valid].all()
    assert after[start.valid].sum() < 0.95 * before[start.valid].sum()


def test_a_wrong_view_pulls_a_robust_minimum_less():
    points, projections = people_points(100), ring(6).projections
    pixels = ideal_pixels(points, projections)
    pixels[:, 2] += 60.0
    plain = refine(points, pixels, projections, loss=RobustLoss.SQUARED)
    huber = refine(points, pixels, projections, loss=RobustLoss.HUBER, scale_px=2.0)
    redescending = refine(points, pixels, projections, loss=RobustLoss.GEMAN_MCCLURE, scale_px=2.0)
    off = [float((r.points - points).norm(dim=-1).median()) for r in (plain, huber, redescending)]
    assert off[0] > 5 * off[1] > 5 * off[2]


def test_points_that_cannot_be_refined_stay_and_say_so():
    points, projections = people_points(3), ring(3).projections
    pixels = noisy(ideal_pixels(points, projections), 1.0)
    mask = torch.ones(3, 3, dtype=torch.bool)
    mask[0, 1:] = False
    pixels[1, 2] = torch.nan
    start = points + 0.01
    start[2] = ring(3).centres_world[0] * 2.0
    found = refine(start, pixels, projections, mask=mask)
    assert found.converged.tolist() == [False, True, False]
    assert torch.equal(found.points[[0, 2]], start[[0, 2]])
    assert found.residuals_px[0].isinf().tolist() == [False, True, True]
    assert found.residuals_px[1].isinf().tolist() == [False, False, True]
