"""Networks that take one image: the camera is read from the matrix, the pose is placed by the size of people."""

import math
from dataclasses import replace

import pytest
import torch

from mvpose.geometry.camera import pinhole_of
from mvpose.models.backbone_settings import ResNetBackbone
from mvpose.models.method import build_method
from mvpose.models.multiview import CameraPose, MultiViewPrediction
from mvpose.models.network_settings import MonocularConfig, MonocularMethod
from mvpose.models.objective import MultiViewTruth, consistency_term, joint_loss, span_term, volume_term
from mvpose.models.objective_settings import ObjectiveConfig
from mvpose.models.single_view.epipolar_pose import from_volume, magnification, to_volume
from mvpose.skeleton import HUMAN36M17
from tests.models.moving_people import LENGTHS, people, project, ring

SIZE = (96, 96)
HEADS = ("integral", "regression", "two_and_half_d", "volume", "ray_volume")


def _network(head="integral", **sizes):
    torch.manual_seed(0)
    config = MonocularConfig(head=head, depth=4, width=4, **sizes)
    return build_method(MonocularMethod(size=SIZE, backbone=ResNetBackbone(depth=18, width=4), monocular=config))


def _answering(points, intrinsics, factor=1.0):
    """A network that answers with the volume of these poses in the camera's axes, and `factor` times their span."""
    network = _network().eval()
    spans = factor * points[:, 0, 2] / magnification(intrinsics, SIZE)
    network.log_span.forward = lambda features: spans.log()[:, None]
    network.decoder.forward = lambda features: (to_volume(points, intrinsics, SIZE, (0,)), None)
    return network


def _scene(count=3, views=4):
    projections = ring(views, SIZE[0]).float().expand(count, views, 3, 4)
    joints = people(count).float()
    return joints, projections, project(projections, joints)


def test_a_matrix_gives_back_its_camera():
    generator = torch.Generator().manual_seed(3)
    rotation = torch.linalg.qr(torch.randn(6, 3, 3, dtype=torch.float64, generator=generator))[0]
    rotation = rotation * torch.linalg.det(rotation)[:, None, None]
    k = torch.tensor([[300.0, 4.0, 60.0], [0.0, 310.0, 66.0], [0.0, 0.0, 1.0]], dtype=torch.float64).expand(6, 3, 3)
    translation = torch.randn(6, 3, dtype=torch.float64, generator=generator)
    matrix = k @ torch.cat([rotation, translation[..., None]], dim=-1)
    for factor in (1.0, -2.5):
        intrinsics, pose = pinhole_of(factor * matrix)
        assert torch.allclose(intrinsics, k) and torch.allclose(pose.rotation, rotation)
        assert torch.allclose(pose.translation, translation)


def test_a_person_of_the_estimated_size_is_placed_where_they_are():
    joints, projections, pixels = _scene()
    intrinsics, pose = pinhole_of(projections[:, 1])
    network = _answering(pose.apply(joints), intrinsics)
    found = network(torch.rand(3, 1, 3, *SIZE), projections[:, 1:2])
    assert torch.allclose(found.joints, joints, atol=2e-3)
    assert torch.allclose(found.joints_2d[:, 0], pixels[:, 1], atol=1e-2)
    assert found.valid.all() and (found.confidence == 1).all() and found.views_used.shape == (3, 1, 17)


def test_somebody_twice_as_large_is_placed_at_half_the_distance():
    joints, projections, _ = _scene()
    intrinsics, pose = pinhole_of(projections[:, 0])
    seen = pose.apply(joints)
    found = _answering(seen, intrinsics, 0.5)(torch.rand(3, 1, 3, *SIZE), projections[:, :1])
    assert torch.allclose(pose.apply(found.joints), seen / 2, atol=2e-3)


