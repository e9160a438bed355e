import pytest
import torch

from mvpose.losses import consistency_loss
from mvpose.skeleton import HUMAN36M17
from tests.models.moving_people import people, ring

LIMBS = HUMAN36M17.bone_indices
K = torch.tensor([[900.0, 0.0, 320.0], [0.0, 880.0, 240.0], [0.0, 0.0, 1.0]], dtype=torch.float64)


def _two_views(count, seed=0):
    """Poses in the axes of two cameras 5 m away, the rotation between them, K of each sample, and view 2's pixels."""
    poses = people(count, seed)
    rotations = []
    for matrix in ring(2, 64, turn=0.3)[:, :, :3]:
        inverse_k = torch.linalg.inv(torch.tensor([[120.0, 0, 31.5], [0, 120.0, 31.5], [0, 0, 1]], dtype=torch.float64))
        rotations.append(inverse_k @ matrix)
    first, second = rotations
    away = torch.tensor([0.0, 0.0, 5.0], dtype=torch.float64)
    middle = torch.tensor([0.0, 0.0, 0.95], dtype=torch.float64)
    pose_1, pose_2 = (poses - middle) @ first.T + away, (poses - middle) @ second.T + away
    image = pose_2 @ K.T
    rotation = (second @ first.T).expand(count, 3, 3)
    return (
        pose_1,
        pose_2,
        rotation,
        K.expand(count, 3, 3),
        image[..., :2] / image[..., 2:],
        torch.ones(count, 17).double(),
    )


def _loss(views, pose_1=None, pose_2=None, points_2=None, guarded=True, weights=None):
    first, second, rotation, k, points, ones = views
    return consistency_loss(
        first if pose_1 is None else pose_1,
        second if pose_2 is None else pose_2,
        rotation, k, points if points_2 is None else points_2, ones if weights is None else weights,
        LIMBS, 0, guarded,
    )  # fmt: skip


def test_the_rotations_of_these_scenes_are_rotations():
    rotation = _two_views(1)[2][0]
    assert torch.allclose(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), atol=1e-9)


def test_poses_that_agree_have_no_loss_at_any_size_and_place_of_the_first():
    views = _two_views(5)
    assert _loss(views) < 1e-12
    assert _loss(views, pose_1=views[0] * 0.37 + 11.0) < 1e-12


def test_the_loss_is_the_mean_squared_distance_in_pixels():
    views = _two_views(4)
    assert torch.isclose(_loss(views, points_2=views[4] + torch.tensor([3.0, -4.0])), torch.tensor(25.0).double())


def test_a_pose_that_is_wrong_in_depth_is_told_by_the_other_view():
    views = _two_views(4)
    flat = views[0].clone()
    flat[..., 2] = 5.0
    assert _loss(views, pose_1=flat) > 100.0


def test_a_joint_of_weight_zero_may_have_any_pixel():
    views = _two_views(3)
    points, weights = views[4].clone(), views[5].clone()
    points[1, 4], weights[1, 4] = float("nan"), 0.0
    pose = views[0].clone().requires_grad_()
    loss = _loss(views, pose_1=pose, points_2=points, weights=weights)
    loss.backward()
    assert loss < 1e-12 and torch.isfinite(pose.grad).all()


def test_guarded_no_gradient_reaches_the_second_view():
    views = _two_views(2)
    tensors = [views[i].clone().requires_grad_() for i in (0, 1, 4)]
    bent = tensors[0] + 0.05 * torch.randn_like(tensors[0])
    _loss(views, bent, tensors[1], tensors[2]).backward()
    assert tensors[0].grad is not None and tensors[0].grad.abs().max() > 0
    assert tensors[1].grad is None and tensors[2].grad is None


def _spread_and_error_after_training(guarded, steps=400):
    """Two linear networks make poses of ever new noisy ones; unguarded, view 2's joints are its own pose's projection.

    Returned: how far view 2's joints lie from its root in the image, and how far view 1's pose falls from the true
    pixels of view 2, each over what it was before.
    """
    torch.manual_seed(0)
    views = _two_views(48)
    roots = [pose[:, :1] for pose in views[:2]]
    truth = [pose - root for pose, root in zip(views[:2], roots, strict=True)]
    networks = [torch.nn.Linear(51, 51, bias=False).double() for _ in range(2)]
    for network in networks:
        torch.nn.init.eye_(network.weight)
    optimiser = torch.optim.Adam([p for network in networks for p in network.parameters()], lr=5e-3)

    def poses():
        noisy = [(pose + 0.15 * torch.randn_like(pose)).flatten(1) for pose in truth]
        made = [network(x).reshape(-1, 17, 3) for network, x in zip(networks, noisy, strict=True)]
        return [pose - pose[:, :1] + root for pose, root in zip(made, roots, strict=True)]

    def state():
        with torch.no_grad():
            first, second = poses()
            pixels = _pixels(second)
            spread = (pixels - pixels[:, :1]).norm(dim=-1).mean()
            return torch.stack([spread, _loss(views, first).sqrt()])

    before = state()
    for _ in range(steps):
        first, second = poses()
        loss = _loss(views, first, second, views[4] if guarded else _pixels(second), guarded)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return (state() / before).tolist()


def _pixels(pose):
    image = pose @ K.T
    return image[..., :2] / image[..., 2:]


def test_without_the_guard_the_joints_collapse_to_a_point_and_with_it_the_poses_improve():
    spread, error = _spread_and_error_after_training(guarded=False)
    assert spread < 0.4 and error > 1.2
    spread, error = _spread_and_error_after_training(guarded=True)
    assert spread > 0.9 and error < 0.85


def test_a_single_limb_is_no_scale():
    views = _two_views(1)
    with pytest.raises(ValueError, match="at least two limbs, got 1"):
        consistency_loss(*views, [(0, 1)], 0)


def test_a_collapsed_pose_is_said_so():
    views = _two_views(2)
    with pytest.raises(ValueError, match="collapsed to a point"):
        _loss(views, pose_2=views[1].mean(dim=1, keepdim=True).expand_as(views[1]))


def test_a_joint_placed_behind_the_camera_does_not_count():
    views = _two_views(2)
    assert _loss(views, pose_2=views[1] - 2 * views[1][:, :1]) == 0
