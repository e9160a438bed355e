import numpy as np
import pytest
import torch
from scipy.optimize import least_squares

from mvpose.geometry.camera import CameraRig
from mvpose.geometry.refinement import RobustLoss
from mvpose.geometry.rigid import Rigid
from mvpose.rigs.bundle_adjustment import bundle_adjust
from mvpose.scenes import ring4


def _knocked(rig: CameraRig, cameras: list[int], seed: int = 0) -> CameraRig:
    """The rig with some cameras turned by about a degree and moved by about 2 cm."""
    generator = torch.Generator().manual_seed(seed)
    turn, shift = torch.zeros(len(rig), 3, dtype=torch.float64), torch.zeros(len(rig), 3, dtype=torch.float64)
    for i in cameras:
        turn[i] = 0.01 * torch.randn(3, generator=generator, dtype=torch.float64)
        shift[i] = 0.02 * torch.randn(3, generator=generator, dtype=torch.float64)
    pose = Rigid.from_rotation_vector(turn, shift) @ rig.camera_from_world
    return CameraRig(rig.names, rig.focal, rig.centre, rig.lens, pose, rig.size)


@pytest.fixture(scope="module")
def scene():
    """A calibrated rig, world points before it, their pixels with 0.5 px of noise, and weights with a fifth absent."""
    rig = ring4().rig.to(torch.float64)
    generator = torch.Generator().manual_seed(5)
    points = torch.rand(120, 3, generator=generator, dtype=torch.float64) * 1.5 + torch.tensor([-0.75, -0.75, 0.1])
    pixels, seen = rig.project(points)
    noise = torch.randn(pixels.shape, generator=generator, dtype=torch.float64)
    weights = (seen & (torch.rand(seen.shape, generator=generator) > 0.2)).double()
    return rig, points, pixels, pixels + 0.5 * noise, weights


def test_without_noise_the_true_rig_comes_back_from_a_knocked_one(scene):
    rig, points, exact, _, weights = scene
    start = points + 0.01
    adjusted, moved, report = bundle_adjust(_knocked(rig, [2, 3]), exact, weights, start, fixed=rig.names[:2])
    assert report.converged
    assert (adjusted.centres_world - rig.centres_world).norm(dim=-1).max() < 1e-6
    assert (moved - points)[(weights > 0).sum(dim=0) >= 2].norm(dim=-1).max() < 1e-6
    assert report.rms_px_after < 1e-4 < report.rms_px_before


def test_an_absent_observation_may_be_nan_and_changes_nothing(scene):
    rig, points, _, noisy, weights = scene
    knocked = _knocked(rig, [3])
    absent = torch.where(weights[..., None] > 0, noisy, torch.nan)
    with_nan, _, _ = bundle_adjust(knocked, absent, weights, points)
    without, _, _ = bundle_adjust(knocked, noisy, weights, points)
    torch.testing.assert_close(with_nan.centres_world, without.centres_world)


def test_fixed_cameras_stay_exactly_where_they_were(scene):
    rig, points, _, noisy, weights = scene
    adjusted, _, report = bundle_adjust(_knocked(rig, [2, 3]), noisy, weights, points, fixed=rig.names[:2])
    torch.testing.assert_close(adjusted.camera_from_world.rotation[:2], rig.camera_from_world.rotation[:2])
    torch.testing.assert_close(adjusted.centres_world[:2], rig.centres_world[:2])
    assert report.camera_shift[2:].min() > 1e-3


def test_one_fixed_camera_keeps_the_scale(scene):
    rig, points, _, noisy, weights = scene
    knocked = _knocked(rig, [1, 2, 3])
    adjusted, _, _ = bundle_adjust(knocked, noisy, weights, points, fixed=rig.names[:1])
    torch.testing.assert_close(adjusted.centres_world[0], rig.centres_world[0])

    def reach(r: CameraRig) -> torch.Tensor:
        return (r.centres_world - r.centres_world[0]).norm(dim=-1).mean()

    torch.testing.assert_close(reach(adjusted), reach(knocked))