@pytest.mark.parametrize("head", HEADS)
def test_every_head_answers_finitely_from_the_start_and_learns(head):
    network, goal = _network(head), ObjectiveConfig(volume_points=1.0, span=1.0)
    joints, projections, pixels = _scene()
    known = torch.ones(3, 17, dtype=torch.bool)
    truth = MultiViewTruth(joints, known, pixels[:, :1], known[:, None], known[:, None])
    found = network(torch.rand(3, 1, 3, *SIZE), projections[:, :1].contiguous(), keep_maps=True)
    loss = volume_term(found, truth, SIZE, goal.root) + span_term(found, truth, SIZE, goal.root)
    loss.backward()
    assert found.joints.isfinite().all() and loss.isfinite()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert ((found.confidence >= 0) & (found.confidence <= 1)).all()


def test_an_absent_view_has_no_answer():
    network = _network().eval()
    present = torch.tensor([[True], [False], [True]])
    projections = _scene()[1][:, :1].clone()
    projections[1] = 0.0
    found = network(torch.rand(3, 1, 3, *SIZE), projections, present)
    assert found.valid.all(dim=1).tolist() == [True, False, True]
    assert (found.confidence[1] == 0).all() and found.joints.isfinite().all()


def test_two_views_are_refused():
    with pytest.raises(ValueError, match="one view, not 2"):
        _network()(torch.rand(1, 2, 3, *SIZE), _scene(1)[1][:, :2])


def test_a_refinement_unit_trains_alone_and_keeps_the_root_in_place():
    base = _network().eval()
    network = _network(refinement=8)
    network.load_state_dict(network.state_dict() | base.state_dict())
    crops, projections = torch.rand(3, 1, 3, *SIZE), _scene()[1][:, :1].contiguous()
    network.train()
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert trained and all(name.startswith("unit.") for name in trained)
    found = network(crops, projections, keep_maps=True)
    assert (found.joints - base(crops, projections).joints)[:, 1:].abs().max() > 1e-2
    assert torch.allclose(found.joints[:, 0], base(crops, projections).joints[:, 0], atol=1e-5)
    assert found.coarse is not None and (found.coarse.joints - found.joints).abs().max() > 1e-3
    frozen = [buffer for name, buffer in network.named_buffers() if name.startswith(("backbone", "decoder"))]
    before = [buffer.clone() for buffer in frozen]
    network(crops, projections)
    assert all(torch.equal(a, b) for a, b in zip(before, frozen, strict=True))


def _prediction(pose, projections, span_m=None):
    """An answer of a monocular network with these poses in the camera's axes."""
    intrinsics, camera = pinhole_of(projections)
    seen = torch.ones(pose.shape[:2], dtype=torch.bool)
    volume = to_volume(pose, intrinsics, SIZE, (0,))
    kept = CameraPose(volume, pose, torch.ones(len(pose)) if span_m is None else span_m, intrinsics, camera)
    flat = torch.zeros(*seen.shape, 2)[:, None]
    return MultiViewPrediction(
        camera.inverse().apply(pose), seen, seen.float(), flat, seen[:, None].float(), seen[:, None], camera_pose=kept
    )


def _truth(joints, pixels=None):
    known = torch.ones(joints.shape[:2], dtype=torch.bool)
    pixels = torch.zeros(*joints.shape[:2], 2) if pixels is None else pixels
    return MultiViewTruth(joints, known, pixels[:, None], known[:, None], known[:, None])


def test_the_volume_term_is_zero_at_the_truth_of_any_unit_and_ignores_a_sample_without_a_root():
    joints, projections, _ = _scene()
    _, camera = pinhole_of(projections[:, 2])
    prediction = _prediction(1.7 * camera.apply(joints), projections[:, 2])
    assert volume_term(prediction, _truth(joints), SIZE, (0,)) < 1e-8
    truth = _truth(joints + torch.tensor([0.0, 0.0, 0.3]))
    assert volume_term(prediction, truth, SIZE, (0,)) > 0.05
    truth.known[:, 0] = False
    assert volume_term(prediction, truth, SIZE, (0,)) == 0


