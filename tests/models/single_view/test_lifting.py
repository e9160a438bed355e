"""Lifters: where the person is in the image does not matter, time does; and the place that a lifted person is put."""

import math

import pytest
import torch

from mvpose.metrics.joint_errors import mpjpe
from mvpose.models.network_settings import LifterConfig, LiftingMethod
from mvpose.models.single_view.lifting import ResidualBlock, lifter, root_positions
from tests.models.moving_people import people, rotations, smooth_people

DEPTH_M = 4.0


def _views(clips, frames, seed=0, bend=0.5):
    """Clips on the plane z = 1 of a camera 4 m away at the height of the hips, and their poses in its axes."""
    world = people(clips, seed, bend)[:, None] if frames == 1 else smooth_people(clips, frames, seed, bend)
    poses = torch.stack([world[..., 0], -world[..., 2], world[..., 1]], dim=-1)
    poses = poses - poses[:, :, :1]
    away = poses + torch.tensor([0.0, 0.0, DEPTH_M])
    return (away[..., :2] / away[..., 2:]).float(), poses.float()


def _lifter(method="lifting_transformer", window=5, **sizes):
    torch.manual_seed(0)
    config = LifterConfig(**{"width": 24, "blocks": 2, "heads": 2, "window": window, "dropout": 0.0, **sizes})
    return lifter(LiftingMethod(method=method, skeleton="human36m17", lifter=config)).eval()


def _panned(points, angle):
    """The same rays, as a camera that is turned about its vertical axis sees them, and its rotation."""
    rotation = rotations(torch.tensor([[0.0, angle, 0.0]], dtype=torch.float64))[0].float()
    rays = torch.cat([points, torch.ones_like(points[..., :1])], dim=-1) @ rotation.T
    return rays[..., :2] / rays[..., 2:], rotation


@pytest.mark.parametrize("method", ["lifting_mlp", "lifting_transformer"])
def test_a_camera_that_turns_away_from_a_person_gets_the_same_pose_in_its_own_axes(method):
    points, _ = _views(3, 1)
    network = _lifter(method, 1)
    turned, rotation = _panned(points, 0.4)
    assert torch.allclose(network(turned), network(points) @ rotation.T, atol=1e-4)
    assert (network(turned) - network(points)).abs().max() > 1e-2


def test_an_image_that_is_twice_as_large_gives_the_same_pose():
    points, _ = _views(3, 2)
    points = points - points.mean(dim=(1, 2), keepdim=True)
    network = _lifter(window=2)
    assert torch.allclose(network(2 * points), network(points), atol=2e-2)


def test_the_transformer_knows_the_order_of_its_frames():
    points, _ = _views(2, 5)
    network = _lifter()
    backwards = network(points.flip(1)).flip(1)
    assert (backwards - network(points)).abs().max() > 1e-3


def test_a_frame_of_the_transformer_looks_at_the_others():
    network = _lifter()
    points, _ = _views(1, 5)
    other = points.clone()
    other[0, 4, 3:] += 0.05
    assert (network(points)[0, 0] - network(other)[0, 0]).abs().max() > 1e-4


@pytest.mark.parametrize(("method", "frames"), [("lifting_mlp", 1), ("lifting_transformer", 4)])
def test_an_unseen_joint_may_be_anything_but_is_not_the_same_as_seen(method, frames):
    network = _lifter(method)
    points, _ = _views(2, frames)
    seen = torch.ones(2, frames, 17, dtype=torch.bool)
    seen[0, 0, 3] = seen[1, :, 5:] = False
    garbage = torch.where(seen[..., None], points, torch.full_like(points, math.nan))
    out = network(garbage, seen)
    assert torch.isfinite(out).all()
    assert torch.equal(out, network(points, seen))
    assert (out - network(points)).abs().max() > 1e-3


def test_frames_without_any_joint_are_finite():
    nothing = torch.zeros(1, 5, 17, dtype=torch.bool)
    assert torch.isfinite(_lifter()(torch.full((1, 5, 17, 2), math.nan), nothing)).all()


def test_a_clip_longer_than_the_window_is_refused():
    with pytest.raises(ValueError, match="the clip has 6 frames, but this lifter's window is 5"):
        _lifter()(torch.zeros(1, 6, 17, 2))
    with pytest.raises(ValueError, match="the clip has 2 frames, but this lifter's window is 1"):
        _lifter("lifting_mlp")(torch.zeros(1, 2, 17, 2))


def test_a_person_is_put_where_the_lifted_joints_are_seen_at_the_2d_joints():
    points, poses = _views(6, 1)
    root, valid = root_positions(poses[:, 0], points[:, 0], torch.ones(6, 17, dtype=torch.bool))
    assert valid.all()
    assert torch.allclose(root, torch.tensor([0.0, 0.0, DEPTH_M]).expand(6, 3), atol=1e-4)
    # Depth follows the size that the lifter gives: a body 5 % smaller is 5 % nearer.
    smaller, _ = root_positions(0.95 * poses[:, 0], points[:, 0], torch.ones(6, 17, dtype=torch.bool))
    assert torch.allclose(smaller[:, 2], torch.full((6,), 0.95 * DEPTH_M), rtol=1e-4)


def test_unseen_joints_do_not_move_a_person_and_too_few_determine_nothing():
    points, poses = _views(2, 1)
    seen = torch.ones(2, 17, dtype=torch.bool)
    seen[0, 8:] = seen[1, 3:] = False
    wrong = torch.where(seen[..., None], points[:, 0], torch.full_like(points[:, 0], math.nan))
    root, valid = root_positions(poses[:, 0], wrong, seen)
    assert valid.tolist() == [True, False]
    assert torch.allclose(root[0], torch.tensor([0.0, 0.0, DEPTH_M]), atol=1e-3)


def test_points_that_coincide_determine_no_depth():
    points = torch.zeros(1, 17, 2)
    _, valid = root_positions(torch.randn(1, 17, 3), points, torch.ones(1, 17, dtype=torch.bool))
    assert not valid.any()


def test_a_residual_block_whose_layers_are_silent_changes_nothing():
    block = ResidualBlock(6, 0.5).eval()
    for parameter in block.parameters():
        parameter.data.zero_()
    x = torch.randn(4, 6)
    assert torch.equal(block(x), x)


def test_the_residual_network_is_as_large_as_published():
    network = lifter(LiftingMethod(skeleton="human36m17"))
    assert sum(p.numel() for p in network.parameters() if p.ndim == 2) == 34 * 1024 + 4 * 1024**2 + 1024 * 51


@pytest.mark.parametrize(("method", "frames"), [("lifting_mlp", 1), ("lifting_transformer", 3)])
def test_a_lifter_learns_depth(method, frames):
    points, poses = _views(8, frames, seed=1)
    network = _lifter(method, frames, width=64).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        (network(points) - poses).norm(dim=-1).mean().backward()
        optimiser.step()
    mean = poses.flatten(0, 1).mean(dim=0)
    with torch.no_grad():
        assert mpjpe(network(points), poses).mean() < 0.75 * mpjpe(mean.expand_as(poses), poses).mean()
