"""Initial weights of a training, from a file, an object store or the model registry."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from torch import nn

from mvpose.config import differences, flatten
from mvpose.datasets.origins import TEACHER, TRAINED_ON, VALIDATED_ON, origins_in, to_lineage
from mvpose.errors import ConfigError, WeightsError
from mvpose.models.method import build_method
from mvpose.models.network_settings import Method, MonocularMethod
from mvpose.models.saved import DESCRIPTION, WEIGHTS, open_model
from mvpose.storage.locations import absolute, exists, is_remote, join, name, read_bytes, read_text
from mvpose.tracking.chosen_model import choose_model, lineage_of, place_model
from mvpose.tracking.registry import REGISTRY
from mvpose.tracking.tracking_config import TrackingConfig
from mvpose.training.training_config import TrainConfig

Config = TypeVar("Config", bound=TrainConfig)
PLACE = "initial"


def with_placed_weights(config: Config, tracking: TrackingConfig, output: str) -> Config:
    """Copy the initial network, and weights of the registry, to OUTPUT/initial, named by digest; return the new config.

    Every worker can then read them. If the alias has moved, resuming the training fails, because its settings name
    other weights. RegistryError if there is no such version, WeightsError if there is no such network.
    """
    config = replace(config, method=_with_placed_backbone(config.method, tracking, output))
    if not config.initial:
        return config
    chosen = choose_model(config.initial, tracking)
    print(f"Starting from {chosen.uri}, weights {chosen.weights_sha256[:12]}.")
    return replace(config, initial=place_model(chosen, tracking, join(absolute(output), PLACE)))


def _with_placed_backbone(method: Method, tracking: TrackingConfig, output: str) -> Method:
    uri = method.backbone.weights
    if not uri.startswith(REGISTRY):
        return method
    chosen = choose_model(uri, tracking)
    place = place_model(chosen, tracking, join(absolute(output), PLACE))
    print(f"Starting from the weights of {chosen.uri}.")
    return replace(method, backbone=replace(method.backbone, weights=join(place, WEIGHTS)))


def earlier_lineages(config: TrainConfig) -> list[dict[str, Any]]:
    """The lineages of the models that a training learns from.

    They are those of the initial network, of the backbone's file, and of the teacher that labelled the samples.
    """
    weights = config.method.backbone.weights
    folders = [config.initial, weights.rpartition("/")[0] if weights.endswith(f"/{WEIGHTS}") else ""]
    found = [lineage_of(folder) for folder in folders if folder and exists(join(folder, DESCRIPTION))]
    for table in filter(None, (config.data, config.samples.validation)):
        found += _teachers(table)
    return found


def _teachers(table: str) -> list[dict[str, Any]]:
    """What the teacher of a labelled table has seen; it does not say if an earlier version wrote the table."""
    if exists(join(table, TEACHER)):
        return [json.loads(read_text(join(table, TEACHER)))]
    made_by = join(table, "dataset.json")
    labelled = exists(made_by) and "dataset.teacher_sha256" in json.loads(read_text(made_by))
    return [{}] if labelled else []


def with_earlier_origins(lineage: dict[str, Any], earlier: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A lineage that also names what earlier trainings of the same weights saw.

    If one of them does not say, neither does this lineage.
    """
    found = dict(lineage)
    for key in (TRAINED_ON, VALIDATED_ON):
        parts = [origins_in(each, key) for each in (lineage, *earlier)]
        found.pop(key)
        if None not in parts:
            found[key] = to_lineage(origins for part in parts for origins in part or ())
    return found


def build_initial(config: TrainConfig) -> nn.Module:
    """The network with its initial weights, fetched if they are remote.

    A refinement unit starts from an initial network without one. WeightsError if they do not fit; ConfigError if the
    initial network is of another method.
    """
    if not config.initial:
        return _started_backbone(config.method)
    model = open_model(config.initial)
    wanted, method = config.method, config.method
    if isinstance(method, MonocularMethod) and isinstance(model.config, MonocularMethod):
        refinement = model.config.monocular
        sizes = replace(method.monocular, refinement=refinement.refinement, dropout=refinement.dropout)
        wanted = method if refinement.refinement else replace(method, monocular=sizes)
    if unlike := differences(flatten(model.config), flatten(wanted)):
        raise ConfigError(f"the initial network {config.initial} has another method ({'; '.join(unlike)})")
    trained = model.solved_by("dlt").network
    if wanted == method:
        return trained
    network = build_method(method, pretrained=False)
    network.load_state_dict(network.state_dict() | trained.state_dict())
    return network


def _started_backbone(method: Method) -> nn.Module:
    uri = method.backbone.weights
    if not is_remote(uri):
        return build_method(method)
    with tempfile.TemporaryDirectory() as scratch:
        local = os.path.join(scratch, name(uri))
        try:
            with open(local, "wb") as file:
                file.write(read_bytes(uri))
        except OSError as error:
            raise WeightsError(f"cannot read the weights {uri}: {error}") from error
        return build_method(replace(method, backbone=replace(method.backbone, weights=local)))
