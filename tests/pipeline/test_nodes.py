"""A cluster of three Ray nodes on this machine, of which one is lost while it works."""

import os

import pytest

from mvpose.archive.verification import verify_run
from mvpose.models.detector import DetectorConfig
from mvpose.pipeline.engine import EngineConfig
from mvpose.pipeline.job import ReconstructJob, reconstruct_archive
from tests.pipeline import coded_footage
from tests.pipeline.test_job import REPOSITORY, contents, start_driver, wait_for_commits

FRAMES = 80


@pytest.fixture
def cluster(monkeypatch):
    """A head of one CPU and two workers of two, each a raylet of its own: 4 actors do not fit without either worker."""
    from ray.cluster_utils import Cluster

    for variable, value in {"PYTHONPATH": REPOSITORY, "CODED_SECONDS": "0.02", "CODED_FRAMES": str(FRAMES)}.items():
        monkeypatch.setenv(variable, value)
    memory = 100 * 2**20
    nodes = Cluster(True, head_node_args={"num_cpus": 1, "object_store_memory": memory, "include_dashboard": False})
    yield nodes, [nodes.add_node(num_cpus=2, object_store_memory=memory) for _ in range(2)]
    nodes.shutdown()


@pytest.mark.slow
def test_a_node_lost_in_the_middle_leaves_every_clip_exactly_once(cluster, tmp_path):
    nodes, (lost, _) = cluster
    archive = os.path.dirname(coded_footage.write_capture(str(tmp_path / "archive" / "one"), FRAMES, FRAMES))
    output, alone = str(tmp_path / "run"), str(tmp_path / "alone")
    driver = start_driver(archive, output, "--address", nodes.address)
    wait_for_commits(output, "keypoints", 2)
    nodes.remove_node(lost, allow_graceful=False)
    assert len(os.listdir(os.path.join(output, "commits", "keypoints", "one"))) < FRAMES // 10
    _, said = driver.communicate(timeout=240)
    assert driver.returncode == 0, said.decode()[-2000:]

    detector = DetectorConfig(detector=coded_footage.DETECTOR)
    engine = EngineConfig(local=True)
    reconstruct_archive(ReconstructJob(archive=archive, output=alone, clip_frames=10, detector=detector, engine=engine))
    assert contents(output) == contents(alone)
    seen = verify_run(output)
    assert seen.findings == () and (seen.clips, seen.failed_clips) == (FRAMES // 10, 0)
