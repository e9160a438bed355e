"""The loop on Ray: two workers, one of which dies, and a driver that dies."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import psutil
import pytest

from mvpose.storage.locations import exists
from mvpose.training.checkpoints import Checkpoints
from mvpose.training.training_config import ComputeConfig, TrainConfig
from mvpose.training.training_run import train
from tests.training.test_training_run import TINY, wait_for_step

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


@pytest.mark.timeout(280)
def test_two_workers_train_as_one_process_does_within_noise(table, tmp_path, stopped_ray):
    stopped_ray.close()
    shared, alone = str(tmp_path / "shared"), str(tmp_path / "alone")
    config = two_workers(table, steps=9)
    reported = []
    train(config, shared, lambda step, figures: reported.append(step))
    train(replace(config, compute=ComputeConfig(local=True)), alone)
    steps, error = journal(shared)
    assert steps == list(range(1, 10)) and sorted(set(reported)) == steps
    assert len(os.listdir(f"{shared}/logs")) == 1 and not os.path.exists(f"{alone}/logs")
    # The same samples in every step, statistics of batches over halves of them.
    assert error == pytest.approx(journal(alone)[1], rel=0.05)


STARTED = """
import sys
from dataclasses import replace
from tests.training.test_trainer import two_workers
from mvpose.training.training_run import train
train(two_workers(sys.argv[1], int(sys.argv[3])), sys.argv[2])
"""


def started(table: str, output: str, steps: int) -> subprocess.Popen:
    """A training on Ray in a process of its own."""
    return subprocess.Popen([sys.executable, "-c", STARTED, table, output, str(steps)], cwd=os.getcwd())


def train_workers(driver: subprocess.Popen) -> list[psutil.Process]:
    """The training workers below a driver, by their titles."""
    children = psutil.Process(driver.pid).children(recursive=True)
    return [child for child in children if "RayTrainWorker" in " ".join(child.cmdline())]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_worker_killed_in_the_middle_of_an_epoch_is_survived(table, tmp_path):
    undisturbed, output = str(tmp_path / "undisturbed"), str(tmp_path / "killed")
    assert started(table, undisturbed, 60).wait() == 0
    driver = started(table, output, 60)
    wait_for_step(output, 30, driver, seconds=240)
    os.kill(train_workers(driver)[-1].pid, signal.SIGKILL)
    assert driver.wait() == 0
    (steps, error), (_, expected) = journal(output), journal(undisturbed)
    assert steps == list(range(1, 61))
    assert error == pytest.approx(expected, rel=0.02)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_driver_is_gone_on_with_by_the_same_command(table, tmp_path):
    output = str(tmp_path / "run")
    driver = started(table, output, 60)
    wait_for_step(output, 30, driver, seconds=240)
    below = psutil.Process(driver.pid).children(recursive=True)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    psutil.wait_procs(below, timeout=60)
    reached = Checkpoints(f"{output}/checkpoints", 2).latest().step
    assert 24 <= reached < 60 and not exists(f"{output}/model")
    assert started(table, output, 60).wait() == 0
    assert journal(output)[0] == list(range(1, 61))
