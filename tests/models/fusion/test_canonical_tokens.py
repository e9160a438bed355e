"""Canonical fusion of joint tokens, on a small backbone and head."""

import os

import pytest
import torch

from mvpose.models.backbones.cspnext import cspnext_from_rtmpose
from mvpose.models.backbones.simcc_head import SimCCHead, simcc_head_from_rtmpose
from mvpose.models.backbones.simple_baselines import ResNet
from mvpose.models.fusion.canonical_tokens import CanonicalTokens, TokenFusionConfig
from tests.models.backbones.test_simcc_head import RTMPOSE

SIZE = (64, 96)


def small(fusion: str = "attention", trained: bool = True) -> CanonicalTokens:
    torch.manual_seed(0)
    backbone = ResNet(18, 8)
    network = CanonicalTokens(
        backbone.freeze(), SimCCHead(backbone.channels, 5, SIZE, width=16), TokenFusionConfig(points=8, fusion=fusion)
    )
    if trained:
        for parameter in network.correct.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        for layer in (network.doubt, network.first_doubt):
            torch.nn.init.normal_(layer[-1].weight, std=0.3)
    return network.eval()


def views(number: int, size: tuple[int, int] = SIZE) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    crops = torch.rand((2, number, 3, size[1], size[0]), generator=generator)
    angle = torch.arange(number) * 0.9
    rotation = torch.zeros(number, 3, 4)
    rotation[:, 0, 0] = rotation[:, 2, 2] = angle.cos()
    rotation[:, 0, 2], rotation[:, 2, 0] = angle.sin(), -angle.sin()
    rotation[:, 1, 1] = 1
    rotation[:, 2, 3] = 4.0
    intrinsics = torch.tensor([[100.0, 0, size[0] / 2], [0, 100.0, size[1] / 2], [0, 0, 1]])
    return crops, (intrinsics @ rotation).expand(2, -1, -1, -1).contiguous()


def test_an_untrained_fusion_leaves_every_view_as_the_single_view_network_has_it() -> None:
    network = small(trained=False)
    crops, projections = views(3)
    alone = torch.cat([network(crops[:, [v]], projections[:, [v]]).joints_2d for v in range(3)], dim=1)
    torch.testing.assert_close(network(crops, projections).joints_2d, alone)


@pytest.mark.footage
def test_an_untrained_fusion_of_rtmpose_is_rtmpose(weights: str) -> None:
    path = os.path.join(weights, RTMPOSE)
    network = CanonicalTokens(
        cspnext_from_rtmpose(path).freeze(), simcc_head_from_rtmpose(path), TokenFusionConfig()
    ).eval()
    crops, projections = views(2, (192, 256))
    with torch.no_grad():
        found = network(crops, projections)
        mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        images = (crops - mean[:, None, None]) / deviation[:, None, None]
        columns, _ = network.head(network.backbone(images.flatten(0, 1)))
    at = columns.argmax(dim=-1).unflatten(0, (2, 2)) / 2
    assert (found.joints_2d[..., 0] - at).abs().max() <= 0.25 + 1e-5


@pytest.mark.parametrize("fusion", ["pooling", "attention"])
def test_the_order_of_views_does_not_matter_and_an_absent_view_equals_no_view(fusion: str) -> None:
    network = small(fusion)
    crops, projections = views(4)
    order = torch.tensor([2, 0, 3, 1])
    straight, shuffled = network(crops, projections), network(crops[:, order], projections[:, order])
    torch.testing.assert_close(shuffled.joints_2d, straight.joints_2d[:, order], rtol=1e-4, atol=1e-4)
    present = torch.tensor([True, True, False, True]).expand(2, -1)
    fewer = [0, 1, 3]
    torch.testing.assert_close(
        network(crops, projections, present).joints_2d[:, fewer],
        network(crops[:, fewer], projections[:, fewer]).joints_2d,
        rtol=1e-4,
        atol=1e-4,
    )


def test_what_one_view_sees_changes_another_views_answer() -> None:
    crops, projections = views(3)
    other = crops.clone()
    other[:, 0] = 1 - other[:, 0]
    for network, moves in ((small(), True), (small(trained=False), False)):
        moved = network(other, projections).joints_2d[:, 1] - network(crops, projections).joints_2d[:, 1]
        assert (moved.abs().max() > 1e-4) == moves


def test_the_frozen_parts_are_not_trained_and_the_rest_is() -> None:
    network = small().train()
    crops, projections = views(3)
    found = network(crops, projections)
    assert found.scale_2d is not None
    (found.joints_2d.square().sum() + found.scale_2d.sum()).backward()
    for name, parameter in network.named_parameters():
        frozen = name.startswith(("backbone.", "head."))
        assert (parameter.grad is None) if frozen else (parameter.grad is not None), name


def test_maps_are_the_size_of_other_methods_heatmaps_and_peak_where_the_joint_is() -> None:
    found = small(trained=False)(*views(2), keep_maps=True)
    assert found.heatmaps is not None and found.heatmaps.shape == (2, 2, 5, SIZE[1] // 4, SIZE[0] // 4)


def test_crops_of_another_size_and_one_view_have_a_clear_end() -> None:
    network = small()
    with pytest.raises(ValueError, match="head takes crops"):
        network(*views(2, (128, 128)))
    assert not network(*views(1)).valid.any()
