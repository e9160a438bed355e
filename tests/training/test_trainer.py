"""The loop on Ray: two workers, one of which dies, and a driver that dies."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest

from mvpose.storage.locations import exists
from mvpose.training.checkpoints import Checkpoints
from mvpose.training.metrics_log import Journal
from mvpose.training.trainer import _follow
from mvpose.training.training_config import ComputeConfig, TrainConfig
from mvpose.training.training_run import train
from tests.training.killing_network import MARK, STEP, VICTIM
from tests.training.test_training_run import TINY

TWO = ComputeConfig(workers=2)


def two_workers(table: str, steps: int) -> TrainConfig:
    """Long enough to be killed in the middle of the third epoch."""
    return replace(
        TINY, data=table, compute=TWO, log_every=1, validate_every=9,
        optimisation=replace(TINY.optimisation, steps=steps), checkpoints=replace(TINY.checkpoints, every=4),
    )  # fmt: skip


def journal(output: str) -> tuple[list[int], float]:
    """Steps told of, and the last validation's error in metres."""
    with open(f"{output}/metrics.jsonl") as file:
        lines = [json.loads(line) for line in file]
    errors = [line["validation/mpjpe_m"] for line in lines if "validation/mpjpe_m" in line]
    return [line["step"] for line in lines if "train/loss" in line], errors[-1]


def test_two_workers_train_as_one_process_does_within_noise(table, tmp_path, shared_ray):
    shared, alone = str(tmp_path / "shared"), str(tmp_path / "alone")
    config = replace(two_workers(table, steps=4), validate_every=4)
    reported = []
    train(config, shared, lambda step, figures: reported.append(step))
    train(replace(config, compute=ComputeConfig(local=True)), alone)
    steps, error = journal(shared)
    assert steps == [1, 2, 3, 4] and sorted(set(reported)) == steps
    assert not os.path.exists(f"{alone}/logs")
    # The same samples in every step, statistics of batches over halves of them.
    assert error == pytest.approx(journal(alone)[1], rel=0.05)


def test_figures_written_after_a_driver_died_are_reported_by_the_next_one(tmp_path):
    """Fails if the lines that a driver finds count as reported, or those of repeated steps are reported twice."""
    lines = [
        (2, {"train/loss": 0.5}),
        (4, {"train/loss": 0.4}),
        (4, {"validation/mpjpe_m": 0.1}),
        (6, {"train/loss": 0.3}),
    ]
    reported: list[tuple[int, dict[str, float]]] = []

    def dies_at_the_third(step: int, figures: dict[str, float]) -> None:
        if len(reported) == 2:
            raise KeyboardInterrupt
        reported.append((step, figures))

    def follow(report) -> None:
        _follow(lambda: None, Journal(str(tmp_path)), report)

    written = Journal(str(tmp_path))
    for line in lines:
        written.write(*line)
    with pytest.raises(KeyboardInterrupt):
        follow(dies_at_the_third)
    follow(lambda *line: reported.append(line))
    assert reported == lines
    written.rewind(4)
    written.write(6, {"train/loss": 0.3})
    written.write(8, {"train/loss": 0.2})
    follow(lambda *line: reported.append(line))
    assert reported == [*lines, (8, {"train/loss": 0.2})]


STARTED = """
import os, sys
from dataclasses import replace
from mvpose.models.network_settings import OwnMethod
from mvpose.training.training_run import train
from tests.training.killing_network import NETWORK, VICTIM
from tests.training.test_trainer import two_workers
if os.environ.get(VICTIM) == "driver":
    os.environ[VICTIM] = str(os.getpid())
config = two_workers(sys.argv[1], 60)
own = OwnMethod(network=NETWORK, size=config.method.size, backbone=config.method.backbone)
train(replace(config, method=own), sys.argv[2])
"""


def started(table: str, output: str, victim: str = "") -> int:
    """The exit code of a training of 60 steps on Ray in a process of its own, of which one process dies in step 30."""
    environment = {VICTIM: victim, STEP: "30", MARK: f"{output}.killed"}
    driver = subprocess.Popen([sys.executable, "-c", STARTED, table, output], env=os.environ | environment)
    below: list[psutil.Process] = []
    while driver.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            below = psutil.Process(driver.pid).children(recursive=True) or below
        time.sleep(0.5)
    psutil.wait_procs(below)
    return driver.returncode


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_of_an_epoch_is_survived(table, tmp_path):
    undisturbed, output = str(tmp_path / "undisturbed"), str(tmp_path / "killed")
    assert started(table, undisturbed) == 0
    assert started(table, output, "worker") == 0 and exists(f"{output}.killed")
    (steps, error), (_, expected) = journal(output), journal(undisturbed)
    assert steps == list(range(1, 61))
    assert error == pytest.approx(expected, rel=0.02)


@pytest.mark.slow
def test_a_killed_driver_is_gone_on_with_by_the_same_command(table, tmp_path):
    output = str(tmp_path / "run")
    assert started(table, output, "driver") == -signal.SIGKILL
    # Step 30 was not finished; a checkpoint is taken every 4 steps, and a thread writes it while the training goes on.
    assert 0 < Checkpoints(f"{output}/checkpoints", 2).latest().step <= 28 and not exists(f"{output}/model")
    assert started(table, output) == 0
    assert journal(output)[0] == list(range(1, 61))
