from dataclasses import replace

import pytest
import torch

from mvpose.geometry.triangulation import DltMethod
from mvpose.models.algebraic import (
    AlgebraicConfig,
    AlgebraicTriangulation,
    RansacConfig,
    RansacTriangulation,
    consensus,
    view_weights,
)
from mvpose.models.backbones.simple_baselines import ResNet
from mvpose.models.fusion.canonical_fusion import Baseline, FusionConfig
from mvpose.models.multiview import Decoding, open_views
from mvpose.models.objective import MultiViewTruth, ObjectiveConfig, objective

SMALL = AlgebraicConfig(
    head_width=16, confidence_widths=(16, 8), decoding=Decoding(sharpness=100.0, solver=DltMethod.NORMAL)
)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return AlgebraicTriangulation(ResNet(18, width=8), 3, SMALL)


def test_gradients_reach_every_parameter(network, blobs):
    samples = blobs(batch=4)
    answer = network(samples.crops, samples.projections)
    (answer.joints - samples.joints).square().sum().backward()
    assert answer.valid.all()
    # The heads start near zero, so some gradients are tiny, but none is exactly nothing.
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


def test_a_masked_view_equals_an_absent_one_and_order_does_not_matter(network, blobs):
    network, samples = network.double().eval(), blobs()
    crops, projections = samples.crops.double(), samples.projections.double()
    masked = network(crops, projections, torch.tensor([[True, False, True, True]] * 2))
    order = [3, 0, 2]
    absent = network(crops[:, order], projections[:, order])
    assert torch.allclose(masked.joints, absent.joints, atol=1e-6)
    assert torch.allclose(masked.joints_2d[:, order], absent.joints_2d)


def test_weights_sum_to_one_over_present_views():
    confidence = torch.rand(2, 4, 3)
    present = torch.tensor([[True, True, False, True], [True] * 4])
    weights = view_weights(confidence, present, floor=0.0)
    assert torch.allclose(weights.sum(dim=1), torch.ones(2, 3))
    assert not weights[0, 2].any()


def test_a_weight_is_a_view_s_share_of_the_confidence_plus_the_floor_and_0_for_an_absent_view():
    """Fails without the floor, if it is scaled with the sum, or if an absent view gets it."""
    confidence = torch.tensor([[[0.5], [0.0], [1.5], [0.7]]])
    weights = view_weights(confidence, torch.tensor([[True, True, True, False]]), floor=0.1)
    assert torch.allclose(weights[0, :, 0], torch.tensor([0.35, 0.1, 0.85, 0.0]))


class Trust(torch.nn.Module):
    """Confidence in the first of four views alone, for three joints."""

    def forward(self, features):
        first = torch.arange(len(features)) % 4 == 0
        return first.float()[:, None].expand(-1, 3)


def test_the_floor_determines_a_joint_that_a_single_view_trusts(blobs):
    """Fails if the network does not add the floor of its settings to the weights."""
    torch.manual_seed(0)
    samples = blobs()
    for floor, determined in ((0.1, True), (0.0, False)):
        network = AlgebraicTriangulation(ResNet(18, width=8), 3, replace(SMALL, floor=floor)).eval()
        network.confidence = Trust()
        found = network(samples.crops, samples.projections)
        assert found.valid.all() == determined and found.valid.any() == determined


def test_small_crops_are_refused(network, blobs):
    samples = blobs(size=(64, 64))
    with pytest.raises(ValueError, match="128 pixels"):
        network(samples.crops, samples.projections)


def observed(samples):
    views = open_views(samples.crops, samples.projections, None, 2.0)
    return views, samples.joints_2d.clone(), torch.ones(samples.joints_2d.shape[:3])


def test_consensus_drops_a_wrong_view(blobs):
    views, points, confidence = observed(blobs(batch=3))
    points[1, 2, 0] += 60.0
    found = consensus(points, confidence, views, RansacConfig())
    assert found.valid.all()
    assert (found.joints - blobs(batch=3).joints).norm(dim=-1).max() < 1e-3
    assert not found.views_used[1, 2, 0]
    assert found.views_used.sum() == 3 * 4 * 3 - 1


def test_consensus_of_a_batch_is_that_of_its_samples(blobs):
    samples = blobs(batch=3)
    views, points, confidence = observed(samples)
    points += 4 * torch.randn(points.shape, generator=torch.Generator().manual_seed(3))
    whole = consensus(points, confidence, views, RansacConfig())
    for i in range(3):
        one_view, _, _ = observed(blobs(batch=3))
        one_view = open_views(samples.crops[i : i + 1], samples.projections[i : i + 1], None, 2.0)
        one = consensus(points[i : i + 1], confidence[i : i + 1], one_view, RansacConfig())
        assert torch.allclose(one.joints, whole.joints[i : i + 1], atol=1e-5)


def test_ransac_with_one_view_has_no_valid_joint_and_with_two_it_may(blobs):
    torch.manual_seed(0)
    network = RansacTriangulation(
        Baseline(ResNet(18, width=8), 3, FusionConfig(head_width=16)), RansacConfig(threshold=10.0)
    ).eval()
    samples = blobs()
    assert not network(samples.crops[:, :1], samples.projections[:, :1]).valid.any()
    answer = network(samples.crops, samples.projections, keep_maps=True)
    assert answer.joints.isfinite().all()
    assert answer.heatmaps.shape == (2, 4, 3, 32, 32)
    assert torch.equal(answer.joints_2d, answer.joints_2d.mul(2).round() / 2)  # whole map pixels: 4 c + 1.5


def test_the_network_under_ransac_learns_from_its_maps_and_from_nothing_that_is_read_of_them(blobs):
    torch.manual_seed(0)
    network = RansacTriangulation(Baseline(ResNet(18, width=8), 3, FusionConfig(head_width=16)), RansacConfig())
    samples = blobs()
    answer = network(samples.crops, samples.projections, keep_maps=True)
    assert not answer.joints.requires_grad
    assert not answer.joints_2d.requires_grad
    everywhere = torch.ones(2, 4, 3, dtype=torch.bool)
    truth = MultiViewTruth(samples.joints, everywhere[:, 0], samples.joints_2d, everywhere, everywhere)
    config = ObjectiveConfig(heatmaps=1.0, points=0.0, joints=0.0)
    objective(answer, truth, (128, 128), config)["heatmaps"].backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []
