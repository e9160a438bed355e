"""Spread of points from scales and rays: by hand for simple rigs, and counted over drawn errors."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mvpose import scenes
from mvpose.confidence import RIGHT_WITHIN
from mvpose.geometry.triangulation import triangulate
from mvpose.losses import scale_with, share_within
from mvpose.reconstruction import joint_spread
from mvpose.reconstruction.joint_spread import COMMON_M, root_trace, sigma_mm
from mvpose.reconstruction.joints import SMALLEST_SCALE, JointPoints

FOCAL = 1000.0
ORIGIN = torch.zeros(1, 3, dtype=torch.float64)


def camera(azimuth: float, distance: float) -> Tensor:
    """Projection of a camera in the plane y = 0 that looks at the origin from this far; image rows are along y."""
    c, s = math.cos(azimuth), math.sin(azimuth)
    rotation = torch.tensor([[-s, 0.0, c], [0.0, 1.0, 0.0], [-c, 0.0, -s]], dtype=torch.float64)
    intrinsic = torch.diag(torch.tensor([FOCAL, FOCAL, 1.0], dtype=torch.float64))
    return intrinsic @ torch.cat([rotation, torch.tensor([[0.0], [0.0], [distance]], dtype=torch.float64)], dim=1)


def spread(scales_px: list[float], *cameras: Tensor) -> float:
    precision = 1.0 / torch.tensor([scales_px], dtype=torch.float64)
    return float(root_trace(ORIGIN, precision, torch.stack(cameras)))


def test_two_orthogonal_cameras_have_the_spread_that_one_works_out_by_hand():
    # 2 px at 4 m are 8 mm across each ray. Both cameras see the vertical, so it has half of the variance.
    both = camera(0.0, 4.0), camera(math.pi / 2, 4.0)
    assert spread([2.0, 2.0], *both) == pytest.approx(0.008 * math.sqrt(1 + 1 + 1 / 2), rel=1e-9)
    assert spread([4.0, 4.0], *both) == pytest.approx(2 * spread([2.0, 2.0], *both), rel=1e-9)


def test_each_camera_again_is_a_square_root_of_two_less():
    both = camera(0.0, 4.0), camera(math.pi / 2, 4.0)
    assert spread([2.0] * 4, *both, *both) == pytest.approx(spread([2.0] * 2, *both) / math.sqrt(2), rel=1e-9)


def test_a_camera_that_is_far_counts_as_one_with_larger_errors():
    near, far = camera(math.pi / 2, 4.0), camera(math.pi / 2, 12.0)
    other = camera(0.0, 4.0)
    assert spread([2.0, 2.0], other, far) == pytest.approx(spread([2.0, 6.0], other, near), rel=1e-9)
    assert spread([2.0, 2.0], other, far) > 1.5 * spread([2.0, 2.0], other, near)


def test_rays_that_are_almost_parallel_leave_their_direction_open():
    # 8 mm across the rays, over the sine of half the angle along them, by two views.
    angle = math.radians(4.0)
    along = 0.008 / math.sqrt(2) / math.sin(angle / 2)
    assert spread([2.0, 2.0], camera(0.0, 4.0), camera(angle, 4.0)) == pytest.approx(along, rel=0.01)


def test_a_view_without_weight_changes_nothing_wherever_it_is():
    both = camera(0.0, 4.0), camera(math.pi / 2, 4.0)
    behind = camera(1.0, -0.0)
    assert spread([2.0, 2.0, math.inf], *both, behind) == spread([2.0, 2.0], *both)


def test_the_spread_is_that_of_points_from_drawn_errors():
    """Fails if the Jacobian leaves out how a pixel moves with the depth; the second point is far from image centres."""
    scene = scenes.ring4(num_frames=1)
    rig, draws = scene.rig, 20_000
    rng = torch.Generator().manual_seed(0)
    scales = torch.tensor([1.0, 2.0, 3.0, 1.5], dtype=torch.float64)
    for point in torch.tensor([[0.2, 0.1, 1.0], [1.5, -1.0, 0.3]], dtype=torch.float64):
        image = torch.einsum("vij,j->vi", rig.projections[..., :3], point) + rig.projections[..., 3]
        noise = torch.randn(draws, 4, 2, generator=rng, dtype=torch.float64) * scales[:, None]
        pixels = image[:, :2] / image[:, 2:] + noise
        weights = (rig.focal[:, 0] / image[:, 2] / scales).expand(draws, 4)
        found = triangulate(pixels, rig.projections, weights).points
        drawn = float((found - point).square().sum(dim=1).mean().sqrt())
        assert float(root_trace(point[None], 1 / scales[None], rig.projections)) == pytest.approx(drawn, rel=0.02)


def found_at(errors: list[float], used: list[bool], valid: bool = True) -> JointPoints:
    shape = (1, 1, 1)
    return JointPoints(
        points=torch.zeros(*shape, 3, dtype=torch.float64),
        valid=torch.full(shape, valid),
        used=torch.tensor(used).reshape(*shape, -1),
        errors=torch.tensor(errors, dtype=torch.float64).reshape(*shape, -1),
    )


THREE = torch.stack([camera(a, 4.0) for a in (0.0, 1.5, 3.0)])


def sigma_of(found: JointPoints, likelihood: float = 0.8, size_px: float = 500.0) -> float:
    weights = torch.full((1, 1, 1, 3), likelihood, dtype=torch.float64)
    return float(sigma_mm(found, weights, torch.full((1, 1, 3), size_px, dtype=torch.float64), THREE))


def own_part(sigma: float) -> float:
    """Without the error that all views have in common."""
    return math.sqrt(sigma**2 - (1000 * COMMON_M) ** 2)


def test_sigma_is_in_millimetres_and_follows_from_likelihood_and_size():
    agreeing = found_at([0.0] * 3, [True] * 3)
    scale = float(scale_with(torch.tensor(0.8, dtype=torch.float64), RIGHT_WITHIN))
    in_px = 500.0 * math.hypot(scale, SMALLEST_SCALE)
    assert own_part(sigma_of(agreeing)) == pytest.approx(1000 * spread([in_px] * 3, *THREE), rel=1e-6)
    assert own_part(sigma_of(agreeing, size_px=1000.0)) == pytest.approx(2 * own_part(sigma_of(agreeing)), rel=1e-9)
    assert own_part(sigma_of(agreeing, likelihood=0.5)) > 1.5 * own_part(sigma_of(agreeing))
    assert math.isfinite(sigma_of(agreeing, likelihood=1.0))


def test_views_that_disagree_more_than_their_scales_have_it_raise_sigma_and_agreement_does_not_lower_it():
    scale = math.hypot(float(scale_with(torch.tensor(0.8, dtype=torch.float64), RIGHT_WITHIN)), SMALLEST_SCALE)
    exact, expected = found_at([0.0] * 3, [True] * 3), found_at([scale * 0.9] * 3, [True] * 3)
    assert sigma_of(exact) == sigma_of(expected)
    # Three errors of twice the scale are a chi-square of 12 for 3 degrees of freedom.
    doubled = sigma_of(found_at([2 * scale] * 3, [True] * 3))
    assert own_part(doubled) == pytest.approx(2 * own_part(sigma_of(exact)), rel=1e-9)


def test_only_the_views_used_count_and_a_missing_joint_has_no_sigma():
    two = found_at([0.0, 0.0, math.inf], [True, True, False])
    assert 0.0 < sigma_of(found_at([0.0] * 3, [True] * 3)) < sigma_of(two) < math.inf
    assert math.isnan(sigma_of(found_at([math.inf] * 3, [False] * 3, valid=False)))


def test_68_of_100_joints_are_within_sigma_by_the_law_of_distances():
    shares = joint_spread.share_within(20.0, np.array([1e-3, 10.0, 20.0, 40.0, np.inf, np.nan]))
    assert shares[2] == pytest.approx(0.68, abs=1e-3)
    assert shares[0] == pytest.approx(1.0) and shares[4] == 0.0 and np.isnan(shares[5])
    drawn = np.random.default_rng(0).normal(size=(200_000, 3))
    t = drawn / np.sqrt(np.random.default_rng(1).chisquare(3, 200_000) / 3)[:, None]
    distance = np.linalg.norm(t, axis=1)
    sigma = np.quantile(distance, 0.68)
    for times in (0.3, 0.7, 1.5, 3.0):
        counted = (distance <= times * sigma).mean()
        assert joint_spread.share_within(times, np.ones(1))[0] == pytest.approx(counted, abs=0.005)


def test_the_scale_of_a_share_has_that_share_again():
    share = torch.tensor([0.05, 0.3, 0.5, 0.9, 0.98], dtype=torch.float64)
    torch.testing.assert_close(share_within(0.04, scale_with(share, 0.04)), share)
    assert scale_with(torch.tensor([1.0, 0.0]), 0.04).tolist() == [0.0, math.inf]


def test_sigmas_of_reconstructed_people_are_there_where_the_joints_are_and_grow_with_fewer_views():
    from dataclasses import replace

    from mvpose.reconstruction.clip import ReconstructionConfig, reconstruct

    scene = scenes.ring4(num_frames=6)
    keypoints = scene.keypoints(noise_px=2.0)
    poses = reconstruct(keypoints, scene.rig, ReconstructionConfig(), scene.fps)
    there = np.isfinite(poses.xyz[..., 0])
    np.testing.assert_array_equal(np.isfinite(poses.sigma_mm), there)
    covered = replace(keypoints, confidence=keypoints.confidence * (np.arange(4) < 2)[:, None, None, None])
    fewer = reconstruct(covered, scene.rig, ReconstructionConfig(), scene.fps)
    assert np.nanmedian(fewer.sigma_mm) > 1.3 * np.nanmedian(poses.sigma_mm)
