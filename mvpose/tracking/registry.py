"""Model registry: registration, resolution and download of versions.

A version is a folder that MLflow can run by itself: weights as safetensors with their digest, config, skeleton, the
code of mvpose, the required packages with versions, signature, an example, and its lineage. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mvpose.config import flatten, nearest
from mvpose.errors import ConfigError, WeightsError
from mvpose.models.network_settings import BOTTOM_UP
from mvpose.models.saved import DESCRIPTION, WEIGHTS, SavedModel, load_model
from mvpose.storage.locations import exists, join, read_bytes
from mvpose.tracking.delivery import MAX_TAG_LENGTH, client_of, experiment_id, log_points, reached, remote_run
from mvpose.tracking.logged_model import global_stores, log_network
from mvpose.tracking.model_card import model_card
from mvpose.tracking.spool import is_name
from mvpose.tracking.tracking_config import TrackingConfig, connection, tracking_uri

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput
    from mlflow.entities.model_registry import ModelVersion

    from mlflow import MlflowClient

REGISTRY = "models:/"
"""Prefix of a version's name; no folder starts with it."""
EVALUATION, SAMPLES, SUMMARY = "evaluation", "samples.parquet", "summary.json"
SEAL = "seal"
WEIGHTS_TAG, DATA_TAG = "mvpose.weights_sha256", "mvpose.data_sha256"
TRAINING_TAG = "mvpose.training_run"
"""MLflow's ID of the run that trained the network."""
MODELS_EXPERIMENT, CARD = "models", "model_card.md"
MAX_DESCRIPTION, MAX_NAME, MAX_DIGEST = 5000, 500, 36
"""Of a version, and of an input's name and digest in MLflow's database."""
CHAMPION, CHALLENGER = "champion", "challenger"


class RegistryError(ConfigError):
    """A model, version or alias is not in the registry, or has changed."""


@dataclass(frozen=True, kw_only=True)
class Version:
    """A resolved version in the registry; moving an alias later does not affect it."""

    name: str
    version: int
    weights_sha256: str

    @property
    def uri(self) -> str:
        """`models:/NAME/VERSION`."""
        return f"models:/{self.name}/{self.version}"


def register(config: TrackingConfig, folder: str, name: str, evaluation: str | None = None) -> Version:
    """Register the output of `save_model` in `folder` (any location) as the next version of `name`, as `challenger`.

    The version's description is its card (`mvpose.tracking.model_card`). The run that it belongs to has the tables of
    training and evaluation as inputs, and names the run of its training if that is in the same store.
    `evaluation` is the folder of its `mvpose evaluate` run. WeightsError if the model is incomplete; ConfigError if
    the evaluation is of other weights; UnreachableError if the registry does not respond.
    """
    with tempfile.TemporaryDirectory() as scratch:
        local = fetched(folder, os.path.join(scratch, "model"), (DESCRIPTION, WEIGHTS))
        model, summary = load_model(local), None
        if model.config.method == BOTTOM_UP:
            raise ConfigError(
                f"{folder} finds everybody's 2D joints bottom-up. A registered version corrects or lifts joints that "
                "the default detector has found, so this one cannot be one: use it by its folder, "
                f"--detector.detector {folder}."
            )
        if evaluation is not None:
            evaluation = fetched(evaluation, os.path.join(scratch, EVALUATION), (SAMPLES, SUMMARY))
            summary = check_evaluation(evaluation, model.sha256)
        with reached(config), global_stores(config):
            return _registered(config, name, model, local, evaluation, summary)


def resolve(config: TrackingConfig, uri: str) -> Version:
    """Resolve `models:/NAME@ALIAS` or `models:/NAME/VERSION` to its present version; RegistryError if there is none."""
    parts = re.fullmatch(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))", uri)
    if parts is None:
        raise RegistryError(f"{uri}: name a version as models:/NAME@ALIAS or models:/NAME/3.")
    with reached(config):
        found = found_version(config, parts["name"], alias=parts["alias"], version=parts["version"])
    if WEIGHTS_TAG not in found.tags:
        raise RegistryError(f"{uri} is version {found.version}, which mvpose did not register.")
    return Version(name=found.name, version=int(found.version), weights_sha256=found.tags[WEIGHTS_TAG])


