import math

import pytest
import torch

from mvpose.metrics.joint_errors import mpjpe
from mvpose.models.single_view.lifting import (
    RandomCameras,
    ResidualBlock,
    ResidualLifter,
    Standardised,
    TemporalLifter,
    random_views,
)
from tests.models.moving_people import people, smooth_people


def _views(clips, frames, seed=0, cameras=None, bend=0.5):
    poses = people(clips, seed, bend)[:, None] if frames == 1 else smooth_people(clips, frames, seed, bend)
    generator = torch.Generator().manual_seed(seed)
    found = random_views(poses, 0, cameras or RandomCameras(), generator)
    return poses, found


def test_a_random_view_is_a_rigid_motion_seen_through_a_pinhole():
    poses, found = _views(6, 4)
    relative = poses - poses[:, :, :1]
    # Rigid: the same distances. One camera a clip: the same motion in all its frames. Proper: not a mirror image.
    assert torch.allclose(torch.cdist(found.poses, found.poses), torch.cdist(relative, relative), atol=1e-9)
    rotation = torch.linalg.lstsq(relative.flatten(1, 2), found.poses.flatten(1, 2)).solution
    assert torch.allclose(relative @ rotation[:, None], found.poses, atol=1e-9)
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(6, dtype=torch.float64))
    root_depth = torch.linalg.lstsq(
        *_depth_equations(found.points[:, :, 0], found.points[:, :, 5], found.poses[:, :, 5])
    ).solution[..., 0]
    assert (root_depth > 1.5).all() and (root_depth < 8.5).all()


def _depth_equations(root, other, offset):
    """x_o (Z + dz) = x_r Z + dx, for Z."""
    return (other - root)[..., None], (offset[..., :2] - other * offset[..., 2:])[..., None]


def test_random_views_stand_upright_and_around_the_person():
    cameras = RandomCameras(elevation=(0.0, 0.1), off_centre_m=0.0)
    poses, found = _views(40, 1, cameras=cameras)
    tall = (poses[:, 0, 10] - poses[:, 0, 3])[:, 2]
    assert (found.poses[:, 0, 10, 1] < found.poses[:, 0, 3, 1])[tall > 0.5].all()
    facing = found.poses[:, 0, 1] - found.poses[:, 0, 4]
    angles = torch.atan2(facing[:, 2], facing[:, 0])
    assert angles.cos().mean().abs() < 0.35 and angles.sin().mean().abs() < 0.35


def test_the_same_seed_draws_the_same_cameras():
    assert torch.equal(_views(3, 2, seed=5)[1].points, _views(3, 2, seed=5)[1].points)


def test_a_camera_within_the_motion_is_refused():
    with pytest.raises(ValueError, match="draw cameras from further away"):
        _views(4, 1, cameras=RandomCameras(distance_m=(0.1, 0.2)))


def test_standardised_numbers_have_mean_0_and_deviation_1_and_come_back():
    samples = torch.randn(500, 4, 2) * 3 + 5
    samples[:, 2, 1] = 7.0
    unit = Standardised(4, 2)
    unit.fit(samples)
    standard = unit(samples)
    assert standard.mean(dim=0).abs().max() < 1e-4
    deviation = standard.std(dim=0, unbiased=False)
    assert torch.allclose(deviation.flatten()[:5], torch.ones(5), atol=1e-4) and deviation[2, 1] == 0
    assert torch.allclose(unit.inverse(standard), samples, atol=1e-4)


def test_units_travel_with_the_weights():
    source, copy = ResidualLifter(3, width=8), ResidualLifter(3, width=8)
    source.fit_units(torch.randn(50, 3, 2) + 4, torch.randn(50, 3, 3) * 2)
    copy.load_state_dict(source.state_dict())
    points = torch.randn(5, 3, 2)
    assert torch.equal(source.eval()(points), copy.eval()(points))


def test_a_residual_block_whose_layers_are_silent_changes_nothing():
    block = ResidualBlock(6, 0.5).eval()
    for parameter in block.parameters():
        parameter.data.zero_()
    x = torch.randn(4, 6)
    assert torch.equal(block(x), x)


def test_the_residual_network_is_as_large_as_published():
    lifter = ResidualLifter(17)
    assert sum(p.numel() for p in lifter.parameters() if p.ndim == 2) == 34 * 1024 + 4 * 1024**2 + 1024 * 51


def _fit(lifter, points, poses, steps, learning_rate):
    lifter.fit_units(points, poses)
    optimiser = torch.optim.Adam(lifter.parameters(), lr=learning_rate)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        some = torch.randint(len(points), (min(64, 4 * len(points)),), generator=generator)
        loss = (lifter(points[some]) - poses[some]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return lifter.eval()


def _mean_pose_error(poses):
    return mpjpe(poses.mean(dim=0).expand_as(poses), poses).mean()


def test_the_residual_network_learns_depth_from_motion_capture_alone():
    torch.manual_seed(0)
    _, train = _views(1500, 1, seed=1, bend=0.25)
    _, held_out = _views(200, 1, seed=2, bend=0.25)
    lifter = ResidualLifter(17, width=128, dropout=0.0)
    _fit(lifter, train.points[:, 0].float(), train.poses[:, 0].float(), 200, 3e-3)
    truth = held_out.poses[:, 0].float()
    with torch.no_grad():
        error = mpjpe(lifter(held_out.points[:, 0].float()), truth).mean()
    assert error < 0.85 * _mean_pose_error(truth)


def test_the_residual_network_lifts_one_joint_set_to_another():
    assert ResidualLifter(17, 5, width=16).eval()(torch.randn(2, 17, 2)).shape == (2, 5, 3)


def _small_temporal(window=5):
    torch.manual_seed(0)
    return TemporalLifter(17, window, width=24, blocks=2, heads=2, dropout=0.0)


def test_the_transformer_learns_depth_in_every_frame_of_its_window():
    _, train = _views(8, 3, seed=1)
    lifter = _fit(_small_temporal(3), train.points.float(), train.poses.float(), 90, 1e-2)
    truth = train.poses.float()
    with torch.no_grad():
        error = mpjpe(lifter(train.points.float()), truth)
    assert (error.mean(dim=0) < 0.7 * _mean_pose_error(truth.flatten(0, 1))).all()


def test_a_frame_of_the_transformer_looks_at_the_others():
    lifter = _small_temporal().eval()
    points = torch.randn(1, 5, 17, 2)
    other = points.clone()
    other[0, 4] += 1.0
    assert (lifter(points)[0, 0] - lifter(other)[0, 0]).abs().max() > 1e-5


def test_an_unseen_joint_may_be_anything_but_is_not_the_same_as_seen():
    lifter = _small_temporal().eval()
    points = torch.randn(2, 4, 17, 2)
    seen = torch.ones(2, 4, 17, dtype=torch.bool)
    seen[0, 1, 3] = seen[1, :, 5:] = False
    garbage = torch.where(seen[..., None], points, torch.full_like(points, math.nan))
    out = lifter(garbage, seen)
    assert torch.isfinite(out).all()
    assert torch.equal(out, lifter(points, seen))
    assert (out - lifter(points)).abs().max() > 1e-5


def test_a_clip_longer_than_the_window_is_refused():
    with pytest.raises(ValueError, match="the clip has 6 frames, but this lifter's window is 5"):
        _small_temporal()(torch.zeros(1, 6, 17, 2))
