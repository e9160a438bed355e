import pytest
import torch

from mvpose.models.fusion.fusion_blocks import Attention, Concatenation, Pooling


@pytest.fixture(params=[Pooling, Attention])
def block(request):
    torch.manual_seed(0)
    return request.param(8, 12).eval()


def features(views: int = 4, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, views, 8, 3, 5, generator=torch.Generator().manual_seed(1))


def every(views: int, batch: int = 2) -> torch.Tensor:
    return torch.ones(batch, views, dtype=torch.bool)


@pytest.mark.parametrize("views", [1, 2, 5])
def test_any_number_of_views_is_fused(block, views):
    assert block(features(views), every(views)).shape == (2, 12, 3, 5)


def test_the_order_of_views_does_not_matter(block):
    order = torch.tensor([2, 0, 3, 1])
    assert torch.allclose(block(features(), every(4)), block(features()[:, order], every(4)), atol=1e-6)


def test_a_masked_view_equals_an_absent_one(block):
    present = torch.tensor([[True, False, True, True], [True, False, True, True]])
    loud = features()
    loud[:, 1] = 1e3
    assert torch.allclose(block(loud, present), block(loud[:, [0, 2, 3]], every(3)), atol=1e-6)


def test_a_view_that_is_there_matters(block):
    assert (block(features(), every(4)) - block(features()[:, :3], every(3))).abs().max() > 1e-3


def test_a_batch_equals_its_samples(block):
    present = torch.tensor([[True, True, False, True], [False, True, True, True]])
    whole = block(features(), present)
    for i in range(2):
        assert torch.allclose(whole[i : i + 1], block(features()[i : i + 1], present[i : i + 1]), atol=1e-6)


def test_a_sample_without_views_is_finite_and_not_served(block):
    present = torch.tensor([[True] * 4, [False] * 4])
    assert block(features(), present).isfinite().all()
    assert block.serves(present).tolist() == [True, False]


def test_concatenation_refuses_another_number_of_views_and_does_not_serve_samples_that_lack_one():
    block = Concatenation(4, 8, 12)
    with pytest.raises(ValueError, match="concatenates 4 views but got 3"):
        block.serves(every(3))
    present = every(4)
    present[1, 2] = False
    assert block.serves(present).tolist() == [True, False]


def test_concatenation_depends_on_the_order_of_views():
    torch.manual_seed(0)
    block = Concatenation(4, 8, 12).eval()
    order = torch.tensor([2, 0, 3, 1])
    assert (block(features(), every(4)) - block(features()[:, order], every(4))).abs().max() > 1e-2


def test_attention_looks_at_other_pixels():
    torch.manual_seed(0)
    block = Attention(8, 12).eval()
    changed = features()
    changed[:, 1, :, 2, 4] += 5.0
    difference = (block(changed, every(4)) - block(features(), every(4))).abs().amax(dim=(0, 1))
    assert (difference > 0).all()


def test_gradients_reach_every_parameter(block):
    block.train()
    present = torch.tensor([[True, True, False, True], [False, True, True, True]])
    block(features(), present).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in block.parameters())
