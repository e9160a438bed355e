"""What stands in `cluster/`: each file by the schema or the validator of the tool that reads it."""

import json
import os
import re
import shlex
import subprocess
import tomllib

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


STAND_IN = """#!/bin/bash
name=$(basename "$0")
echo "$name ${SRUN_CPUS_PER_TASK-} ${RAY_AUTH_MODE-} ${#RAY_AUTH_TOKEN} $*" >> "$CALLS"
case "$name $1" in
    "scontrol show") printf 'n1\\nn2\\n' ;;
    "ray status") printf 'Active:\\n 1 node_a\\n 1 node_b\\n' ;;
    "mvpose reconstruct") exit "$CODE" ;;
    "srun "*) while [[ $1 == --* ]]; do shift; done; "$@" ;;
esac
"""


@pytest.fixture
def slurm(tmp_path):
    """Runs the script with stand-ins for every command of another program; returns exit code and calls."""
    for name in ("srun", "scontrol", "ray", "mvpose", "sleep"):
        (tmp_path / name).write_text(STAND_IN)
        (tmp_path / name).chmod(0o755)
    calls = tmp_path / "calls.txt"

    def run(code: int, **others: str) -> tuple[int, list[str]]:
        calls.write_text("")
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(calls), "CODE": str(code)}
        environment |= {
            "SLURM_CPUS_PER_TASK": "16",
            "SLURM_JOB_NODELIST": "n[1-2]",
            "SLURM_JOB_NUM_NODES": "2",
            **others,
        }
        script = ["bash", os.path.join(CLUSTER, "reconstruct.slurm"), "archive", "out", "--people", "1"]
        done = subprocess.run(script, env=environment, check=False, capture_output=True, text=True)
        return done.returncode, calls.read_text().splitlines()

    return run


def test_slurm_gives_every_step_the_cpus_gpus_and_token_of_its_job(slurm):
    code, calls = slurm(0, SLURM_GPUS_ON_NODE="4")
    steps = [call for call in calls if call.startswith("srun")]
    assert code == 0 and len(steps) == 3
    assert all(step.split()[1:4] == ["16", "token", "64"] for step in steps)
    started = [call for call in calls if call.startswith("ray ") and " start " in call]
    assert len(started) == 2 and all("--num-cpus=16 --num-gpus=4" in call for call in started)
    assert sum("--head --node-ip-address=n1" in call for call in started) == 1
    _, calls = slurm(0)
    assert all("--num-gpus=0" in call for call in calls if " start " in call)


def test_slurm_verifies_what_is_complete_and_fails_with_the_code_of_what_is_not(slurm):
    code, calls = slurm(0)
    (job,) = [call for call in calls if call.startswith("mvpose") and "reconstruct" in call]
    assert job.endswith("reconstruct archive --output out --address n1:6379 --exit-zero --people 1")
    assert code == 0 and calls[-1].endswith("verify out")
    code, calls = slurm(4)
    assert code == 4 and not any("verify" in call for call in calls)


def test_slurm_stops_with_a_sentence_if_a_node_does_not_come_up(slurm):
    code, calls = slurm(0, SLURM_JOB_NUM_NODES="3")
    assert code == 1 and not any("reconstruct" in call for call in calls)


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


@pytest.mark.parametrize("name", ["rayjob.yaml", "rayjob-gpu.yaml"])
def test_no_deadline_ends_a_long_job(name):
    assert "activeDeadlineSeconds" not in loaded(f"kuberay/{name}")["spec"]


def test_the_entry_point_of_clusters_ends_with_0_within_the_tolerated_failures():
    with open(os.path.join(REPOSITORY, "jobs", "reconstruct.py")) as file:
        assert '"--exit-zero"' in file.read()


@pytest.mark.parametrize("name", KUBERAY_FILES)
def test_the_records_of_a_pod_go_to_a_server(name):
    """The driver runs on the head; the secret is required, so that no pod starts that would lose its records."""
    (container,) = groups(name)[0]["template"]["spec"]["containers"]
    assert {"secretRef": {"name": "mvpose-mlflow"}} in container["envFrom"]


def test_the_records_of_a_container_outlive_it():
    head = loaded("compose.yaml")["services"]["ray-head"]
    assert any(volume.endswith(f":{head['environment']['XDG_DATA_HOME']}") for volume in head["volumes"])
    assert any("MLFLOW_TRACKING_URI=" in option for option in loaded("ray-aws.yaml")["docker"]["run_options"])


def test_an_installation_has_one_build_of_onnx_runtime_and_each_image_names_its_own():
    """Both builds own the module `onnxruntime`: the one installed last overwrites the other, CUDA with it."""
    with open(os.path.join(REPOSITORY, "pyproject.toml"), "rb") as file:
        project = tomllib.load(file)["project"]
    extras = {name: " ".join(needs) for name, needs in project["optional-dependencies"].items()}
    assert not [need for need in project["dependencies"] if "onnxruntime" in need]
    assert re.findall(r"onnxruntime[-\w]*", extras["cpu"]) == ["onnxruntime"]
    assert re.findall(r"onnxruntime[-\w]*", extras["gpu"]) == ["onnxruntime-gpu"]
    assert not [name for name, needs in extras.items() if "onnxruntime" in needs and name not in ("cpu", "gpu")]
    assert "mvpose[cpu]" in extras["dev"] and "mvpose[gpu]" not in extras["dev"]
    with open(os.path.join(CLUSTER, "Dockerfile")) as file:
        cuda, cpu = re.search(r"cuda \]; then(.*)else(.*)fi", file.read(), re.DOTALL).groups()
    assert '".[gpu]"' in cuda and '".[cpu]"' in cpu


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
