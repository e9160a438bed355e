"""The loop's own decisions: which parameters are in the loss, and when skipped steps are too many."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from mvpose.models.backbone_settings import ResNetBackbone
from mvpose.models.network_settings import AlgebraicConfig, AlgebraicMethod
from mvpose.models.objective import ObjectiveConfig
from mvpose.models.objective_settings import WarmUp
from mvpose.training.checkpoints import Checkpoints
from mvpose.training.feed import Feed
from mvpose.training.loop import (
    MAX_SKIPPED,
    Length,
    NetworkWithLoss,
    Process,
    Skipped,
    TrainingError,
    all_used,
    begin,
    train_loop,
)
from mvpose.training.order import Split
from mvpose.training.training_config import CheckpointConfig
from mvpose.training.training_run import train
from tests.training.test_training_run import TINY, tiny

ALGEBRAIC = AlgebraicMethod(
    size=(128, 128),
    backbone=ResNetBackbone(depth=18, width=4),
    algebraic=AlgebraicConfig(head_width=8, confidence_widths=(8, 8)),
)


@pytest.mark.parametrize(("start", "full", "expected"), [(0.0, 0.0, True), (0.0, 0.9, False), (0.5, 0.9, False)])
def test_unused_parameters_are_looked_for_where_a_part_of_the_network_has_no_loss_at_first(
    table, start, full, expected
):
    """The confidences of views are in the 3D term alone. Fails if the graph of the end decides, or if looking at it
    changes statistics of the network."""
    goal = ObjectiveConfig(heatmaps=1.0, warm_up=WarmUp(start=start, full=full))
    config = replace(tiny(table), method=ALGEBRAIC, objective=goal)
    network = begin(config, torch.device("cpu")).network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    batch = next(Feed.open(config).batches(0))
    assert all_used(NetworkWithLoss(network, config), batch) == expected
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_too_many_skipped_steps_in_a_row_end_a_training():
    """Fails if steps in between count, or the longest row is forgotten when a step succeeds."""
    skipped = Skipped(torch.device("cpu"))
    for norm in [torch.inf] * MAX_SKIPPED + [1.0] + [torch.nan] * MAX_SKIPPED:
        skipped.count(torch.tensor(norm))
    skipped.check(41)
    for norm in (torch.inf, 1.0):
        skipped.count(torch.tensor(norm))
    with pytest.raises(TrainingError, match="no finite gradient in 21 steps up to 43"):
        skipped.check(43)


def test_a_notice_that_a_machine_is_taken_away_makes_a_checkpoint_at_the_next_log_line(table):
    """Steps 2, 4 and 6 log; the notice is there at the second. Fails if it waits for the interval of checkpoints."""
    config = replace(tiny(table), checkpoints=CheckpointConfig(every=100), validate_every=100)
    feed, saved, notices = Feed.open(config), [], iter([False, True, False])
    train_loop(
        config,
        Length(feed.total_steps, feed.order.steps_per_epoch),
        lambda position: feed.batches(position.step, splits=position.splits),
        feed.validation_batches,
        Process(),
        Checkpoints("/nowhere", 1),
        lambda step, figures: None,
        lambda trained, position: saved.append((position.step, position.splits)),
        lambda: next(notices),
    )
    assert saved == [(4, (Split(0, 1),)), (6, (Split(0, 1),))]


COMPILED = """
import sys
from dataclasses import replace
from mvpose.training.training_run import train
from tests.training.test_training_run import TINY, tiny
config = replace(tiny(sys.argv[1]), optimisation=replace(TINY.optimisation, compile=True, steps=3))
print(train(config, sys.argv[2])["validation/mpjpe_m"])
"""


@pytest.mark.slow
def test_a_compiled_network_trains_as_it_does_otherwise(table, tmp_path):
    """Fails if the compiled network is not the one trained, or cannot be saved. Shapes cannot be checked in it."""
    config = replace(tiny(table), optimisation=replace(TINY.optimisation, steps=3))
    error = train(config, str(tmp_path / "plain"))["validation/mpjpe_m"]
    command = [sys.executable, "-c", COMPILED, table, str(tmp_path / "compiled")]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(found.stdout.split()[-1]) == pytest.approx(error, rel=1e-3)