def test_the_span_term_is_the_error_of_the_depth_of_the_root():
    joints, projections, _ = _scene()
    intrinsics, camera = pinhole_of(projections[:, 2])
    pose = camera.apply(joints)
    true = pose[:, 0, 2] / magnification(intrinsics, SIZE)
    for factor in (0.8, 1.25):
        term = span_term(_prediction(pose, projections[:, 2], factor * true), _truth(joints), SIZE, (0,))
        assert torch.isclose(term, torch.tensor(math.log(1.25)), atol=1e-5)
    truth = _truth(joints)
    truth.known[1:, 0] = False
    span_m = torch.stack([true[0], 3 * true[1], 3 * true[2]])
    assert span_term(_prediction(pose, projections[:, 2], span_m), truth, SIZE, (0,)) < 1e-5


def _views_of(joints, projections):
    """Answers of all views at the truth, view by view, and the truth of each."""
    views = projections.shape[1]
    flat = projections.flatten(0, 1)
    repeated = joints.repeat_interleave(views, dim=0)
    _, camera = pinhole_of(flat)
    pixels = project(projections, joints).flatten(0, 1)
    return camera.apply(repeated), flat, _truth(repeated, pixels)


def test_true_poses_of_all_views_are_consistent_whatever_their_size_and_a_bent_one_is_not():
    joints, projections, _ = _scene()
    pose, flat, truth = _views_of(joints, projections)
    term = lambda p: consistency_term(_prediction(p, flat), truth, 4, SIZE, HUMAN36M17.bone_indices, 0)  # noqa: E731
    assert term(pose) < 1e-7
    bent = pose.clone()
    bent[1, 3] += torch.tensor([0.0, 0.0, 0.4])
    assert term(bent) > 2e-5


def _sized(pose):
    """Poses of true size with their roots in place, as the network gives them."""
    ends = torch.tensor(HUMAN36M17.bone_indices)
    size = (pose[:, ends[:, 0]] - pose[:, ends[:, 1]]).norm(dim=-1).sum(dim=-1)
    return pose[:, :1] + (pose - pose[:, :1]) * (LENGTHS.sum().float() / size)[:, None, None]


def test_consistency_pulls_a_wrong_depth_right_without_any_3d_truth():
    joints, projections, _ = _scene(1)
    pose, flat, truth = _views_of(joints, projections)
    blind = replace(truth, joints=torch.full_like(truth.joints, torch.nan), known=torch.zeros_like(truth.known))
    # As in training, the 2D joints hold x and y; the depth of a foot along its ray is free in every view.
    depth = torch.full((4,), 1.07, requires_grad=True)
    optimiser = torch.optim.Adam([depth], lr=2e-3)
    for _ in range(150):
        moved = torch.cat([pose[:, :5], pose[:, 5:6] * depth[:, None, None], pose[:, 6:]], dim=1)
        optimiser.zero_grad()
        loss = consistency_term(_prediction(_sized(moved), flat), blind, 4, SIZE, HUMAN36M17.bone_indices, 0)
        loss.backward()
        optimiser.step()
    assert (depth - 1.0).abs().max() < 0.01


def test_a_pose_far_away_costs_nothing_after_root_alignment():
    joints, projections, _ = _scene()
    _, camera = pinhole_of(projections[:, 0])
    pose = camera.apply(joints) + torch.tensor([0.0, 0.0, 3.0])
    assert joint_loss(_prediction(pose, projections[:, 0]), _truth(joints), ObjectiveConfig()) < 1e-5


def test_the_volume_undoes_itself_in_float32():
    joints, projections, _ = _scene()
    intrinsics, camera = pinhole_of(projections[:, 0])
    points = camera.apply(joints)
    volume = to_volume(points, intrinsics, SIZE, (0,))
    assert torch.allclose(from_volume(volume, intrinsics, SIZE, points[:, 0, 2]), points, atol=1e-4)
