import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvpose.errors import TooFewViewsError
from mvpose.geometry.camera import CameraRig
from mvpose.geometry.lens import Lens
from mvpose.geometry.rigid import Rigid
from mvpose.models.single_view.epipolar_pose import (
    from_volume,
    make_labels,
    to_volume,
    volume_loss,
)
from mvpose.rigs.rig_recovery import recover_rig
from tests.models.moving_people import people, ring

SIZE = 64
FOCAL = 4.5 * SIZE / 2.4
K = torch.tensor([[FOCAL, 0.0, 31.5], [0.0, FOCAL, 31.5], [0.0, 0.0, 1.0]], dtype=torch.float64)


def _scene(frames, views=4, seed=0):
    """Truth in the world, the cameras' poses, K of each crop, and the joints' pixels."""
    pose = torch.linalg.inv(K) @ ring(4, SIZE)[:views]
    camera_from_world = Rigid(pose[:, :, :3], pose[:, :, 3])
    truth = people(frames, seed, bend=0.4)
    image = camera_from_world.apply(truth[:, None]) @ K.T
    return truth, camera_from_world, K.expand(frames, views, 3, 3), image[..., :2] / image[..., 2:]


def test_labels_from_true_joints_are_the_truth_in_every_camera():
    truth, cameras, k, points = _scene(3)
    labels = make_labels(points, torch.ones(3, 4, 17).double(), k, cameras)
    assert labels.valid.all()
    assert torch.allclose(labels.points_world, truth, atol=1e-6)


def test_a_wrong_joint_in_one_view_does_not_move_the_label():
    truth, cameras, k, points = _scene(2)
    points[0, 1, 6] += torch.tensor([25.0, -18.0])
    labels = make_labels(points, torch.ones(2, 4, 17).double(), k, cameras)
    assert labels.valid.all()
    assert torch.allclose(labels.points_world, truth, atol=1e-5)


def test_a_joint_found_in_one_view_alone_or_by_views_that_disagree_has_no_label():
    _, cameras, k, points = _scene(1, views=2)
    weights = torch.ones(1, 2, 17).double()
    weights[0, 1, 3] = 0
    points[0, 1, 3] = float("nan")
    # Some 40 px off the epipolar line: however the pair is corrected, a pixel stays far from the label.
    points[0, 1, 8] += torch.tensor([0.0, 40.0])
    labels = make_labels(points, weights, k, cameras, threshold_px=5.0)
    assert not labels.valid[0, 3] and not labels.valid[0, 8]
    assert labels.valid.sum() == 15
    assert (labels.points_world[0, [3, 8]] == 0).all()


def test_labels_carry_no_gradient():
    _, cameras, k, points = _scene(1)
    labels = make_labels(points.requires_grad_(), torch.ones(1, 4, 17).double(), k, cameras)
    assert not labels.points_world.requires_grad


def _volumes(labels, k, cameras):
    """Labels in every view's volume."""
    points = cameras.apply(labels.points_world[:, None])
    return to_volume(points.flatten(0, 1), k.flatten(0, 1), (SIZE, SIZE), [0])


def test_cameras_known_up_to_scale_give_the_same_volumes():
    _, cameras, k, points = _scene(2)
    weights = torch.ones(2, 4, 17).double()
    larger = Rigid(cameras.rotation, cameras.translation * 7.3)
    targets = [_volumes(make_labels(points, weights, k, c), k, c) for c in (cameras, larger)]
    assert torch.allclose(targets[0], targets[1], atol=1e-6)


