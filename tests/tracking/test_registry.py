"""A registered network: what a consumer gets who has MLflow and the logged requirements, and not mvpose."""

import json
import os
import pickletools
import shutil
import subprocess
import sys
import time
import urllib.request
import venv
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.pyfunc.model import PythonModelContext
from packaging.requirements import Requirement

from mlflow import MlflowClient
from mvpose import tracking
from mvpose.commands.register import Register
from mvpose.commands.register import run as register_command
from mvpose.errors import WeightsError
from mvpose.models.saved import load_model
from mvpose.models.shipped import FUSION, model_folder
from mvpose.tracking import TrackingConfig, UnreachableError
from mvpose.tracking.logged_model import requirements
from mvpose.tracking.model_card import model_card
from mvpose.tracking.registry import RegistryError, download, register, resolve
from mvpose.tracking.served_model import ServedModel
from tests.evaluation.small import write_model
from tests.tracking.conftest import free_port
from tests.tracking.models import SEEN, evaluated, question, saved


def with_dependencies(names: list[str]) -> set[str]:
    """Installed distributions that these need, and theirs."""
    found: set[str] = set()
    waiting = [Requirement(name) for name in names]
    while waiting:
        wanted = waiting.pop()
        key = wanted.name.lower().replace("_", "-")
        try:
            needs = metadata.requires(wanted.name) or []
        except metadata.PackageNotFoundError:
            continue
        if key in found:
            continue
        found.add(key)
        waiting += [r for text in needs if (r := Requirement(text)).marker is None or r.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="session")
def consumer(tmp_path_factory) -> str:
    """Interpreter of an environment that has MLflow and the requirements of a registered network, and nothing else."""
    folder = tmp_path_factory.mktemp("consumer")
    venv.create(folder, with_pip=False)
    site = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    for name in with_dependencies(["mlflow", *requirements()]):
        distribution = metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or [] if not file.parts[0].startswith("..")}:
            source = os.path.join(str(distribution.locate_file("")), top)
            if os.path.exists(source) and not (site / top).exists():
                (site / top).symlink_to(source)
    # pip would have made this script, which `mlflow models serve` starts.
    script = folder / "bin" / "uvicorn"
    script.write_text(f"#!{folder}/bin/python\nfrom uvicorn.main import main\nmain()\n")
    script.chmod(0o755)
    return str(folder / "bin" / "python")


@pytest.fixture
def registered(config, tmp_path):
    saved(str(tmp_path / "out" / "model"))
    assert register_command(Register(model=str(tmp_path / "out"), name="net", tracking=config)) == 0
    return config


def expected(folder: str) -> np.ndarray:
    crops, projections, _ = question()
    with torch.inference_mode():
        found = load_model(folder).network(crops, projections)
    # An answer that everything would give proves nothing.
    assert found.valid.all() and found.joints.std(dim=0).max() > 1e-2 and found.joints.std(dim=1).max() > 1e-2
    return torch.where(found.valid[..., None], found.joints, torch.nan).double().numpy()


def test_a_version_says_what_it_is_and_leads_to_its_training_and_tables(config, tmp_path):
    """Fails if the card, the inputs or the link to the training run is missing, or the figures are others."""
    run_id = tracking.start_run(config, "training", {})
    digest = saved(str(tmp_path / "model"), seen=SEEN | {"run_id": run_id, "data": "people", "step": 7})
    evaluation = evaluated(str(tmp_path / "evaluation"), digest, np.full((6, 4), 0.0512))
    version = register(config, str(tmp_path / "model"), "net", evaluation)
    client = MlflowClient(config.uri)
    made = client.get_model_version("net", str(version.version))
    for words in (
        "17, coco17) of one person from 2 or more views", "Table people, digest abc",
        "Trained on 1 recordings and 1 people of held", "Best step chosen by 1 recordings of held", "MPJPE 51.2 mm",
        "Input is crops of 64 x 64 pixels, 1.4 times", "## Licence",
    ):  # fmt: skip
        assert words in made.description, words
    training = made.tags["mvpose.training_run"]
    assert client.get_run(training).data.tags["mvpose.run"] == run_id
    inputs = client.get_run(made.run_id).inputs.dataset_inputs
    found = {i.tags[0].value: (i.dataset.name, i.dataset.digest) for i in inputs}
    assert found == {"training": ("people", "abc"), "evaluation": ("every sample", "held-out")}
    card = client.download_artifacts(made.run_id, "model_card.md", str(tmp_path))
    assert Path(card).read_text() == made.description


def test_the_card_of_the_shipped_network_states_its_licence_and_what_it_was_trained_on(weights, monkeypatch):
    monkeypatch.setenv("MVPOSE_WEIGHTS", weights)
    model = load_model(model_folder(FUSION))
    card = model_card("tokens", model, None)
    assert "weights Apache-2.0 (mvpose)" in card and "Registered without an evaluation." in card
    assert "Trained on 37 recordings and" in card and len(card) < 5000


