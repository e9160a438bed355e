"""What stands in `cluster/`: each file by the schema or the validator of the tool that reads it."""

import json
import os
import re
import shlex
import subprocess

import jsonschema
import kubernetes_validate
import pytest
import tyro
import yaml
from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE
from ray.autoscaler._private.util import prepare_config, validate_config

from mvpose.commands.reconstruct import Reconstruct
from mvpose.pipeline.prometheus import FIGURES

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CLUSTER = os.path.join(REPOSITORY, "cluster")
RAY_FILES = ["ray-aws.yaml", "ray-on-premises.yaml"]
KUBERAY_FILES = ["raycluster.yaml", "rayjob.yaml", "rayjob-gpu.yaml"]


def loaded(name: str) -> dict:
    with open(os.path.join(CLUSTER, name)) as file:
        return yaml.safe_load(file)


def validate(document: dict, schema: str) -> None:
    with open(os.path.join(REPOSITORY, "tests", "data", schema)) as file:
        jsonschema.validate(document, json.load(file), cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize("name", RAY_FILES)
def test_ray_accepts_its_cluster_files(name):
    validate_config(prepare_config(loaded(name)))


@pytest.mark.parametrize("name", RAY_FILES)
def test_ray_refuses_a_key_that_it_does_not_know(name):
    with pytest.raises(Exception, match="max_workerz"):
        validate_config(prepare_config(loaded(name) | {"max_workerz": 3}))


def test_the_slurm_script_is_bash():
    subprocess.run(["bash", "-n", os.path.join(CLUSTER, "reconstruct.slurm")], check=True)


@pytest.mark.parametrize("name", KUBERAY_FILES)
def test_kuberay_knows_every_field_of_its_files(name):
    validate(loaded(f"kuberay/{name}"), "kuberay.schema.json")


def paths(node, path=()):
    """The path to every mapping of a document."""
    if isinstance(node, dict):
        yield path
        for key, below in node.items():
            yield from paths(below, (*path, key))
    elif isinstance(node, list):
        for i, below in enumerate(node):
            yield from paths(below, (*path, i))


@pytest.mark.parametrize(
    ("name", "schema", "free"),
    [(f"kuberay/{name}", "kuberay.schema.json", {"labels", "rayStartParams"}) for name in KUBERAY_FILES]
    + [("compose.yaml", "compose.schema.json", {"environment", "services", "configs"})],
)
def test_a_typing_error_anywhere_in_a_file_is_found(name, schema, free):
    for path in paths(loaded(name)):
        if path and path[-1] in free | {"requests", "limits"}:
            continue
        wrong = loaded(name)
        place = wrong
        for key in path:
            place = place[key]
        place["misspelled"] = "x"
        with pytest.raises(jsonschema.ValidationError):
            validate(wrong, schema)


@pytest.mark.parametrize(
    ("path", "value"),
    [(("spec", "backoffLimit"), "three"), (("spec", "submissionMode"), "K8JobMode"), (("spec", "suspend"), "yes")],
)
def test_kuberay_refuses_a_value_of_another_kind(path, value):
    document = loaded("kuberay/rayjob.yaml")
    document[path[0]][path[1]] = value
    with pytest.raises(jsonschema.ValidationError):
        validate(document, "kuberay.schema.json")


def test_the_compose_file_is_one():
    validate(loaded("compose.yaml"), "compose.schema.json")
    for config in loaded("compose.yaml")["configs"].values():
        assert "content" in config or os.path.exists(os.path.join(CLUSTER, config["file"]))


def groups(name: str) -> list[dict]:
    spec = loaded(f"kuberay/{name}")["spec"]
    spec = spec.get("rayClusterSpec", spec)
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def validate_pod(template: dict) -> None:
    """By the API that Kubernetes itself publishes, where a field that it does not know is an error."""
    document = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "pod"}, "template": template}
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("name", KUBERAY_FILES)
def test_kubernetes_accepts_the_pods_of_kuberay_and_finds_a_typing_error(name):
    for group in groups(name):
        template = group["template"]
        validate_pod(template)
        template["spec"]["containers"][0]["misspelled"] = "x"
        with pytest.raises(kubernetes_validate.ValidationError, match="misspelled"):
            validate_pod(template)


@pytest.mark.parametrize("name", KUBERAY_FILES)
def test_no_worker_of_kuberay_may_grow_beyond_what_it_asked_for(name):
    for group in groups(name):
        (container,) = group["template"]["spec"]["containers"]
        assert container["resources"]["requests"] == container["resources"]["limits"]
    assert groups(name)[0]["rayStartParams"]["num-gpus"] == "0"


def test_kueue_may_start_and_count_the_job():
    """A queue's name, suspended until it is admitted, gone when it is done, and of a size that does not change."""
    job = loaded("kuberay/rayjob.yaml")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] and job["spec"]["suspend"] is True
    assert job["spec"]["shutdownAfterJobFinishes"] is True and "clusterSelector" not in job["spec"]
    assert not job["spec"]["rayClusterSpec"].get("enableInTreeAutoscaling", False)
    assert all(g["replicas"] == g["minReplicas"] == g["maxReplicas"] for g in groups("rayjob.yaml")[1:])


@pytest.mark.parametrize("name", ["rayjob.yaml", "rayjob-gpu.yaml"])
def test_the_entrypoints_flags_are_flags_of_the_command(name):
    python, script, *flags = shlex.split(loaded(f"kuberay/{name}")["spec"]["entrypoint"])
    assert (python, os.path.basename(script)) == ("python", "reconstruct.py")
    command = tyro.cli(Reconstruct, args=flags)
    labels = {tuple(g.get("labels", {}).items()) for g in groups(name)}
    for wanted in (command.engine.model_nodes, command.engine.other_nodes):
        assert not wanted or (tuple(wanted.split("=")),) in labels


def test_prometheus_looks_where_ray_tells_of_its_nodes_and_where_compose_starts_them():
    ray, compose = loaded("monitoring/prometheus.yaml")["scrape_configs"]
    assert ray["file_sd_configs"][0]["files"] == [f"/tmp/ray/{PROMETHEUS_SERVICE_DISCOVERY_FILE}"]
    (look_up,) = compose["dns_sd_configs"]
    services = loaded("compose.yaml")["services"]
    assert set(look_up["names"]) == {name for name in services if name.startswith("ray-")}
    assert all(f"--metrics-export-port={look_up['port']}" in services[name]["command"] for name in look_up["names"])


def test_the_pod_monitor_reads_a_port_that_every_pod_has():
    (endpoint,) = loaded("kuberay/podmonitor.yaml")["spec"]["podMetricsEndpoints"]
    for group in [group for name in KUBERAY_FILES for group in groups(name)]:
        (container,) = group["template"]["spec"]["containers"]
        assert endpoint["port"] in [port["name"] for port in container["ports"]]


def test_the_dashboard_shows_every_figure_of_the_job_and_no_other():
    with open(os.path.join(CLUSTER, "monitoring", "dashboard.json")) as file:
        panels = json.load(file)["panels"]
    shown = {name for p in panels for t in p["targets"] for name in re.findall(r"\bray_mvpose_\w+", t["expr"])}
    assert shown <= {name for figure in FIGURES for name in figure.exported}
    assert all(shown & set(figure.exported) for figure in FIGURES)
    tags = {tag for figure in FIGURES for tag in figure.tags} | {"le"}
    requested = [t["expr"] for p in panels for t in p["targets"]]
    by = {
        tag.strip() for expr in requested for group in re.findall(r"by \(([^)]*)\)", expr) for tag in group.split(",")
    }
    assert by <= tags