def download(config: TrackingConfig, version: Version, into: str) -> str:
    """Download the model folder of a version below `into` and check its weights against the registry; returns its path.

    WeightsError if the weights are not the registered ones.
    """
    from mlflow.artifacts import download_artifacts

    with reached(config), global_stores(config):
        where = download_artifacts(
            artifact_uri=f"{version.uri}/artifacts/model", dst_path=into, tracking_uri=connection(config)
        )
    if (found := load_model(where).sha256) != version.weights_sha256:
        raise WeightsError(f"{version.uri} has weights {found}, but {version.weights_sha256} were registered.")
    return where


def found_version(
    config: TrackingConfig, name: str, *, alias: str | None = None, version: str | None = None
) -> ModelVersion:
    """Find a version by alias or number; RegistryError lists the existing ones."""
    from mlflow.exceptions import MlflowException

    client = client_of(config)
    try:
        if alias is not None:
            return client.get_model_version_by_alias(name, alias)
        assert version is not None
        return client.get_model_version(name, version)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        there = sorted(int(v.version) for v in client.search_model_versions(f"name = '{name}'"))
        if there:
            aliases = client.get_registered_model(name).aliases
            named = f" and aliases {', '.join(sorted(aliases))}" if aliases else ""
            known = f"it has versions {', '.join(map(str, there))}{named}"
        else:
            registered = [model.name for model in client.search_registered_models()]
            known = f"no such model is registered ({nearest(name, registered)})"
        wanted = f"alias {alias}" if alias else f"version {version}"
        raise RegistryError(f"{name} has no {wanted} in {tracking_uri(config)}: {known}.") from error


def check_evaluation(folder: str, weights_sha256: str) -> dict[str, Any]:
    """Read `summary.json` of an evaluation; ConfigError if it is not of these weights, or not as it was written."""
    try:
        with open(os.path.join(folder, SUMMARY), encoding="utf-8") as file:
            summary = json.load(file)
        with open(os.path.join(folder, SAMPLES), "rb") as file:
            samples = file.read()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder} is not an evaluation ({error}): create one with mvpose evaluate.") from error
    if summary["model_sha256"] != weights_sha256:
        raise ConfigError(
            f"the evaluation in {folder} is of weights {summary['model_sha256'][:12]}, the version has "
            f"{weights_sha256[:12]}: evaluate this model."
        )
    if SEAL not in summary:
        raise ConfigError(f"the evaluation in {folder} was made by an earlier version of mvpose: evaluate again.")
    if summary[SEAL] != evaluation_seal(summary, samples):
        raise ConfigError(f"the evaluation in {folder} was changed after it was written: evaluate again.")
    return summary


def evaluation_seal(summary: Mapping[str, Any], samples: bytes) -> str:
    """Digest (hex) of an evaluation's summary and rows, so that edited files and those of two evaluations are noticed.

    It is no signature: who writes files by a program can compute it.
    """
    rest = {key: value for key, value in summary.items() if key != SEAL}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode() + samples).hexdigest()


def evaluation_of(config: TrackingConfig, version: ModelVersion, into: str) -> str | None:
    """Local copy of the evaluation registered with a version; None if there is none."""
    client = client_of(config)
    assert version.run_id is not None
    if not client.list_artifacts(version.run_id, EVALUATION):
        return None
    return client.download_artifacts(version.run_id, EVALUATION, into)