CONSUME = """
import importlib.util, json, sys
assert importlib.util.find_spec("mvpose") is None
import mlflow, pandas
model = mlflow.pyfunc.load_model("models:/net@challenger")
assert "mlmodels" not in sys.modules["mvpose"].__file__
print(sys.modules["mvpose"].__file__)
print(model.predict(pandas.DataFrame(json.load(sys.stdin))).to_json(orient="records", double_precision=15))
"""


@pytest.mark.slow
def test_a_consumer_who_has_not_mvpose_gets_the_eager_answer(registered, consumer, tmp_path):
    _, _, rows = question()
    environment = {
        "PATH": os.environ["PATH"],
        "MLFLOW_TRACKING_URI": registered.uri,
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "HOME": str(tmp_path),
    }
    done = subprocess.run(
        [consumer, "-c", CONSUME], input=json.dumps(rows), capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]
    code, answer = done.stdout.splitlines()[-2:]
    assert "/code/mvpose/" in code
    found = np.array([row["joints"] for row in json.loads(answer)], dtype=np.float64)
    np.testing.assert_allclose(found, expected(str(tmp_path / "out" / "model")), atol=1e-5)


def test_a_version_holds_safetensors_requirements_lineage_and_no_pickle(registered, tmp_path):
    version = resolve(registered, "models:/net@challenger")
    client = MlflowClient(registered.uri)
    known = client.get_model_version("net", "1")
    assert known.tags["mvpose.weights_sha256"] == version.weights_sha256
    assert known.tags["mvpose.lineage.data_digest"] == "abc"
    assert client.get_run(known.run_id).data.metrics == {"lineage/mpjpe_m": 0.05}
    (tmp_path / "got").mkdir()
    local = download(registered, version, str(tmp_path / "got"))
    assert load_model(local).sha256 == version.weights_sha256
    (whole,) = [w for w, _, files in os.walk(tmp_path / "mlartifacts") if "MLmodel" in files]
    with open(os.path.join(whole, "requirements.txt")) as file:
        assert set(requirements()) <= set(file.read().splitlines())
    files = [os.path.join(w, f) for w, _, names in os.walk(whole) for f in names]
    assert any(f.endswith("weights.safetensors") for f in files) and not [f for f in files if _is_pickle(f)]


def _is_pickle(path: str) -> bool:
    with open(path, "rb") as file:
        data = file.read()
    if not data.startswith(b"\x80"):
        return path.endswith((".pkl", ".pickle", ".pt", ".pth"))
    try:
        return bool(list(pickletools.genops(data)))
    except ValueError:
        return False


def test_tampered_weights_are_refused_wherever_they_are_loaded(registered, tmp_path):
    import mlflow

    (weights,) = [
        os.path.join(w, f)
        for w, _, names in os.walk(tmp_path / "mlartifacts")
        for f in names
        if f == "weights.safetensors" and os.path.basename(w) == "model"  # the code has shipped weights, too
    ]
    with open(weights, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))
    version = resolve(registered, "models:/net@challenger")
    whole = os.path.dirname(os.path.dirname(os.path.dirname(weights)))
    with pytest.raises(WeightsError, match="it was altered"):
        mlflow.pyfunc.load_model(whole)
    (tmp_path / "got").mkdir()
    with pytest.raises(WeightsError, match="it was altered"):
        download(registered, version, str(tmp_path / "got"))
    # A whole model of other weights, description and all, in the place of the registered one.
    saved(str(tmp_path / "other"), seed=7)
    shutil.copytree(tmp_path / "other", os.path.dirname(weights), dirs_exist_ok=True)
    with pytest.raises(WeightsError, match="they were changed"):
        mlflow.pyfunc.load_model(whole)
    shutil.rmtree(tmp_path / "got")
    (tmp_path / "got").mkdir()
    with pytest.raises(WeightsError, match="were registered"):
        download(registered, version, str(tmp_path / "got"))