def test_with_no_fixed_camera_the_reprojection_does_not_depend_on_the_frame_chosen(scene):
    rig, points, _, noisy, weights = scene
    adjusted, moved, report = bundle_adjust(_knocked(rig, [0, 1, 2, 3]), noisy, weights, points)
    projected, _ = adjusted.project(moved)
    used = (weights > 0) & ((weights > 0).sum(dim=0) >= 2)
    rms = (projected - noisy).norm(dim=-1)[used].square().mean().sqrt()
    assert abs(float(rms) - report.rms_px_after) < 0.01
    assert report.rms_px_after < 0.75
    assert (adjusted.centres_world - rig.centres_world).norm(dim=-1).max() < 0.1


def test_the_minimum_is_the_one_that_scipy_finds(scene):
    rig, points, _, noisy, weights = scene
    few, knocked = slice(0, 12), _knocked(rig, [3])
    pixels, weights, start = noisy[:, few], torch.ones(len(rig), 12, dtype=torch.float64), points[few]
    adjusted, moved, _ = bundle_adjust(knocked, pixels, weights, start, fixed=rig.names[:3], loss=RobustLoss.SQUARED)
    target, _ = rig.undistorted(pixels)

    def residuals(x: np.ndarray) -> np.ndarray:
        free = torch.from_numpy(x)
        turn = Rigid.from_rotation_vector(free[:3], free[3:6])
        pose = turn @ Rigid(knocked.camera_from_world.rotation[3], knocked.camera_from_world.translation[3])
        matrices = torch.cat([rig.projections[:3], (rig.intrinsics[3] @ pose.matrix())[None]])
        world = torch.cat([free[6:].reshape(-1, 3), torch.ones(12, 1)], dim=-1)
        image = torch.einsum("vij,nj->vni", matrices, world)
        return (image[..., :2] / image[..., 2:] - target).flatten().numpy()

    found = least_squares(residuals, np.concatenate([np.zeros(6), start.flatten().numpy()]), xtol=1e-12, ftol=1e-12)
    ours, _ = adjusted.undistorted(adjusted.project(moved)[0])
    assert float(((ours - target) ** 2).sum()) == pytest.approx(2 * found.cost, rel=1e-4)
    np.testing.assert_allclose(moved.numpy(), found.x[6:].reshape(-1, 3), atol=1e-4)


def test_a_few_wrong_observations_hardly_move_the_cameras(scene):
    rig, points, _, noisy, weights = scene
    wrong = noisy.clone()
    wrong[3, ::15] += 80.0
    knocked = _knocked(rig, [3])
    robust, _, _ = bundle_adjust(knocked, wrong, weights, points, fixed=rig.names[:3])
    plain, _, _ = bundle_adjust(knocked, wrong, weights, points, fixed=rig.names[:3], loss=RobustLoss.SQUARED)
    off = [(r.centres_world[3] - rig.centres_world[3]).norm() for r in (robust, plain)]
    assert off[0] < 0.01 < off[1]


def test_a_point_seen_once_comes_back_as_it_was(scene):
    rig, points, _, noisy, weights = scene
    weights = weights.clone()
    weights[1:, 7] = 0.0
    _, moved, report = bundle_adjust(_knocked(rig, [3]), noisy, weights, points)
    torch.testing.assert_close(moved[7], points[7], rtol=0.0, atol=0.0)
    assert report.num_points <= 119


def test_a_camera_that_does_not_exist_cannot_be_fixed(scene):
    rig, points, _, noisy, weights = scene
    with pytest.raises(ValueError, match="nobody"):
        bundle_adjust(rig, noisy, weights, points, fixed=("nobody",))


def test_nothing_seen_twice_is_an_error(scene):
    rig, points, _, noisy, weights = scene
    with pytest.raises(ValueError, match="two cameras"):
        bundle_adjust(rig, noisy, torch.zeros_like(weights), points)
