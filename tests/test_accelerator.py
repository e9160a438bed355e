"""One knob for the accelerator: what is reserved, what computes, and what is refused."""

from dataclasses import replace

import pytest
import torch

from mvpose.accelerator import compute_device
from mvpose.cli import run
from mvpose.datasets.crops import CropConfig
from mvpose.errors import ConfigError
from mvpose.evaluation.network import NetworkConfig
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.pipeline.dataset_shards import convert
from mvpose.pipeline.engine import EngineConfig
from mvpose.pipeline.job import ReconstructJob, placed
from mvpose.rendering.corpus import Rendered
from mvpose.training.trainer import local_ray, scaling
from mvpose.training.training_config import ComputeConfig, TrainConfig
from mvpose.training.tuning import trial_resources


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def three_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)


def job(engine: EngineConfig, **detector) -> ReconstructJob:
    return ReconstructJob(archive="a", output="b", engine=engine, detector=DetectorConfig(**detector))


@pytest.mark.parametrize(("gpus", "device"), [(0.0, "cpu"), (0.25, "cuda"), (2.0, "cuda")])
def test_the_job_reserves_what_the_knob_says_and_its_networks_compute_there(gpus, device):
    engine = EngineConfig(address="auto", gpus=gpus)
    assert engine.need(with_model=True).resources["GPU"] == gpus
    assert "GPU" not in engine.need(with_model=False).resources
    assert placed(job(engine)).detector.device == device
    assert placed(placed(job(engine))) == placed(job(engine))


@pytest.mark.parametrize(("gpus", "device"), [(0.0, "cpu"), (0.5, "cuda"), (1.0, "cuda")])
def test_a_training_reserves_what_the_knob_says_and_trains_there(gpus, device, three_gpus):
    compute = ComputeConfig(gpus=gpus)
    assert compute.device == device
    reserved = scaling(compute)
    assert (reserved.resources_per_worker or {}).get("GPU", 0.0) == gpus and bool(reserved.use_gpu) == (gpus > 0)
    assert trial_resources(TrainConfig(compute=compute)).get("GPU", 0.0) == gpus
    # Each of several workers has its own, and the trial that watches over them none.
    assert "GPU" not in trial_resources(TrainConfig(compute=replace(compute, workers=2, gpus=float(gpus > 0))))
    assert local_ray(compute).settings()["num_gpus"] == (3 if gpus else 0)


@pytest.mark.parametrize(
    ("engine", "detector", "both"),
    [
        (EngineConfig(address="auto", gpus=1.0), "cpu", ("--gpus 1", "--detector.device cpu")),
        (EngineConfig(address="auto", gpus=0.25), "cpu", ("--gpus 0.25", "--detector.device cpu")),
        (EngineConfig(address="auto"), "cuda", ("--gpus 0", "--detector.device cuda")),
        (EngineConfig(local=True, gpus=1.0), None, ("--gpus 1", "no CUDA device on this machine")),
        (EngineConfig(gpus=1.0), "cuda", ("--gpus 1", "no CUDA device on this machine")),
    ],
)
def test_a_contradiction_is_refused_with_both_settings(engine, detector, both, no_gpu):
    with pytest.raises(ConfigError) as refused:
        placed(job(engine, device=detector))
    assert all(part in str(refused.value) for part in both)


@pytest.mark.parametrize("wrong", [-1.0, 1.5])
def test_amounts_that_ray_cannot_reserve_are_refused(wrong):
    for config in (EngineConfig, ComputeConfig, NetworkConfig):
        with pytest.raises(ConfigError, match=f"--gpus {wrong:g}"):
            config(gpus=wrong)


def test_a_training_worker_has_a_gpu_of_its_own_or_shares_one_alone(no_gpu):
    with pytest.raises(ConfigError, match=r"--gpus 2: .* increase --workers"):
        ComputeConfig(gpus=2.0)
    with pytest.raises(ConfigError, match=r"--gpus 0\.5 makes 2 workers share a GPU"):
        ComputeConfig(gpus=0.5, workers=2)
    with pytest.raises(ConfigError, match="--gpus 1 needs a GPU"):
        TrainConfig(compute=ComputeConfig(gpus=1.0, local=True)).check()
    # The process that starts a training on Ray is not the one that trains: a head of a cluster has no GPU.
    assert ComputeConfig(gpus=1.0, address="auto").device == "cuda"
    with pytest.raises(ConfigError, match="--gpus 1 needs a GPU"):
        local_ray(ComputeConfig(gpus=1.0)).settings()


def test_work_without_a_network_refuses_a_gpu(tmp_path):
    with pytest.raises(ConfigError, match="--gpus 1 reserves a GPU"):
        convert(Rendered(), CropConfig(), str(tmp_path / "table"), EngineConfig(gpus=1.0, address="auto"))


COMMANDS = {
    "reconstruct": ["reconstruct", "a", "--output", "b", "--gpus", "1", "--detector.device", "cpu"],
    "dry run": ["reconstruct", "a", "--output", "b", "--gpus", "1", "--detector.device", "cpu", "--dry-run"],
    "import": ["import", "openpose", "a", "--calibration", "c", "--output", "b", "--gpus", "1", "--address", "auto"],
    "evaluate": ["evaluate", "m", "--gpus", "1", "--data", "t"],
}


@pytest.mark.parametrize("verb", COMMANDS)
def test_each_verb_refuses_in_one_sentence(verb, no_gpu, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(COMMANDS[verb]) == 1
    said = capsys.readouterr().err
    assert said.startswith("mvpose: --gpus 1 ") and said.count("\n") == 1


def test_nothing_stated_contradicts_nothing():
    assert compute_device(1.0, here=False, stated={"--detector.device": None}) == "cuda"
    assert compute_device(0.0, here=True) == "cpu"