def test_wrong_input_is_answered_with_what_is_wrong(registered, tmp_path):
    import mlflow

    (whole,) = [w for w, _, files in os.walk(tmp_path / "mlartifacts") if "MLmodel" in files]
    model = mlflow.pyfunc.load_model(whole)
    _, _, rows = question(people=1)
    for change, said in (
        ({"crops": ["!!"] * 3}, "row 0: a crop is not base64"),
        ({"crops": ["aGVsbG8="] * 3}, "row 0: a crop is neither JPEG nor PNG"),
        ({"projections": rows[0]["projections"][:2]}, "row 0: 3 crops need as many 3 x 4 matrices"),
    ):
        with pytest.raises(ValueError, match=said):
            model.predict(pd.DataFrame([rows[0] | change]))
    served = model.unwrap_python_model()
    for change, said in (
        ({"crops": None}, "row 1: `crops` must be a list of images, not NoneType"),
        ({"crops": [7, 7, 7]}, "row 1: a crop is not base64"),
        ({"projections": [[[1.0], [1.0, 2.0]]] * 3}, "row 1: `projections` are not 3 x 4 matrices of numbers"),
        ({"projections": 3.0}, "row 1: `projections` are not"),
        ({"present": [True]}, "row 1: 3 crops need as many flags"),
    ):
        with pytest.raises(ValueError, match=said):
            served.predict(None, pd.DataFrame([rows[0], rows[0] | change]))


def test_the_input_that_a_network_was_trained_on_is_in_the_metadata(config, tmp_path):
    import mlflow

    saved(str(tmp_path / "model"), margin=1.25)
    register(config, str(tmp_path / "model"), "net")
    (whole,) = [w for w, _, files in os.walk(tmp_path / "mlartifacts") if "MLmodel" in files]
    stated = mlflow.pyfunc.load_model(whole).metadata.metadata["input"]
    assert stated["crop"] == {"about": "joints", "size": [64, 64], "margin": 1.25}
    assert (stated["min_views"], stated["max_views"], stated["skeleton"]) == (2, None, "coco17")


def test_a_served_network_that_concatenates_refuses_another_number_of_views(tmp_path):
    served = ServedModel()
    served.model = load_model(write_model(str(tmp_path), "fusion", views=3))
    _, _, rows = question(people=1)
    four = {key: [*value, value[0]] for key, value in rows[0].items()}
    with pytest.raises(ValueError, match="row 0: the network takes exactly 3 views, but 4 are given"):
        served.predict(PythonModelContext({}, {}), pd.DataFrame([four]))


def test_absent_views_do_not_count_and_rows_may_differ_in_views(registered, tmp_path):
    import mlflow

    (whole,) = [w for w, _, files in os.walk(tmp_path / "mlartifacts") if "MLmodel" in files]
    crops, projections, (first, _, third) = question()
    absent = {**first, "crops": [*first["crops"][:2], third["crops"][2]], "present": [True, True, False]}
    two = {**{key: value[:2] for key, value in first.items()}, "present": [True, True]}
    found = mlflow.pyfunc.load_model(whole).predict(pd.DataFrame([absent, two, {**third, "present": [True] * 3}]))
    network = load_model(str(tmp_path / "out" / "model")).network
    with torch.inference_mode():
        eager = [
            network(crops[:1], projections[:1], torch.tensor([[True, True, False]])),
            network(crops[:1, :2], projections[:1, :2]),
            network(crops[2:], projections[2:]),
        ]
    for answer, prediction in zip(found.joints, eager, strict=True):
        np.testing.assert_allclose(np.array(answer, float), prediction.joints[0].numpy(), atol=1e-5)


@pytest.mark.slow
def test_a_served_version_answers_a_real_request_as_the_network_does(registered, consumer, tmp_path):
    port, (_, _, rows) = free_port(), question()
    command = [consumer, "-m", "mlflow", "models", "serve", "-m", "models:/net@challenger", "--env-manager", "local"]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": registered.uri, "PYTHONPATH": ""}
    environment["PATH"] = f"{os.path.dirname(consumer)}:{environment['PATH']}"
    with open(tmp_path / "serve.log", "wb") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            env=environment, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        _wait(f"http://127.0.0.1:{port}/ping", process, tmp_path / "serve.log")
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/invocations",
            json.dumps({"dataframe_records": rows}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            answers = json.load(response)["predictions"]
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
        process.wait()
    found = np.array([row["joints"] for row in answers], dtype=np.float64)
    np.testing.assert_allclose(found, expected(str(tmp_path / "out" / "model")), atol=1e-5)


def _wait(url: str, process: subprocess.Popen, log) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.2)


def test_a_damaged_model_folder_is_not_registered(config, tmp_path):
    saved(str(tmp_path / "model"))
    with open(tmp_path / "model" / "weights.safetensors", "ab") as file:
        file.write(b"x")
    with pytest.raises(WeightsError):
        register(config, str(tmp_path / "model"), "net")
    assert not MlflowClient(config.uri).search_registered_models()


def test_a_name_of_no_version_is_refused_with_how_to_write_one(config):
    with pytest.raises(RegistryError, match="models:/NAME@ALIAS"):
        resolve(config, "models:/net")


def test_a_registry_that_cannot_be_reached_is_reported(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UnreachableError, match="MLflow at http"):
        resolve(TrackingConfig(uri="http://127.0.0.1:9", folder=str(tmp_path)), "models:/net@champion")
