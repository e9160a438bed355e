"""Where Ray puts workers, and what it gives them: read back from a cluster of two nodes that pretends to have GPUs.

Both nodes are processes of this machine. Ray accounts for GPUs that it is told of, whether they exist or not.
"""

import json

import pytest
import ray
import ray.train
from ray.cluster_utils import Cluster
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from mvpose.pipeline.engine import Engine, EngineConfig
from mvpose.pipeline.open_work import OpenWork
from mvpose.pipeline.worker import JobStages, StageSpec
from mvpose.records import CaptureTasks, Clip, Kind
from mvpose.training.trainer import scaling
from mvpose.training.training_config import ComputeConfig
from tests.conftest import REPOSITORY
from tests.pipeline.placed import Placed, train_placed


def plan_of(capture_id: str) -> CaptureTasks:
    """A capture of four clips."""
    clips = tuple(Clip(capture_id, i * 10, i * 10 + 10) for i in range(4))
    return CaptureTasks(capture_id=capture_id, clips=clips, keypoints="k" * 16, poses="f" * 16)


@pytest.fixture(scope="module")
def cluster(stopped_ray):
    """A head of two CPUs, and a node of two with two GPUs and a resource of its own."""
    stopped_ray.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", REPOSITORY)
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "labels": {"kind": "cpu"}})
        made.add_node(num_cpus=2, num_gpus=2, resources={"hall": 2}, labels={"kind": "gpu"})
        ray.init(address=made.address, logging_level="ERROR", log_to_driver=False)
        yield made
        ray.shutdown()
        made.shutdown()


def read(folder) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def test_workers_of_the_job_get_what_the_settings_say_on_the_nodes_that_they_name(cluster, tmp_path):
    """Fails if a worker of clips reserves no GPU or no share of one, or a label or resource is not passed on."""
    settings = EngineConfig(
        address=cluster.address,
        workers=2,
        gpus=0.5,
        model_resources={"hall": 1.0},
        model_nodes="kind=gpu",
        other_nodes="kind=cpu",
    )
    folders = {kind: tmp_path / kind for kind in (Kind.TRACKS, Kind.POSES)}
    specs = []
    for kind, folder in folders.items():
        folder.mkdir()
        specs.append(
            StageSpec(
                kind=kind,
                make=Placed,
                arguments={"folder": str(folder)},
                run_uri=str(tmp_path / "run"),
                invocation="one",
            )
        )
    stages = JobStages(of_clips=(specs[0],), of_captures=(specs[1],), plan_of=plan_of)
    list(Engine(settings).run(stages, OpenWork.of(specs[0].run_uri, [plan_of("a")], [Kind.TRACKS])))
    with_model = {"CPU": 1.0, "GPU": 0.5, "hall": 1.0, "kind": "gpu", "gpus": 1}
    without = {"CPU": 1.0, "GPU": 0.0, "hall": 0.0, "kind": "cpu", "gpus": 0}
    assert read(folders[Kind.TRACKS]) == [with_model] * 4 and read(folders[Kind.POSES]) == [without] * 4


def test_workers_of_a_training_have_a_gpu_each(cluster, tmp_path):
    """Fails if Ray Train reserves no GPU, or one for both. What torch adds to Ray's trainer reserves nothing."""
    trainer = DataParallelTrainer(
        train_placed,
        train_loop_config={"folder": str(tmp_path)},
        scaling_config=scaling(ComputeConfig(workers=2, gpus=1.0, address=cluster.address)),
        run_config=ray.train.RunConfig(name="placed", storage_path=str(tmp_path / "ray")),
    )
    trainer.fit()
    assert read(tmp_path) == [{"CPU": 1.0, "GPU": 1.0, "hall": 0.0, "kind": "gpu", "gpus": 1}] * 2
