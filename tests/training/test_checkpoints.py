"""Checkpoints are whole or do not count, and give back exactly what was saved."""

import copy
import os
from dataclasses import replace

import pytest
import torch
from torch import nn

from mvpose.storage.locations import list_folder, name
from mvpose.training.checkpoints import Best, Checkpoints, Position, Trained, weights_bytes
from mvpose.training.optimisation import OptimisationConfig, build_optimiser
from mvpose.training.order import Split


def trained(seed: int) -> Trained:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    return Trained(net, copy.deepcopy(net), build_optimiser(net, OptimisationConfig()))


def moved(state: Trained, steps: int, seed: int = 0) -> Trained:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        state.optimiser.zero_grad()
        state.network(torch.randn(5, 3, generator=generator)).square().mean().backward()
        state.optimiser.step()
    return state


@pytest.fixture(params=["local", "s3"])
def folder(request, tmp_path) -> str:
    root = str(tmp_path) if request.param == "local" else request.getfixturevalue("s3")
    return f"{root}/run/checkpoints"


def test_a_training_goes_on_exactly_where_it_was(folder):
    checkpoints, state = Checkpoints(folder, keep=2), moved(trained(0), 3)
    assert checkpoints.latest() == Position()
    best = Position(3, Best(2, {"validation/mpjpe_m": 0.1}))
    checkpoints.save(state, best)
    resumed = trained(1)
    assert checkpoints.latest() == best
    checkpoints.load(resumed, checkpoints.latest())
    assert weights_bytes(resumed.network) == weights_bytes(state.network)
    assert weights_bytes(moved(resumed, 4, seed=9).network) == weights_bytes(moved(state, 4, seed=9).network)
    assert resumed.averaged is not None and state.averaged is not None
    assert weights_bytes(resumed.averaged) == weights_bytes(state.averaged)


def test_the_last_ones_are_kept_and_the_best_weights_with_them(folder):
    checkpoints, state, position = Checkpoints(folder, keep=2), trained(0), Position()
    best = b""
    for step, error in ((10, 0.3), (20, 0.1), (30, None), (40, None)):
        position = replace(position, step=step)
        moved(state, 1)
        if error is not None:
            position = replace(position, best=Best(step, {"validation/mpjpe_m": error}))
            best = weights_bytes(state.judged)
        checkpoints.save(state, position)
    names = [name(uri) for uri in list_folder(folder)]
    assert names == ["000000030", "000000040", "best-000000020.safetensors"]
    found = trained(3).network
    assert position.best is not None
    checkpoints.load_best(found, position.best)
    assert weights_bytes(found) == best


def test_a_checkpoint_that_was_cut_short_does_not_count(tmp_path):
    folder = str(tmp_path)
    checkpoints, state = Checkpoints(folder, keep=3), trained(0)
    checkpoints.save(state, Position(10))
    checkpoints.save(state, Position(20))
    os.unlink(tmp_path / "000000020" / "state.json")
    assert checkpoints.latest() == Position(10)


def test_a_position_knows_the_numbers_of_workers_so_far(tmp_path):
    """Fails if a restart with the same number counts as a change, or an earlier version's checkpoint cannot be read."""
    position = Position(7).shared_by(2)
    assert position.splits == (Split(7, 2),) and position.shared_by(2) == position
    later = replace(position, step=9).shared_by(3)
    checkpoints = Checkpoints(str(tmp_path), keep=2)
    checkpoints.save(trained(0), later)
    assert checkpoints.latest() == later and later.splits == (Split(7, 2), Split(9, 3))
    mark = tmp_path / "000000009" / "state.json"
    mark.write_text('{"step": 9, "best": null}')
    assert checkpoints.latest() == Position(9, None, (Split(0, 1),))


def test_the_content_of_a_checkpoint_is_that_of_its_time(tmp_path):
    """So that it can be written while the training goes on. Fails if tensors are read when it is written."""
    checkpoints, state = Checkpoints(str(tmp_path), keep=2), moved(trained(0), 2)
    before, position = weights_bytes(state.network), Position(3)
    content = checkpoints.content(state, position)
    moved(state, 2)
    checkpoints.write(content, position)
    resumed = trained(1)
    checkpoints.load(resumed, position)
    assert weights_bytes(resumed.network) == before != weights_bytes(state.network)