def version_description(config: TrackingConfig, version: str, into: str) -> dict[str, Any]:
    """The description (`model.json`) of a version, `models:/NAME/VERSION`. A copy is left in `into`."""
    from mlflow.artifacts import download_artifacts

    with global_stores(config):
        path = download_artifacts(
            artifact_uri=f"{version}/artifacts/model/{DESCRIPTION}", dst_path=into, tracking_uri=connection(config)
        )
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def registered_method(config: TrackingConfig, version: Version) -> str:
    """The method (`method.method`) of a version."""
    with reached(config), tempfile.TemporaryDirectory() as scratch:
        return version_description(config, version.uri, scratch)["config"]["method"]


def _registered(
    config: TrackingConfig,
    name: str,
    model: SavedModel,
    folder: str,
    evaluation: str | None,
    summary: dict[str, Any] | None,
) -> Version:
    from mlflow.exceptions import MlflowException

    client = client_of(config)
    experiment = experiment_id(client, config, MODELS_EXPERIMENT)
    card, tags = model_card(name, model, summary), _tags(client, model, summary)
    run = client.create_run(experiment, run_name=f"register {name}", tags=tags).info.run_id
    now = time.time_ns() // 1_000_000
    figures = _numbers(model.lineage) | (summary["metrics"] if summary else {})
    log_points(client, run, ((key, float(value), now, 0) for key, value in figures.items()))
    client.log_text(run, card, CARD)
    client.log_inputs(run, _inputs(model.lineage, summary))
    if evaluation is not None:
        client.log_artifacts(run, evaluation, EVALUATION)
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    logged = log_network(model, folder, run)
    made = client.create_model_version(
        name, logged.model_uri, run, tags, description=card[:MAX_DESCRIPTION], model_id=logged.model_id
    )
    client.set_registered_model_alias(name, CHALLENGER, str(made.version))
    client.set_terminated(run)
    return Version(name=name, version=int(made.version), weights_sha256=model.sha256)


def fetched(uri: str, into: str, files: tuple[str, ...]) -> str:
    """Make local copies of these files of a folder. Missing files are skipped; the reader reports them."""
    os.makedirs(into)
    for file in files:
        if exists(join(uri, file)):
            with open(os.path.join(into, file), "wb") as copy:
                copy.write(read_bytes(join(uri, file)))
    return into


def _tags(client: MlflowClient, model: SavedModel, summary: dict[str, Any] | None) -> dict[str, str]:
    tags = {WEIGHTS_TAG: model.sha256, **_lineage_tags(model.lineage)}
    if summary is not None:
        tags |= {DATA_TAG: summary["data_sha256"], "mvpose.protocol": summary["protocol"]}
    trained = str(model.lineage.get("run_id", ""))
    # A model may be anybody's, and the ID becomes part of a query.
    training = remote_run(client, trained) if is_name(trained) else None
    return tags | ({TRAINING_TAG: training} if training else {})


def _inputs(lineage: dict[str, Any], summary: dict[str, Any] | None) -> list[DatasetInput]:
    """The tables of training and evaluation, as MLflow's inputs of a run."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    tables = []
    if "data_digest" in lineage:
        tables.append(("training", str(lineage.get("data", "")), lineage["data_digest"]))
    if summary is not None:
        tables.append(("evaluation", summary["protocol"], summary["data_sha256"]))
    return [
        DatasetInput(
            Dataset(named[:MAX_NAME] or use, digest[:MAX_DIGEST], "mvpose", json.dumps({"uri": named})),
            [InputTag("mlflow.data.context", use)],
        )
        for use, named, digest in tables
    ]


def _lineage_tags(lineage: dict[str, Any]) -> dict[str, str]:
    """Tags to search a version by; the full lineage is in the model's metadata."""
    plain = {key: value for key, value in lineage.items() if not isinstance(value, (dict, list))}
    return {f"mvpose.lineage.{key}": str(value)[:MAX_TAG_LENGTH] for key, value in plain.items()}


def _numbers(lineage: dict[str, Any]) -> dict[str, float]:
    """Figures recorded by the model's training."""
    figures = flatten(lineage.get("metrics", {}))
    return {f"lineage/{key}": float(value) for key, value in figures.items() if abs(value) < float("inf")}
