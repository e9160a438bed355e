"""Versions in the registry: what they hold, what they say, and which are refused."""

import os
import pickletools
import shutil
from pathlib import Path

import numpy as np
import pytest

from mlflow import MlflowClient
from mvpose import tracking
from mvpose.commands.register import Register
from mvpose.commands.register import run as register_command
from mvpose.errors import ConfigError, WeightsError
from mvpose.models.field_settings import FieldsConfig
from mvpose.models.input_rule import MARGIN, input_rule
from mvpose.models.method import build_method
from mvpose.models.network_settings import FieldsMethod
from mvpose.models.saved import load_model, save_model
from mvpose.models.shipped import FUSION, model_folder
from mvpose.tracking import TrackingConfig, UnreachableError
from mvpose.tracking.logged_model import requirements
from mvpose.tracking.model_card import model_card
from mvpose.tracking.registry import RegistryError, download, register, resolve
from tests.tracking.models import SEEN, SMALL, evaluated, saved


@pytest.fixture
def registered(config, tmp_path):
    saved(str(tmp_path / "out" / "model"))
    assert register_command(Register(model=str(tmp_path / "out"), name="net", tracking=config)) == 0
    return config


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
        "crops of one person: 64 x 64 pixels, 1.4 times", "Of rtmpose_s_halpe26: code Apache-2.0", "## Licence",
    ):  # fmt: skip
        assert words in made.description, words
    training = made.tags["mvpose.training_run"]
    assert client.get_run(training).data.tags["mvpose.run"] == run_id
    inputs = client.get_run(made.run_id).inputs.dataset_inputs
    found = {i.tags[0].value: (i.dataset.name, i.dataset.digest) for i in inputs}
    assert found == {"training": ("people", "abc"), "evaluation": ("every sample", "held-out")}
    card = client.download_artifacts(made.run_id, "model_card.md", str(tmp_path))
    assert Path(card).read_text() == made.description


def test_a_bottom_up_network_is_refused_with_the_way_to_use_it(config, tmp_path):
    """Fails if it becomes a version, which would answer every request with an error."""
    folder = str(tmp_path / "net")
    method = FieldsMethod(size=(64, 64), backbone=SMALL.backbone, fields=FieldsConfig(stages=1))
    save_model(folder, build_method(method), input_rule(method, MARGIN), method, {})
    with pytest.raises(ConfigError, match=rf"use it by its folder, --detector\.detector {folder}"):
        register(config, folder, "net")
    assert not MlflowClient(config.uri).search_registered_models()


def test_the_card_of_the_shipped_network_states_its_licence_and_what_it_was_trained_on(weights, monkeypatch):
    monkeypatch.setenv("MVPOSE_WEIGHTS", weights)
    model = load_model(model_folder(FUSION))
    card = model_card("tokens", model, None)
    assert "weights Apache-2.0 (mvpose)" in card and "Registered without an evaluation." in card
    assert "Trained on 37 recordings and" in card and len(card) < 5000


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


def test_the_input_that_a_network_was_trained_on_is_in_the_metadata(config, tmp_path):
    import mlflow

    saved(str(tmp_path / "model"), margin=1.25)
    register(config, str(tmp_path / "model"), "net")
    (whole,) = [w for w, _, files in os.walk(tmp_path / "mlartifacts") if "MLmodel" in files]
    stated = mlflow.pyfunc.load_model(whole).metadata.metadata["input"]
    assert stated["crop"] == {"about": "joints", "size": [64, 64], "margin": 1.25}
    assert (stated["min_views"], stated["max_views"], stated["skeleton"]) == (2, None, "coco17")


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
