"""What stands in `cluster/`: Ray's files by Ray's own validator, the others as far as it goes without their schemas."""

import os
import subprocess

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

CLUSTER = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "cluster")
RAY_FILES = ["ray-aws.yaml", "ray-on-premises.yaml"]


def loaded(name: str) -> dict:
    with open(os.path.join(CLUSTER, name)) as file:
        return yaml.safe_load(file)


@pytest.mark.parametrize("name", RAY_FILES)
def test_ray_accepts_its_cluster_files(name):
    validate_config(prepare_config(loaded(name)))


@pytest.mark.parametrize("name", RAY_FILES)
def test_ray_refuses_a_key_that_it_does_not_know(name):
    with pytest.raises(Exception, match="max_workerz"):
        validate_config(prepare_config(loaded(name) | {"max_workerz": 3}))


def test_the_slurm_script_is_bash():
    subprocess.run(["bash", "-n", os.path.join(CLUSTER, "reconstruct.slurm")], check=True)


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml"])
def test_no_worker_of_kuberay_may_grow_beyond_what_it_asked_for(name):
    spec = loaded(f"kuberay/{name}")["spec"]
    spec = spec.get("rayClusterSpec", spec)
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-gpus"] == "0"
