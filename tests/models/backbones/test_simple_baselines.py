import pytest
import torch

from mvpose.models.backbones.simple_baselines import HeatmapHead, ResNet

# Parameters of torchvision's networks less their classifiers (fc), as published in its documentation.
PUBLISHED = {
    18: 11_689_512 - 513_000,
    34: 21_797_672 - 513_000,
    50: 25_557_032 - 2_049_000,
    101: 44_549_160 - 2_049_000,
    152: 60_192_808 - 2_049_000,
}


@pytest.mark.parametrize("depth", PUBLISHED)
def test_parameter_counts_are_the_published_ones(depth):
    with torch.device("meta"):
        network = ResNet(depth)
    assert sum(p.numel() for p in network.parameters()) == PUBLISHED[depth]


@pytest.mark.parametrize(("depth", "channels"), [(18, 64), (50, 256)])
def test_features_have_a_32nd_of_the_image_and_maps_a_quarter(depth, channels):
    backbone = ResNet(depth, width=8).eval()
    head = HeatmapHead(backbone.channels, 5, width=16).eval()
    features = backbone(torch.randn(2, 3, 64, 96))
    assert features.shape == (2, channels, 2, 3)
    fine, maps = head(features)
    assert fine.shape == (2, 16, 16, 24)
    assert maps.shape == (2, 5, 16, 24)


def test_names_are_torchvisions():
    names = set(ResNet(50, width=4).state_dict())
    assert {"conv1.weight", "bn1.running_mean", "layer1.0.downsample.0.weight", "layer1.0.downsample.1.bias"} <= names
    assert {"layer3.5.conv3.weight", "layer4.2.bn3.num_batches_tracked"} <= names
    assert "layer1.1.downsample.0.weight" not in names
    assert {name.split(".")[0] for name in names} == {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}


def test_an_unknown_depth_is_refused():
    with pytest.raises(ValueError, match="18, 34, 50"):
        ResNet(20)


@pytest.mark.parametrize("depth", [18, 50])
def test_gradients_reach_every_parameter(depth):
    torch.manual_seed(0)
    backbone = ResNet(depth, width=8)
    head = HeatmapHead(backbone.channels, 3, width=8)
    head(backbone(torch.randn(4, 3, 64, 64)))[1].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in [*backbone.parameters(), *head.parameters()])


def test_a_frozen_resnet_keeps_its_batch_statistics():
    backbone = ResNet(18, width=8).freeze().train()
    before = backbone.bn1.running_mean.clone()
    backbone(torch.randn(2, 3, 64, 64))
    assert torch.equal(backbone.bn1.running_mean, before)
