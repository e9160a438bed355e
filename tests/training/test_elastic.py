"""A training on a cluster whose machines come and go: Ray nodes on this machine, removed and added at a step."""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.pool import AsyncResult, ThreadPool

import pytest
import ray
from ray._private.node import Node
from ray.cluster_utils import Cluster
from ray.core.generated import autoscaler_pb2

from mvpose.models.network_settings import OwnMethod
from mvpose.models.saved import load_model
from mvpose.training.checkpoints import Checkpoints
from mvpose.training.order import Split
from mvpose.training.training_config import NONE, ComputeConfig, TrainConfig
from mvpose.training.training_run import train
from tests.conftest import REPOSITORY
from tests.training.recording_network import NETWORK, NOTED, NOTICE, RECORD, WAITS
from tests.training.test_trainer import journal
from tests.training.test_training_run import TINY

pytestmark = pytest.mark.slow
MEMORY = 100 * 2**20
PER_EPOCH, EPOCHS = 12, 3
NOTICE_MS = 60_000


def add_node(cluster: Cluster, **settings) -> Node:
    """On a busy machine a raylet waits in vain for its agents and dies, after 15 s: another one is started then."""
    while True:
        try:
            return cluster.add_node(object_store_memory=MEMORY, **settings)
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise


@pytest.fixture
def cluster(stopped_ray, tmp_path, monkeypatch) -> Iterator[Cluster]:
    """A head without CPUs, where the driver is. Workers have the environment of the time when their node begins."""
    stopped_ray.close()
    monkeypatch.setenv("PYTHONPATH", REPOSITORY)
    monkeypatch.setenv(RECORD, str(tmp_path / "steps.jsonl"))
    monkeypatch.setenv("MVPOSE_TRUSTED_NETWORKS", NETWORK)
    made = Cluster()
    add_node(made, num_cpus=0, include_dashboard=False)
    yield made
    ray.shutdown()
    made.shutdown()


def elastic(table: str, cluster: Cluster, workers: str, **compute) -> TrainConfig:
    """Three epochs of twelve steps, of whose samples every one looks the same each time."""
    own = OwnMethod(network=NETWORK, size=TINY.method.size, backbone=TINY.method.backbone)
    return replace(
        TINY, data=table, method=own, augmentation=NONE, log_every=1, validate_every=PER_EPOCH * EPOCHS,
        optimisation=replace(TINY.optimisation, steps=PER_EPOCH * EPOCHS),
        checkpoints=replace(TINY.checkpoints, every=4),
        compute=ComputeConfig(workers=workers, address=cluster.address, **compute),
    )  # fmt: skip


def noted() -> list[dict]:
    """The lines of all workers so far."""
    if not os.path.exists(os.environ[RECORD]):
        return []
    with open(os.environ[RECORD]) as file:
        return [json.loads(line) for line in file if line.endswith("\n")]


def wait_for(step: int, workers: int, training: AsyncResult) -> None:
    """Until so many workers together have made a step; raises what ended the training."""
    while sum(line["step"] == step and line["workers"] == workers for line in noted()) < workers:
        if training.ready():
            raise AssertionError(f"the training ended before step {step}: {training.get()}")
        time.sleep(0.05)


def last_made() -> dict[int, tuple[int, list[str]]]:
    """Number of workers and samples of each step, as it was made last: the steps after a checkpoint are repeated."""
    steps: dict[int, list[dict]] = {}
    for line in noted():
        steps.setdefault(line["step"], []).append(line)
    made = {step: lines[-lines[-1]["workers"] :] for step, lines in sorted(steps.items())}
    assert all(len({line["workers"] for line in lines}) == 1 for lines in made.values())
    return {
        step: (lines[0]["workers"], [own for line in lines for own in line["seen"]]) for step, lines in made.items()
    }


def require_every_sample_once(made: dict[int, tuple[int, list[str]]]) -> None:
    assert list(made) == list(range(1, PER_EPOCH * EPOCHS + 1))
    epochs = [Counter[str]() for _ in range(EPOCHS)]
    for step, (_, seen) in made.items():
        epochs[(step - 1) // PER_EPOCH].update(seen)
    assert len(epochs[0]) == 48 and set(epochs[0].values()) == {1}
    assert all(epoch == epochs[0] for epoch in epochs)


def test_a_training_goes_on_when_a_machine_leaves_and_when_two_come(table, cluster, tmp_path, monkeypatch):
    """From 2 workers to 1 to 3, in the middle of two epochs; a batch of 4 is then shared as 2, 1, 1."""
    monkeypatch.setenv(WAITS, json.dumps({"11": 1, "19": 3}))
    nodes = [add_node(cluster, num_cpus=1) for _ in range(2)]
    output, config = str(tmp_path / "run"), elastic(table, cluster, "1-3")
    training = ThreadPool(1).apply_async(train, (config, output))
    wait_for(10, 2, training)
    cluster.remove_node(nodes[1], allow_graceful=False)
    wait_for(18, 1, training)
    for _ in range(2):
        add_node(cluster, num_cpus=1)
    figures = training.get()

    made = last_made()
    require_every_sample_once(made)
    assert [made[step][0] for step in (8, 9, 16, 17)] == [2, 1, 1, 3]
    assert Checkpoints(f"{output}/checkpoints", 2).latest().splits == (Split(0, 2), Split(8, 1), Split(16, 3))
    steps, error = journal(output)
    assert steps == list(range(1, PER_EPOCH * EPOCHS + 1))
    assert int(load_model(f"{output}/model").network.get_buffer("steps")) == PER_EPOCH * EPOCHS
    assert error == figures["validation/mpjpe_m"]


def test_a_notice_of_preemption_leaves_a_checkpoint_that_the_rest_goes_on_from(table, cluster, tmp_path, monkeypatch):
    """No other checkpoint is due. A machine that is taken away is no failure: none is allowed."""
    output = str(tmp_path / "run")
    monkeypatch.setenv(NOTICE, f"{output}/checkpoints")
    nodes = [add_node(cluster, num_cpus=1) for _ in range(2)]
    config = elastic(table, cluster, "1-2", max_failures=0)
    steps = 5 * PER_EPOCH
    config = replace(
        config, validate_every=steps, optimisation=replace(config.optimisation, steps=steps),
        checkpoints=replace(config.checkpoints, every=steps),
    )  # fmt: skip
    training = ThreadPool(1).apply_async(train, (config, output))
    wait_for(NOTED, 2, training)
    deadline = time.time_ns() // 10**6 + NOTICE_MS
    drained, message = ray._raylet.GcsClient(address=cluster.address).drain_node(
        nodes[1].node_id,
        autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
        "spot",
        deadline,
    )
    assert drained, message
    checkpoints = Checkpoints(f"{output}/checkpoints", 2)
    while not checkpoints.latest().step:
        assert not training.ready(), training.get()
        time.sleep(0.05)
    kept = checkpoints.latest()
    assert kept.splits == (Split(0, 2),) and NOTED < kept.step < steps
    # Ray takes a machine that dies before its time for a failure.
    time.sleep(max(deadline - time.time_ns() // 10**6, 0) / 1000)
    cluster.remove_node(nodes[1], allow_graceful=False)
    training.get()
    made = last_made()
    assert [workers for workers, _ in made.values()] == [2] * kept.step + [1] * (steps - kept.step)
    assert checkpoints.latest().splits == (Split(0, 2), Split(kept.step, 1))
