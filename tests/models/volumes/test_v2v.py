import torch

from mvpose.models.volumes.v2v import V2V


def test_shapes_and_gradients():
    torch.manual_seed(0)
    network = V2V(3, 2, widths=(4, 6, 8))
    out = network(torch.randn(2, 3, 8, 8, 8))
    assert out.shape == (2, 2, 8, 8, 8)
    out.square().sum().backward()
    # A bias before a batch norm has no effect and so no gradient but rounding.
    weights = [p for n, p in network.named_parameters() if not n.endswith("bias")]
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in weights)


def test_the_default_has_the_papers_depth():
    with torch.device("meta"):
        network = V2V(32, 17)
    level, widths = network.hourglass, []
    while hasattr(level, "below"):
        widths.append(level.skip.norm.num_features)
        level = level.below
    assert widths == [32, 64, 128, 128, 128]
    assert network.joints.weight.shape == (17, 32, 1, 1, 1)


def test_shifting_the_volume_by_a_whole_cell_shifts_the_answer():
    torch.manual_seed(0)
    network = V2V(1, 1, widths=(4, 4)).double().eval()
    volume = torch.zeros(1, 1, 32, 32, 32, dtype=torch.float64)
    volume[..., 14:18, 14:18, 14:18] = torch.rand(4, 4, 4, dtype=torch.float64)
    moved = torch.roll(volume, 2, dims=2)
    core = (..., slice(14, 18), slice(14, 18), slice(14, 18))
    shifted_core = (..., slice(16, 20), slice(14, 18), slice(14, 18))
    assert torch.allclose(network(volume)[core], network(moved)[shifted_core])
