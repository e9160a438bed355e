import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvpose.geometry.consensus import POOL, pair_table
from mvpose.geometry.refinement import RobustLoss
from mvpose.geometry.robust import triangulate_irls, triangulate_robust
from mvpose.geometry.triangulation import triangulate
from tests.geometry.rigs import h36m, ideal_pixels, noisy, people_points, ring

seeds = st.integers(0, 2**31 - 1)


def _knocked_off(pixels: torch.Tensor, share: float, by_px: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels of which a share lies `by_px` away in some direction, and which those are."""
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.rand(pixels.shape[:-1], generator=generator) < share
    angle = 6.2832 * torch.rand(pixels.shape[:-1], generator=generator, dtype=pixels.dtype)
    return pixels + by_px * wrong[..., None] * torch.stack([angle.cos(), angle.sin()], dim=-1), wrong


def _error(found, points: torch.Tensor) -> float:
    return float((found.points - points)[found.valid].norm(dim=-1).median())


@pytest.mark.parametrize("views", [4, 8, 16])
def test_a_tenth_of_wrong_views_hardly_moves_the_median(views):
    points, projections = people_points(4000), ring(views).projections
    clean = noisy(ideal_pixels(points, projections), 2.0)
    pixels, wrong = _knocked_off(clean, 0.1, 150.0, seed=3)
    found = triangulate_robust(pixels, projections)
    assert found.valid.double().mean() > 0.99
    assert _error(found, points) < 1.05 * _error(triangulate(clean, projections), points)
    assert _error(triangulate(pixels, projections), points) > 1.3 * _error(found, points)
    assert (found.inliers == ~wrong)[found.valid].double().mean() > 0.99


def test_thirty_one_views_of_which_half_are_wrong():
    points, projections = people_points(300), ring(31).projections
    pixels, wrong = _knocked_off(noisy(ideal_pixels(points, projections), 1.0), 0.5, 200.0, seed=5)
    found = triangulate_robust(pixels, projections, hypotheses=30)
    assert found.valid.double().mean() > 0.99
    assert _error(found, points) < 0.01
    assert (found.inliers == ~wrong)[found.valid].double().mean() > 0.98


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_one_wrong_view_of_four_is_found_whichever_it_is(seed):
    points, projections = people_points(20, seed), h36m().projections
    pixels = ideal_pixels(points, projections)
    wrong = torch.randint(4, (20,), generator=torch.Generator().manual_seed(seed))
    pixels[torch.arange(20), wrong] += torch.tensor([90.0, -70.0], dtype=torch.float64)
    found = triangulate_robust(pixels, projections)
    # A shift along an epipolar line leaves two answers with three agreeing views or two: not a law for each point.
    right = (found.points - points).norm(dim=-1) < 1e-6
    assert right.double().mean() >= 0.9
    assert (~found.inliers[torch.arange(20), wrong])[right].all()


def test_absent_views_are_left_out_of_everything():
    points, projections = people_points(30), ring(6).projections
    pixels = noisy(ideal_pixels(points, projections), 1.0)
    mask = torch.rand(30, 6, generator=torch.Generator().manual_seed(1)) < 0.6
    hidden = torch.where(mask[..., None], pixels, torch.nan)
    for function in (triangulate_robust, triangulate_irls):
        found = function(hidden, projections, mask=mask)
        assert (found.valid == (mask.sum(dim=-1) >= 2)).all()
        assert not found.inliers[~mask].any()
        assert (found.weights[~mask] == 0).all()
        assert found.residuals_px[~mask].isinf().all()
        assert found.residuals_px[mask & found.valid[:, None]].isfinite().all()
        assert (found.points[~found.valid] == 0).all()


def test_views_that_do_not_agree_give_no_point():
    points, projections = people_points(5), ring(5).projections[:2]
    pixels = ideal_pixels(points, projections)
    pixels[:, 1, 1] += 120.0
    found = triangulate_robust(pixels, projections)
    assert not found.valid.any()
    assert (found.points == 0).all()


def test_fewer_agreeing_views_than_asked_for_give_no_point():
    points, projections = people_points(5), ring(4).projections
    pixels = ideal_pixels(points, projections)
    pixels[:, :2] += torch.tensor([[100.0, 60.0], [-80.0, 120.0]], dtype=torch.float64)
    assert triangulate_robust(pixels, projections).valid.any()
    assert not triangulate_robust(pixels, projections, min_views=3).valid.any()


def test_the_same_input_gives_the_same_output_and_a_batch_is_its_members():
    points, projections = people_points(60), ring(5).projections
    pixels, _ = _knocked_off(noisy(ideal_pixels(points, projections), 2.0), 0.2, 100.0, seed=4)
    whole = triangulate_robust(pixels.reshape(3, 20, 5, 2), projections)
    again = triangulate_robust(pixels.reshape(3, 20, 5, 2), projections)
    assert torch.equal(whole.points, again.points)
    rigs = projections.expand(3, 1, 5, 3, 4) * torch.tensor([1.0, 2.0, -3.0])[:, None, None, None, None]
    each = triangulate_robust(pixels.reshape(3, 20, 5, 2), rigs)
    torch.testing.assert_close(each.points, whole.points, atol=1e-7, rtol=0.0)
    torch.testing.assert_close(triangulate_robust(pixels[7], projections).points, whole.points[0, 7])


def test_a_trusted_view_outweighs_a_doubtful_one():
    points, projections = people_points(200), ring(4).projections
    pixels = noisy(ideal_pixels(points, projections), 0.5)
    pixels[:, 3] = noisy(pixels[:, 3], 6.0, seed=8)
    weights = torch.tensor([1.0, 1.0, 1.0, 0.1], dtype=torch.float64).expand(200, 4)
    assert _error(triangulate_robust(pixels, projections, weights), points) < 0.7 * _error(
        triangulate_robust(pixels, projections), points
    )


@pytest.mark.parametrize("function", [triangulate_robust, triangulate_irls])
def test_gradients_through_the_last_solution_are_right(function):
    points, projections = people_points(4), ring(4).projections
    pixels = noisy(ideal_pixels(points, projections), 0.5)
    found = function(pixels, projections)
    factor = found.weights.detach()

    leaf = pixels.clone().requires_grad_()
    weights = torch.ones(4, 4, dtype=torch.float64, requires_grad=True)
    out = function(leaf, projections, weights)
    out.points.sum().backward()
    assert leaf.grad is not None and weights.grad is not None
    assert (weights.grad != 0).any()
    # The search is a constant, so the gradient is that of one weighted solution.
    step = 1e-4
    moved = function(pixels + step * leaf.grad.sign(), projections).points.sum() - found.points.sum()
    assert float(moved) == pytest.approx(step * float(leaf.grad.abs().sum()), rel=0.1)
    assert (factor > 0).all()


def test_reweighting_alone_shrugs_off_a_long_tail():
    points, projections = people_points(1000), ring(8).projections
    pixels, _ = _knocked_off(noisy(ideal_pixels(points, projections), 1.0), 0.1, 40.0, seed=2)
    plain, robust = triangulate(pixels, projections), triangulate_irls(pixels, projections)
    assert _error(robust, points) < 0.6 * _error(plain, points)


@pytest.mark.parametrize("loss", list(RobustLoss))
def test_row_weights_are_the_derivative_of_the_cost(loss):
    residual = torch.linspace(0.1, 40.0, 50, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(loss.cost(residual, 5.0).sum(), residual)
    torch.testing.assert_close(loss.row_weight(residual, 5.0) ** 2, slope / (2 * residual))


@given(st.integers(2, 31), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_pairs_are_bounded_different_and_spread(views, hypotheses):
    table = pair_table(views, hypotheses)
    for n in range(2, views + 1):
        pairs = {tuple(p) for p in table[n].tolist()}
        pool = min(n, POOL)
        assert len(pairs) == min(hypotheses, pool * (pool - 1) // 2)
        assert all(0 <= a < b < n for a, b in pairs)
        if len(pairs) >= pool:
            assert {rank for pair in pairs for rank in pair} == set(range(pool))
    assert table.shape[1] <= hypotheses


def test_a_negative_weight_is_refused():
    pixels, projections = ideal_pixels(people_points(3), ring(4).projections), ring(4).projections
    for function in (triangulate_robust, triangulate_irls):
        with pytest.raises(ValueError, match="weights"):
            function(pixels, projections, -torch.ones(3, 4, dtype=torch.float64))
