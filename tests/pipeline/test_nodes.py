"""Clusters of several Ray nodes on this machine: one is lost, one comes late, each is of another kind."""

import os
import time
from multiprocessing.pool import ThreadPool

import pyarrow as pa
import pytest

from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.pipeline.engine import Engine, EngineConfig
from mvpose.pipeline.job import ReconstructJob, reconstruct_archive
from mvpose.pipeline.open_work import OpenWork
from mvpose.pipeline.worker import JobStages, Outcome, StageSpec
from mvpose.records import CaptureTasks, Clip, Kind, Task
from mvpose.run.store import ClipStore
from mvpose.run.verification import verify_run
from tests.pipeline import coded_footage
from tests.pipeline.drivers import REPOSITORY, start_driver, wait_for_commits
from tests.pipeline.test_job import contents

pytestmark = [pytest.mark.slow, pytest.mark.fault]
FRAMES = 80
MEMORY = 100 * 2**20


@pytest.fixture
def cluster(monkeypatch):
    """A head of one CPU and two workers of two, each a raylet of its own: 4 actors do not fit without either worker."""
    from ray.cluster_utils import Cluster

    for variable, value in {"PYTHONPATH": REPOSITORY, "CODED_SECONDS": "0.02", "CODED_FRAMES": str(FRAMES)}.items():
        monkeypatch.setenv(variable, value)
    nodes = Cluster(True, head_node_args={"num_cpus": 1, "object_store_memory": MEMORY, "include_dashboard": False})
    yield nodes, [nodes.add_node(num_cpus=2, object_store_memory=MEMORY) for _ in range(2)]
    nodes.shutdown()


def test_a_node_lost_in_the_middle_leaves_every_clip_exactly_once(cluster, tmp_path):
    nodes, (lost, _) = cluster
    archive = os.path.dirname(coded_footage.write_capture(str(tmp_path / "archive" / "one"), FRAMES, FRAMES))
    output, alone = str(tmp_path / "run"), str(tmp_path / "alone")
    driver = start_driver(archive, output, "--address", nodes.address)
    wait_for_commits(driver, output, "keypoints", 2)
    nodes.remove_node(lost, allow_graceful=False)
    assert len(os.listdir(os.path.join(output, "commits", "keypoints", "one"))) < FRAMES // 10
    _, said = driver.communicate()
    assert driver.returncode == 0, said.decode()[-2000:]

    detector = DetectorConfig(detector=coded_footage.DETECTOR)
    engine = EngineConfig(local=True)
    reconstruct_archive(ReconstructJob(archive=archive, output=alone, clip_frames=10, detector=detector, engine=engine))
    assert contents(output) == contents(alone)
    seen = verify_run(output)
    assert seen.findings == () and (seen.clips, seen.failed_clips) == (FRAMES // 10, 0)


def plan_of(capture_id: str) -> CaptureTasks:
    """A capture of six clips."""
    clips = tuple(Clip(capture_id, i, i + 1) for i in range(6))
    return CaptureTasks(capture_id=capture_id, clips=clips, keypoints="k" * 16, poses="f" * 16)


def where(task: Task) -> Outcome:
    """The kind of the node that did a clip."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    (labels,) = (node["Labels"] for node in ray.nodes() if node["NodeID"] == here)
    time.sleep(0.2)
    return Outcome(pa.table({"kind": [labels.get("kind", "head")]}))


def make_where():
    return where


def test_a_model_waits_for_its_node_and_every_stage_stays_on_its_own(monkeypatch, tmp_path):
    """The pool begins with no node for it; then one comes, with the label and the custom resource asked for."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", REPOSITORY)
    nodes = Cluster(True, head_node_args={"num_cpus": 1, "object_store_memory": MEMORY, "include_dashboard": False})
    engine = Engine(
        EngineConfig(
            address=nodes.address, min_workers=0, workers=4, model_nodes="kind=model", other_nodes="kind=other",
            model_resources={"decoder": 1.0},
        )
    )  # fmt: skip

    def kinds_of_nodes() -> dict[str, set[str]]:
        settings = {"make": make_where, "arguments": {}, "run_uri": str(tmp_path), "invocation": "one"}
        specs = [StageSpec(kind=kind, **settings) for kind in (Kind.KEYPOINTS, Kind.POSES)]
        stages = JobStages(of_clips=(specs[0],), of_captures=(specs[1],), plan_of=plan_of)
        receipts = list(engine.run(stages, OpenWork.of(str(tmp_path), [plan_of("a")], [Kind.KEYPOINTS])))
        assert len(receipts) == 12 and not any(r["failure"] for r in receipts)
        found = {}
        for kind in (Kind.KEYPOINTS, Kind.POSES):
            store = ClipStore(str(tmp_path), kind)
            commits = [store.committed(task.clip, task.fingerprint) for task in plan_of("a").tasks(kind)]
            found[str(kind)] = {store.read(c).column("kind")[0].as_py() for c in commits if c}
        return found

    try:
        nodes.add_node(num_cpus=2, object_store_memory=MEMORY, labels={"kind": "other"})
        engine.start()
        running = ThreadPool(1).apply_async(kinds_of_nodes)
        time.sleep(5)
        assert not running.ready()
        nodes.add_node(num_cpus=2, object_store_memory=MEMORY, labels={"kind": "model"}, resources={"decoder": 2})
        assert running.get() == {"keypoints": {"model"}, "poses": {"other"}}
    finally:
        engine.close()
        nodes.shutdown()