def test_without_extrinsics_the_joints_themselves_give_the_cameras_and_the_same_volumes():
    _, cameras, k, points = _scene(30, seed=5)
    generator = torch.Generator().manual_seed(0)
    seen = points + 0.05 * torch.randn(points.shape, generator=generator).double()
    focal, centre = torch.full((4, 2), FOCAL).double(), torch.full((4, 2), 31.5).double()
    size = torch.full((4, 2), SIZE)
    nowhere = Rigid(torch.eye(3).double().expand(4, 3, 3), torch.zeros(4, 3).double())
    rig = CameraRig(("a", "b", "c", "d"), focal, centre, Lens.none(4), nowhere, size)
    pooled = seen.permute(1, 0, 2, 3).flatten(1, 2)
    found = recover_rig(rig, pooled, torch.ones(pooled.shape[:2]).double(), threshold_px=0.5)
    weights = torch.ones(30, 4, 17).double()
    pose = found.rig.camera_from_world
    labels = make_labels(seen, weights, k, pose)
    assert labels.valid.all()
    known = _volumes(make_labels(points, weights, k, cameras), k, cameras)
    assert (_volumes(labels, k, pose) - known).abs().median() < 0.005


def test_cameras_may_differ_between_frames():
    truth, cameras, k, _ = _scene(3)
    many = Rigid(cameras.rotation.expand(3, 4, 3, 3).clone(), cameras.translation.expand(3, 4, 3).clone())
    many.translation[1] += 0.5
    moved = many.apply(truth[:, None]) @ K.T
    labels = make_labels(moved[..., :2] / moved[..., 2:], torch.ones(3, 4, 17).double(), k, many)
    assert torch.allclose(labels.points_world, truth, atol=1e-6)


def test_labels_of_one_view_are_refused():
    _, cameras, k, points = _scene(1)
    alone = Rigid(cameras.rotation[:1], cameras.translation[:1])
    with pytest.raises(TooFewViewsError, match="at least two views"):
        make_labels(points[:, :1], torch.ones(1, 1, 17).double(), k[:, :1], alone)


@settings(deadline=None, max_examples=25)
@given(depth=st.floats(2.0, 9.0), x=st.floats(-0.5, 0.5))
def test_the_volume_is_left_as_it_was_entered(depth, x):
    points = people(2, 1) - torch.tensor([x, 0.0, 0.95]) + torch.tensor([0.0, 0.0, depth])
    k = K.expand(2, 3, 3)
    volume = to_volume(points, k, (SIZE, SIZE), [0])
    assert (volume[:, 0, 2] == 0).all()
    assert torch.allclose(from_volume(volume, k, (SIZE, SIZE), points[:, 0, 2]), points)


def test_a_crop_that_spans_two_metres_has_half_a_metre_per_quarter_of_the_volume():
    k = torch.tensor([[[160.0, 0, 31.5], [0, 160.0, 31.5], [0, 0, 1]]])
    points = torch.tensor([[[0.0, 0.0, 5.0], [0.5, 0.0, 5.0], [0.0, 0.0, 5.5]]])
    volume = to_volume(points, k, (SIZE, SIZE), [0])
    assert torch.allclose(volume[0], torch.tensor([[0.0, 0, 0], [0.25, 0, 0], [0, 0, 0.25]]), atol=1e-6)


def test_a_joint_that_would_be_behind_the_camera_stays_on_its_ray_before_it():
    out = from_volume(torch.tensor([[[0.1, 0.0, -9.0]]]).double(), K[None], (SIZE, SIZE), torch.tensor([2.0]).double())
    image = out @ K.T
    assert torch.isclose(out[0, 0, 2], torch.tensor(0.2).double())
    assert torch.isclose(image[0, 0, 0] / image[0, 0, 2], torch.tensor(0.6 * SIZE - 0.5).double())


def test_the_loss_is_smooth_l1_over_valid_joints_per_sample():
    target = torch.tensor([[[0.0, 0.0, 0.0], [float("nan")] * 3], [[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    predicted = torch.zeros(2, 2, 3)
    predicted[0, 0, 0], predicted[1, 1, 2] = 0.2, -3.0
    predicted.requires_grad_()
    valid = torch.tensor([[True, False], [True, True]])
    loss = volume_loss(predicted, target, valid)
    loss.backward()
    assert torch.isclose(loss, torch.tensor((0.5 * 0.04 + 2.5) / 2))
    assert predicted.grad is not None and torch.isfinite(predicted.grad).all()
