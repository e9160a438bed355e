"""Optimiser groups, schedules, averaged weights."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mvpose.errors import ConfigError
from mvpose.training.checkpoints import Checkpoints, Position, Trained
from mvpose.training.optimisation import (
    OptimisationConfig,
    average_weights,
    build_optimiser,
    rate_share,
    set_rate,
    step_if_finite,
)


def network() -> nn.ModuleDict:
    return nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))})


@given(schedule=st.sampled_from(["constant", "step", "cosine"]), total=st.integers(20, 300))
def test_a_rate_rises_to_its_full_value_once_and_never_rises_again(schedule, total):
    config = OptimisationConfig(schedule=schedule, rise=10)
    shares = [rate_share(config, step, total) for step in range(total)]
    top = shares.index(max(shares))
    assert max(shares) == pytest.approx(1.0)
    assert shares[: top + 1] == sorted(shares[: top + 1])
    assert shares[top:] == sorted(shares[top:], reverse=True)
    assert min(shares) >= 0


def test_steps_divide_the_rate_by_ten():
    config = OptimisationConfig(schedule="step", rise=0, drops=(0.5, 0.75))
    assert [rate_share(config, s, 100) for s in (49, 50, 75)] == pytest.approx([1.0, 0.1, 0.01])


def test_slow_parts_and_parameters_without_decay_have_groups_of_their_own():
    config = OptimisationConfig(rate=1.0, slow_rate=0.1, weight_decay=0.5)
    optimiser = build_optimiser(network(), config)
    set_rate(optimiser, 0.5)
    groups = {(g["lr"], g["weight_decay"]): sum(p.numel() for p in g["params"]) for g in optimiser.param_groups}
    assert groups == {(0.05, 0.5): 4, (0.05, 0.0): 2, (0.5, 0.5): 4, (0.5, 0.0): 6}


def test_what_is_frozen_is_left_out_and_a_frozen_network_is_refused():
    net = network()
    net["backbone"].requires_grad_(False)
    optimiser = build_optimiser(net, OptimisationConfig())
    assert sum(p.numel() for g in optimiser.param_groups for p in g["params"]) == 10
    with pytest.raises(ConfigError, match="frozen"):
        build_optimiser(net.requires_grad_(False), OptimisationConfig())


def test_averaged_weights_follow_quickly_at_first_and_slowly_later():
    net, averaged = nn.Linear(1, 1), nn.Linear(1, 1)
    nn.init.ones_(net.weight)
    nn.init.zeros_(averaged.weight)
    average_weights(averaged, net, 0.999, step=0)
    assert averaged.weight.item() == pytest.approx(0.9)
    nn.init.zeros_(averaged.weight)
    average_weights(averaged, net, 0.999, step=10**6)
    assert averaged.weight.item() == pytest.approx(0.001, rel=1e-3)


def test_all_weights_are_averaged_to_the_bits_of_one_after_the_other():
    """Fails if a tensor is left out, or paired with another's."""
    torch.manual_seed(0)
    net, averaged = network(), network()
    expected = {name: mean.clone() for name, mean in averaged.state_dict().items()}
    for name, value in net.state_dict().items():
        if value.is_floating_point():
            expected[name].lerp_(value, 1.0 - 0.9)
    average_weights(averaged, net, 0.9, step=1000)
    assert all(torch.equal(value, expected[name]) for name, value in averaged.state_dict().items())


def test_counters_of_normalisations_are_copied_and_not_averaged():
    net, averaged = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    net(torch.randn(4, 2))
    average_weights(averaged, net, 0.9, step=100)
    assert averaged.state_dict()["num_batches_tracked"] == 1


@pytest.fixture
def uninitialised_memory_is_nan():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_a_fused_optimiser_skips_on_the_device_what_the_host_would_skip(name, uninitialised_memory_is_nan):
    """The first of four gradients is not finite, and the third. Fails if a skipped step moves weights or momentum, or
    leaves a momentum that nobody has initialised."""
    moved = []
    for fused in (False, True):
        torch.manual_seed(0)
        net = nn.Linear(3, 2)
        optimiser = build_optimiser(net, OptimisationConfig(optimiser=name, rate=0.1), fused=fused)
        for step in range(4):
            gradient = torch.full((), torch.inf) if step in (0, 2) else torch.tensor(1.0 + step)
            for parameter in net.parameters():
                parameter.grad = torch.ones_like(parameter) * gradient
            step_if_finite(optimiser, gradient)
        moved.append(torch.cat([p.detach().flatten() for p in net.parameters()]))
    torch.testing.assert_close(moved[1], moved[0], rtol=1e-6, atol=1e-7)
    assert moved[0].isfinite().all()


@pytest.mark.parametrize("saved", [False, True])
def test_a_checkpoint_continues_with_the_optimiser_of_this_machine(tmp_path, saved):
    """From a CPU to a GPU and back. Fails if a checkpoint brings its own, which would not skip steps on the device."""
    states = [trained_linear(fused) for fused in (saved, not saved)]
    checkpoints = Checkpoints(str(tmp_path), 1)
    for state in states[:1]:
        state.network.weight.grad = torch.ones_like(state.network.weight)
        state.optimiser.step()
    checkpoints.save(states[0], Position(1))
    checkpoints.load(states[1], Position(1))
    assert states[1].optimiser.param_groups[0]["fused"] == (None if saved else True)
    step_if_finite(states[1].optimiser, torch.tensor(torch.inf))
    assert torch.equal(states[0].network.weight, states[1].network.weight)


def trained_linear(fused: bool) -> Trained:
    net = nn.Linear(3, 2, bias=False)
    return Trained(net, None, build_optimiser(net, OptimisationConfig(), fused=fused))
