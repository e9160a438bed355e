import math

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvpose.geometry.triangulation import DltMethod, Kernel, chosen_engine, explain, reprojection_errors, triangulate
from tests.geometry.rigs import h36m, ideal_pixels, noisy, people_points, ring

seeds = st.integers(0, 2**31 - 1)
methods = pytest.mark.parametrize("method", list(DltMethod))
ways = pytest.mark.parametrize(
    ("method", "engine"),
    [(m, Kernel.TORCH) for m in DltMethod] + [(m, Kernel.FUSED) for m in (DltMethod.NORMAL, DltMethod.SII)],
)


def _scene(views: int, num: int, seed: int, sigma: float = 2.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    projections, points = ring(views).projections, people_points(num, seed)
    return points, noisy(ideal_pixels(points, projections), sigma, seed + 1), projections


@ways
@given(st.integers(2, 9), seeds)
@settings(max_examples=10, deadline=None)
def test_exact_pixels_give_the_exact_point(method, engine, views, seed):
    points, pixels, projections = _scene(views, 7, seed, sigma=0.0)
    # Two shifted iterations end 0.1 mm beside the point of two exact views; each further one gains digits.
    found = triangulate(pixels, projections, method=method, engine=engine, iterations=6)
    # Two cameras of a ring face each other: what stands near the line between them is not determined.
    rays = torch.nn.functional.normalize(points[:, None] - ring(views).centres_world, dim=-1)
    widest = torch.linalg.cross(rays[:, :, None], rays[:, None]).norm(dim=-1).flatten(1).amax(dim=1)
    clear = widest > math.sin(math.radians(5.0))
    assert found.valid[clear].all()
    torch.testing.assert_close(found.points[clear], points[clear], atol=1e-7, rtol=0.0)


@ways
@given(seeds)
@settings(max_examples=8, deadline=None)
def test_the_order_of_the_views_does_not_matter(method, engine, seed):
    _, pixels, projections = _scene(5, 6, seed)
    weights = torch.rand(6, 5, dtype=torch.float64) + 0.1
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    one = triangulate(pixels, projections, weights, method=method, engine=engine)
    other = triangulate(pixels[:, order], projections[order], weights[:, order], method=method, engine=engine)
    torch.testing.assert_close(one.points, other.points, atol=1e-7, rtol=0.0)


@ways
@given(seeds)
@settings(max_examples=8, deadline=None)
def test_a_view_of_weight_zero_or_masked_out_is_as_good_as_absent(method, engine, seed):
    _, pixels, projections = _scene(5, 6, seed)
    kept = [0, 2, 3]
    mask = torch.zeros(6, 5, dtype=torch.bool)
    mask[:, kept] = True
    hidden = torch.where(mask[..., None], pixels, torch.nan)
    # The middle of the rig is that of all cameras: homogeneous methods weigh an offset of it a little differently.
    few = triangulate(pixels[:, kept], projections[kept], method=method, engine=engine)
    masked = triangulate(hidden, projections, mask=mask, method=method, engine=engine)
    weighted = triangulate(hidden, projections, mask.double(), method=method, engine=engine)
    assert masked.valid.all()
    torch.testing.assert_close(masked.points, weighted.points)
    torch.testing.assert_close(masked.points, few.points, atol=1e-3 if method != DltMethod.NORMAL else 1e-9, rtol=0.0)


@ways
def test_a_batch_is_a_loop_over_its_members_each_with_its_own_cameras(method, engine):
    generator = torch.Generator().manual_seed(0)
    rigs = torch.stack([ring(4).projections, h36m().projections, 3.0 * h36m().projections])
    points = people_points(15).reshape(3, 5, 3)
    pixels = torch.stack([noisy(ideal_pixels(p, r), 2.0) for p, r in zip(points, rigs, strict=True)])
    weights = torch.rand(3, 5, 4, generator=generator, dtype=torch.float64) + 0.1
    start = points + 0.3
    together = triangulate(pixels, rigs[:, None], weights, method=method, start=start, engine=engine)
    for i in range(3):
        alone = triangulate(pixels[i], rigs[i], weights[i], method=method, start=start[i], engine=engine)
        torch.testing.assert_close(together.points[i], alone.points, atol=1e-9, rtol=0.0)
        each = triangulate(pixels[i, 2], rigs[i], weights[i, 2], method=method, start=start[i, 2], engine=engine)
        torch.testing.assert_close(together.points[i, 2], each.points, atol=1e-9, rtol=0.0)
    per_point = rigs[:, None].expand(3, 5, 4, 3, 4)
    expanded = triangulate(pixels, per_point, weights, method=method, start=start, engine=engine)
    torch.testing.assert_close(expanded.points, together.points, atol=1e-9, rtol=0.0)


@methods
@given(seeds, st.sampled_from([1.0, 1000.0]))
@settings(max_examples=8, deadline=None)
def test_moving_turning_and_scaling_the_world_moves_the_point_along(method, seed, unit):
    _, pixels, projections = _scene(4, 6, seed)
    generator = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
    turn = turn * torch.det(turn)
    shift = 5.0 * torch.randn(3, generator=generator, dtype=torch.float64)
    old_from_new = torch.eye(4, dtype=torch.float64)
    old_from_new[:3, :3], old_from_new[:3, 3] = turn / unit, shift
    moved = triangulate(pixels, projections @ old_from_new, method=method).points
    here = triangulate(pixels, projections, method=method).points
    torch.testing.assert_close(moved @ turn.T / unit + shift, here, atol=1e-7, rtol=0.0)


@methods
def test_the_scale_and_sign_of_a_projection_matrix_do_not_matter(method):
    _, pixels, projections = _scene(4, 6, 3)
    factors = torch.tensor([1.0, -2.0, 1e-3, 5e4], dtype=torch.float64)[:, None, None]
    one, other = (triangulate(pixels, p, method=method) for p in (projections, factors * projections))
    assert other.valid.all()
    torch.testing.assert_close(one.points, other.points, atol=1e-8, rtol=0.0)


@ways
def test_gradients_of_pixels_and_weights_are_right_and_invalid_points_send_none(method, engine):
    _, pixels, projections = _scene(4, 5, 8)
    weights = torch.rand(5, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 0.2
    weights[0, 1] = 0.0
    weights[1, 1:] = 0.0
    pixels[0, 1] = torch.nan
    seen = (weights > 0).double()

    def run(p, w):
        p = torch.where(seen[..., None] > 0, p, torch.nan)
        return triangulate(p, projections, w * seen, method=method, engine=engine, check=False).points

    pixels = pixels.nan_to_num().requires_grad_()
    assert torch.autograd.gradcheck(run, (pixels, weights.requires_grad_()), atol=1e-6, rtol=1e-4)
    run(pixels, weights).sum().backward()
    assert pixels.grad is not None and weights.grad is not None
    assert pixels.grad.isfinite().all() and weights.grad.isfinite().all()
    assert (pixels.grad[1] == 0).all() and (pixels.grad[0, 1] == 0).all()
    assert (pixels.grad[2:] != 0).all()


@methods
def test_gradients_of_the_projections_are_right(method):
    _, pixels, projections = _scene(3, 3, 8)
    run = lambda p: triangulate(pixels, p, method=method, check=False).points  # noqa: E731
    assert torch.autograd.gradcheck(run, projections.requires_grad_(), atol=1e-5, rtol=1e-4)


@ways
def test_what_is_not_determined_is_said_and_not_invented(method, engine):
    points, pixels, projections = _scene(3, 6, 4, sigma=0.0)
    weights = torch.ones(6, 3, dtype=torch.float64)
    weights[0] = 0.0
    weights[1, 1:] = 0.0
    pixels[2, 0] = torch.nan
    pixels[3, 1] = torch.inf
    found = triangulate(pixels, projections, weights, method=method, engine=engine)
    assert found.valid.tolist() == [False, False, False, False, True, True]
    assert (found.points[:4] == 0).all()
    torch.testing.assert_close(found.points[4:], points[4:], atol=1e-7, rtol=0.0)


@ways
def test_near_parallel_rays_are_refused_up_to_the_angle_asked_for(method, engine):
    projections = ring(2).projections[:1].repeat(2, 1, 1)
    # The second camera stands 20 mm beside the first: rays to a point 5 m away meet under 0.23 degrees.
    projections[1, :, 3] += torch.tensor([1145.0 * 0.02, 0.0, 0.0], dtype=torch.float64)
    points = people_points(4)
    pixels = ideal_pixels(points, projections)
    assert not triangulate(pixels, projections, method=method, engine=engine).valid.any()
    found = triangulate(pixels, projections, method=method, engine=engine, min_angle=1e-3, iterations=20)
    assert found.valid.all()
    torch.testing.assert_close(found.points, points, atol=1e-4, rtol=0.0)
    same = projections[:1].repeat(2, 1, 1)
    assert not triangulate(ideal_pixels(points, same), same, method=method, engine=engine, min_angle=0.0).valid.any()


@ways
def test_a_point_behind_a_camera_that_sees_it_is_refused(method, engine):
    projections = ring(3).projections
    behind = ring(3).centres_world[:1] * torch.tensor([1.5, 1.5, 1.0], dtype=torch.float64)
    pixels = ideal_pixels(behind, projections)
    assert not triangulate(pixels, projections, method=method, engine=engine).valid.any()
    mask = torch.tensor([[False, True, True]])
    assert triangulate(pixels, projections, mask=mask, method=method, engine=engine).valid.all()


@ways
@pytest.mark.parametrize("views", [[0, 1, 2, 3], [0, 2], [0, 3], [1, 2]])
def test_single_precision_is_as_good_as_double_at_room_scale(method, engine, views):
    points = people_points(4000)
    projections = h36m().projections[views]
    pixels = noisy(ideal_pixels(points, projections), 4.0)
    errors = {}
    for dtype in (torch.float64, torch.float32):
        found = triangulate(pixels.to(dtype), projections, method=method, engine=engine)
        errors[dtype] = (found.points.double() - points).norm(dim=-1)[found.valid]
        assert found.valid.float().mean() > 0.99
    for quantile in (0.5, 0.95, 0.99):
        single, double = (float(errors[d].quantile(quantile)) for d in (torch.float32, torch.float64))
        assert single == pytest.approx(double, rel=1e-2)


@ways
def test_a_rig_a_kilometre_from_the_origin_works_in_single_precision(method, engine):
    points, offset = people_points(2000), torch.tensor([1000.0, -2000.0, 50.0], dtype=torch.float64)
    projections = h36m().projections
    pixels = noisy(ideal_pixels(points, projections), 1.0)
    far = projections.clone()
    far[..., 3] -= projections[..., :3] @ offset
    here = triangulate(pixels, projections, method=method).points
    there = triangulate(pixels.float(), far, method=method, engine=engine)
    # Near 2 km float32 itself steps by 0.12 mm.
    assert there.valid.all()
    assert (there.points.double() - offset - here).norm(dim=-1).max() < 1e-3


@pytest.mark.parametrize("views", [[0, 1, 2, 3], [0, 2], [0, 1]])
def test_two_shifted_iterations_err_as_svd_does_on_generic_rigs(views):
    points = people_points(5000)
    projections = h36m().projections[views]
    pixels = noisy(ideal_pixels(points, projections), 4.0)
    mean = {
        m: float((triangulate(pixels, projections, method=m).points - points).norm(dim=-1).mean())
        for m in (DltMethod.SII, DltMethod.SVD)
    }
    assert mean[DltMethod.SII] == pytest.approx(mean[DltMethod.SVD], rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("iterations", [1, 2, 3, 8])
def test_shifted_iterations_stay_finite_between_near_opposing_cameras(dtype, iterations):
    projections = h36m().projections[[0, 3]]
    on_the_baseline = h36m().centres_world[[0, 3]].mean(dim=0)
    points = torch.cat([people_points(3000), on_the_baseline + 0.02 * people_points(100)])
    pixels = noisy(ideal_pixels(points, projections), 4.0).to(dtype)
    found = triangulate(pixels, projections, method=DltMethod.SII, iterations=iterations, min_angle=0.0)
    assert found.points.isfinite().all()
    assert (found.points[:3000].double() - points[:3000]).norm(dim=-1).median() < 0.06


def test_shifted_iterations_approach_the_eigenvector_from_any_start():
    points, pixels, projections = _scene(4, 50, 6)
    exact = triangulate(pixels, projections, method=DltMethod.EIGH).points
    near = points + 0.05
    gaps = []
    for settings_ in ({"iterations": 1}, {"iterations": 2}, {"iterations": 4}, {"iterations": 1, "start": near}):
        found = triangulate(pixels, projections, method=DltMethod.SII, **settings_).points
        gaps.append(float((found - exact).norm(dim=-1).max()))
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-5
    assert gaps[3] < gaps[0]


@pytest.mark.parametrize("method", [DltMethod.NORMAL, DltMethod.SII])
@pytest.mark.parametrize("num", [1, 63, 64, 65, 20000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_fused_kernel_is_the_torch_version_gradients_included(method, num, dtype):
    _, pixels, projections = _scene(5, num, 2)
    generator = torch.Generator().manual_seed(4)
    weights = torch.rand(num, 5, generator=generator, dtype=torch.float64) + 0.05
    weights = torch.where(torch.rand(num, 5, generator=generator) < 0.4, 0.0, weights)
    direction = torch.randn(num, 3, generator=generator, dtype=torch.float64).to(dtype)
    results = []
    for engine in Kernel:
        p, w = pixels.to(dtype).requires_grad_(), weights.to(dtype).requires_grad_()
        found = triangulate(p, projections, w, method=method, engine=engine)
        (found.points * direction).sum().backward()
        results.append((found.points.detach(), p.grad, w.grad, found.valid))
    fused, reference = results
    assert (fused[3] == reference[3]).all()
    assert reference[3].any() or num == 1
    for one, other in zip(fused[:3], reference[:3], strict=True):
        # Two rays of weight 0.05 lose digits in float32 either way; all but a few points must agree.
        tolerance = (1e-9 if dtype == torch.float64 else 2e-3) * max(1.0, float(other.abs().max()))
        assert float(((one - other).abs() > tolerance).double().mean()) <= (0.0 if dtype == torch.float64 else 2e-4)


def test_a_point_s_result_does_not_depend_on_its_neighbours_or_the_threads():
    _, pixels, projections = _scene(4, 40000, 2)
    pixels = pixels.float()
    whole = triangulate(pixels, projections).points
    assert torch.equal(whole[12345:12349], triangulate(pixels[12345:12349], projections).points)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(triangulate(pixels, projections).points, whole)
    finally:
        torch.set_num_threads(threads)


@ways
def test_no_points_at_all_are_no_trouble(method, engine):
    found = triangulate(torch.zeros(3, 0, 4, 2, dtype=torch.float64), ring(4).projections, method=method, engine=engine)
    assert found.points.shape == (3, 0, 3)


def test_the_engine_is_picked_by_what_it_can_do_and_says_so():
    _, pixels, projections = _scene(3, 2, 1)
    assert chosen_engine(pixels, projections, DltMethod.NORMAL) == Kernel.FUSED
    assert chosen_engine(pixels, projections, DltMethod.SVD) == Kernel.TORCH
    assert chosen_engine(pixels, projections.clone().requires_grad_(), DltMethod.SII) == Kernel.TORCH
    assert "numba" in explain(pixels, projections) and "torch" in explain(pixels, projections, DltMethod.EIGH)
    with pytest.raises(ValueError, match="fused"):
        triangulate(pixels, projections, method=DltMethod.SVD, engine=Kernel.FUSED)


def test_reprojection_errors_are_the_distances_in_pixels():
    points, pixels, projections = _scene(4, 9, 3)
    expected = (ideal_pixels(points, projections) - pixels).norm(dim=-1)
    torch.testing.assert_close(reprojection_errors(points, pixels, projections), expected)
    single = reprojection_errors(points.float(), pixels.float(), projections)
    torch.testing.assert_close(single.double(), expected, atol=1e-2, rtol=0.0)


def test_a_reprojection_error_is_infinite_where_there_is_nothing_to_compare_and_sends_no_gradient():
    points, pixels, projections = _scene(3, 3, 3)
    pixels[0, 1] = torch.nan
    points[1] = ring(3).centres_world[2] * 1.5
    points.requires_grad_()
    errors = reprojection_errors(points, pixels, projections)
    assert errors[0].isinf().tolist() == [False, True, False]
    assert errors[1, 2].isinf()
    torch.where(errors.isfinite(), errors, 0.0).sum().backward()
    assert points.grad is not None and points.grad.isfinite().all()
    perfect = people_points(2).requires_grad_()
    reprojection_errors(perfect, ideal_pixels(perfect.detach(), projections), projections).sum().backward()
    assert perfect.grad is not None and perfect.grad.isfinite().all()


@pytest.fixture
def own_checks():
    """Leaves wrong arguments to the function's own checks: outside pytest there are no others."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def _wrong(**changes):
    _, pixels, projections = _scene(4, 3, 1)
    return {"points": pixels, "projections": projections, "weights": torch.ones(3, 4, dtype=torch.float64)} | changes


SINGULAR = torch.zeros(4, 3, 4, dtype=torch.float64)
NEGATIVE = torch.ones(3, 4, dtype=torch.float64)
NEGATIVE[2, 1] = -0.5


@pytest.mark.usefixtures("own_checks")
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"points": torch.zeros(3, 4, 2, dtype=torch.int64)}, r"points.*\(3, 4, 2\).*int64"),
        ({"points": torch.zeros(3, 4, 3, dtype=torch.float64)}, r"points.*\(3, 4, 3\)"),
        ({"points": torch.zeros(3, 1, 2, dtype=torch.float64)}, r"points.*\(3, 1, 2\).*2 or more"),
        ({"projections": ring(3).projections}, r"projections.*\(3, 3, 4\).*points.*\(3, 4, 2\)"),
        ({"projections": ring(4).projections.expand(5, 4, 3, 4)}, r"projections.*\(5, 4, 3, 4\).*broadcast"),
        ({"projections": SINGULAR}, r"projections.*\(4, 3, 4\).*singular"),
        ({"projections": ring(4).projections * torch.nan}, r"projections.*not finite"),
        ({"weights": torch.ones(3, 5, dtype=torch.float64)}, r"weights.*\(3, 5\).*\(3, 4\)"),
        ({"weights": torch.ones(3, 4, dtype=torch.int32)}, r"weights.*int32"),
        ({"weights": NEGATIVE}, r"weights.*\(3, 4\).*negative.*\[2, 1\]"),
        ({"weights": NEGATIVE * torch.nan}, r"weights.*NaN"),
        ({"mask": torch.ones(3, 4, dtype=torch.float64)}, r"mask.*float64"),
        ({"mask": torch.ones(4, 4, dtype=torch.bool)}, r"mask.*\(4, 4\)"),
        ({"method": DltMethod.SII, "iterations": 0}, r"iteration"),
    ],
)
def test_a_wrong_argument_is_named_with_its_shape(changes, says):
    with pytest.raises(ValueError, match=says):
        triangulate(**_wrong(**changes))
