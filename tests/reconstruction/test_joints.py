import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvpose import scenes
from mvpose.geometry.triangulation import triangulate
from mvpose.reconstruction.joints import (
    WIDEST,
    Agreement,
    agreeing,
    exchanged,
    in_windows,
    precisions,
    swapped_sides,
    triangulate_joints,
)
from mvpose.skeleton import HALPE26

RULE = Agreement(max_error=0.04, min_views=2, window=3)


def views_of(scene: scenes.Scene, noise_px: float) -> tuple[torch.Tensor, ...]:
    """Ideal pixels (T P J V 2), weights, sizes of people, projections and the truth, without a lens."""
    points = torch.from_numpy(scene.joints)
    homogeneous = torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)
    image = torch.einsum("vab,tpjb->tpjva", scene.rig.projections, homogeneous)
    generator = torch.Generator().manual_seed(0)
    pixels = image[..., :2] / image[..., 2:]
    sizes = pixels[..., 1].amax(dim=2) - pixels[..., 1].amin(dim=2)
    pixels = pixels + noise_px * torch.randn(pixels.shape, generator=generator, dtype=pixels.dtype)
    return pixels, torch.ones_like(pixels[..., 0]), sizes, scene.rig.projections, points


def test_views_that_agree_are_all_used_and_give_the_point():
    pixels, weights, sizes, projections, truth = views_of(scenes.ring4(num_frames=8), noise_px=0.0)
    found = triangulate_joints(pixels, weights, sizes, projections, RULE)
    assert found.valid.all() and found.used.all()
    torch.testing.assert_close(found.points, truth, atol=1e-6, rtol=0)


@pytest.mark.parametrize("wrong", [1, 2, 3])
def test_as_many_gross_errors_as_leave_three_views_do_no_harm(wrong):
    scene = scenes.occluded(num_frames=12)
    scene = scenes.ring31(num_frames=12) if wrong == 3 else scene
    pixels, weights, sizes, projections, truth = views_of(scene, noise_px=1.0)
    clean = triangulate_joints(pixels, weights, sizes, projections, RULE)
    spoilt = pixels.clone()
    for view in range(wrong):
        spoilt[..., view, :] += torch.tensor([150.0 * (-1) ** view, 90.0 + 60.0 * view])
    found = triangulate_joints(spoilt, weights, sizes, projections, RULE)
    assert found.valid.all()
    assert not found.used[..., :wrong].any()
    assert (found.points - truth).norm(dim=-1).max() < 1.5 * (clean.points - truth).norm(dim=-1).max()


def test_rejection_does_not_throw_good_views_away():
    pixels, weights, sizes, projections, _ = views_of(scenes.ring4(), noise_px=4.0)
    found = triangulate_joints(pixels, weights, sizes, projections, RULE)
    assert found.used.double().mean() > 0.999


def test_points_are_as_good_as_the_plain_solution_where_nothing_is_wrong():
    pixels, weights, sizes, projections, truth = views_of(scenes.ring4(), noise_px=3.0)
    found = triangulate_joints(pixels, weights, sizes, projections, RULE)
    plain = triangulate(pixels, projections, weights)
    error, plain_error = ((p - truth).norm(dim=-1).mean() for p in (found.points, plain.points))
    assert error < 1.02 * plain_error


def test_views_do_not_come_and_go_where_a_view_is_at_the_limit():
    pixels, weights, sizes, projections, _ = views_of(scenes.ring4(), noise_px=2.0)
    pixels[..., 1, :] += 13.0

    def changes(window: int) -> float:
        rule = Agreement(max_error=0.04, min_views=2, window=window)
        used = triangulate_joints(pixels, weights, sizes, projections, rule).used[..., 1]
        return float((used[1:] != used[:-1]).double().mean())

    assert changes(3) < 0.5 * changes(0)


def test_a_point_needs_as_many_views_as_asked_for():
    pixels, weights, sizes, projections, _ = views_of(scenes.ring4(num_frames=4), noise_px=0.5)
    weights[:, :, 5, 2:] = 0.0
    three = Agreement(max_error=0.04, min_views=3, window=0)
    assert triangulate_joints(pixels, weights, sizes, projections, RULE).valid.all()
    found = triangulate_joints(pixels, weights, sizes, projections, three)
    assert not found.valid[:, :, 5].any() and found.valid.sum() == found.valid.numel() - 4
    assert (found.points[:, :, 5] == 0).all() and not found.used[:, :, 5].any()


