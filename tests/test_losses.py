import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvpose import losses
from mvpose.models.objective_settings import WarmUp

POINT_LOSSES = [losses.point_distance, losses.mean_absolute_error, losses.soft_mse]


def points(seed: int) -> torch.Tensor:
    return torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ones() -> torch.Tensor:
    return torch.ones(4, 5, dtype=torch.float64)


@pytest.mark.parametrize("loss", POINT_LOSSES)
def test_exact_points_cost_nothing_and_have_a_finite_gradient(loss):
    predicted = points(0).requires_grad_()
    value = loss(predicted, points(0), ones())
    value.backward()
    assert value == 0
    assert not predicted.grad.any()


@pytest.mark.parametrize("loss", POINT_LOSSES)
def test_unknown_targets_do_not_count_even_as_nan(loss):
    weight, truth = ones(), points(1)
    weight[0] = 0
    truth[0] = float("nan")
    predicted = points(0).requires_grad_()
    value = loss(predicted, truth, weight)
    value.backward()
    assert torch.allclose(value, loss(points(0)[1:], truth[1:], weight[1:]))
    assert predicted.grad.isfinite().all()
    assert not predicted.grad[0].any()
    assert predicted.grad[1:].abs().min() > 0


@pytest.mark.parametrize("loss", POINT_LOSSES)
def test_a_loss_over_nothing_is_zero(loss):
    assert loss(points(0), points(1), ones() * 0) == 0


@pytest.mark.parametrize("loss", POINT_LOSSES)
def test_gradients_are_right(loss):
    predicted = (points(0) * 0.3).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: loss(p, points(1) * 0.3, ones()), (predicted,))


def test_values_are_the_definitions():
    predicted, truth = points(0), points(1)
    offset = predicted - truth
    assert torch.allclose(losses.point_distance(predicted, truth, ones()), offset.norm(dim=-1).mean())
    assert torch.allclose(losses.mean_absolute_error(predicted, truth, ones()), offset.abs().mean())


@settings(deadline=None, max_examples=50)
@given(d=st.floats(0.0, 5.0))
def test_soft_mse_is_square_below_its_limit_and_flat_above(d):
    truth = torch.zeros(1, 1, dtype=torch.float64)
    value = losses.soft_mse(truth + d, truth, torch.ones(1, dtype=torch.float64)).item()
    expected = d**2 if d <= 0.2 else (d**2) ** 0.1 * (0.2**2) ** 0.9
    assert value == pytest.approx(expected, abs=1e-12)


def test_heatmap_loss_ignores_maps_without_weight():
    maps, targets = torch.rand(3, 2, 4, 4), torch.rand(3, 2, 4, 4)
    weight = torch.ones(3, 2)
    weight[0, 1] = 0
    targets[0, 1] = float("nan")
    kept = weight > 0
    expected = (maps[kept] - targets[kept]).square().mean()
    assert torch.allclose(losses.heatmap_mse(maps, targets, weight), expected)


def test_the_warm_up_is_silent_then_grows_then_stays():
    warm_up = WarmUp(start=0.4, full=0.6)
    assert [warm_up.share(p) for p in (0.0, 0.4, 0.5, 0.6, 1.0)] == pytest.approx([0, 0, 0.5, 1, 1])
    assert WarmUp(start=0.0, full=0.0).share(0.0) == 1.0
    assert WarmUp(start=0.4, full=0.4).share(0.39) == 0.0
    with pytest.raises(ValueError, match="0 <= start <= full"):
        WarmUp(start=0.6, full=0.4)