def test_two_views_that_contradict_each_other_make_no_point():
    pixels, weights, sizes, projections, _ = views_of(scenes.ring4(num_frames=4), noise_px=0.5)
    weights[..., 2:] = 0.0
    pixels[:, :, 5, 0, 1] += 120.0
    found = triangulate_joints(pixels, weights, sizes, projections, RULE)
    assert not found.valid[:, :, 5].any()
    assert found.valid[:, :, :5].all() and found.valid[:, :, 6:].all()


@settings(max_examples=10, deadline=None)
@given(view=st.integers(0, 3), value=st.sampled_from([0.0, 1e9, float("nan")]))
def test_what_a_view_without_weight_says_does_not_matter(view, value):
    pixels, weights, sizes, projections, _ = views_of(scenes.ring4(num_frames=3), noise_px=1.0)
    weights[..., view] = 0.0
    expected = triangulate_joints(pixels, weights, sizes, projections, RULE)
    pixels[..., view, :] = value
    found = triangulate_joints(pixels, weights, sizes, projections, RULE)
    torch.testing.assert_close(found.points, expected.points)
    assert torch.equal(found.used, expected.used) and not found.used[..., view].any()


def test_frames_fewer_than_the_window_and_frames_without_a_view_are_fine():
    pixels, weights, sizes, projections, truth = views_of(scenes.ring4(num_frames=5), noise_px=0.5)
    weights[1:, :, :, 3] = 0.0
    found = triangulate_joints(pixels, weights, sizes, projections, Agreement(max_error=0.04, min_views=2, window=30))
    assert (found.points - truth).norm(dim=-1).max() < 0.02
    assert found.used[0, ..., 3].all() and not found.used[1:, ..., 3].any()


def test_a_swap_is_seen_where_it_is_and_nowhere_else():
    pixels, weights, sizes, projections, truth = views_of(scenes.occluded(num_frames=10), noise_px=1.0)
    left, right = HALPE26.indices("left_hip", "right_hip")
    pixels[4:6, :, [left, right], 2] = pixels[4:6, :, [right, left], 2].clone()
    found = triangulate_joints(pixels, weights, sizes, projections, RULE)
    swapped = swapped_sides(pixels, weights, sizes, found, projections, HALPE26.mirror, 0.04)
    expected = torch.zeros_like(swapped)
    expected[4:6, :, [left, right], 2] = True
    assert torch.equal(swapped, expected)
    mended = triangulate_joints(exchanged(pixels, swapped, HALPE26.mirror), weights, sizes, projections, RULE)
    assert mended.used.all()
    assert (mended.points - truth).norm(dim=-1).max() < 0.02


@given(seed=st.integers(0, 10**6), window=st.integers(0, 4), min_views=st.integers(2, 4))
@settings(max_examples=60, deadline=None)
def test_views_are_chosen_as_by_the_medians_of_their_errors(seed, window, min_views):
    # Fails with `>` in place of `>=` in `_median_within`, or with the smallest median for the `min_views`-th.
    frames, points, views, gate = 7, 5, 4, 0.5
    rng = torch.Generator().manual_seed(seed)
    observed = torch.rand(views, frames, points, generator=rng) < 0.7
    errors = torch.rand(views, frames, points, generator=rng).round(decimals=1)
    errors[torch.rand(errors.shape, generator=rng) < 0.1] = torch.inf
    errors = torch.where(observed, errors, torch.inf)
    rule = Agreement(max_error=gate, min_views=min_views, window=window)
    flat = errors.flatten(1), observed.flatten(1)
    found = agreeing(*flat, in_windows(flat[1], window, frames), gate, rule, frames)

    ends = torch.full((views, window, points), torch.nan)
    padded = torch.cat([ends, torch.where(observed, errors, torch.nan), ends], dim=1)
    median = padded.unfold(1, 2 * window + 1, 1).nanmedian(dim=-1).values
    median = torch.where(observed, median, torch.inf)
    last = median.sort(dim=0).values[min_views - 1]
    expected = observed & (median <= last.clamp_min(gate)) & (errors <= WIDEST * gate)
    assert torch.equal(found, expected.flatten(1))


def test_views_that_are_left_count_by_their_precisions():
    """Fails if they count by their likelihoods: 0.99 counts 4.7 times as much as 0.5, not twice."""
    pixels, weights, sizes, projections, _ = views_of(scenes.ring4(num_frames=4), noise_px=1.0)
    weights[..., :2] = 0.99
    weights[..., 2:] = 0.5
    found = triangulate_joints(pixels, weights, sizes, projections, RULE)
    assert found.used.all()
    by_precision, by_likelihood = (
        triangulate(pixels, projections, values / sizes[:, :, None]).points for values in (precisions(weights), weights)
    )
    off, apart = ((found.points - points).norm(dim=-1).mean() for points in (by_precision, by_likelihood))
    assert off < 0.5 * apart
