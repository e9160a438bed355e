"""Initial weights of a training, from a file, an object store or the model registry."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from typing import TypeVar

from torch import nn

from mvpose.config import differences, flatten
from mvpose.errors import ConfigError, WeightsError
from mvpose.models.method import build_method
from mvpose.models.network_settings import Method
from mvpose.models.saved import WEIGHTS
from mvpose.storage.commits import write_whole
from mvpose.storage.locations import absolute, exists, is_remote, join, name, read_bytes
from mvpose.tracking.chosen_model import choose_model, open_model, place_model
from mvpose.tracking.registry import REGISTRY, download, resolve
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
    version = resolve(tracking, uri)
    place = join(absolute(output), PLACE, f"{version.weights_sha256[:16]}.safetensors")
    if not exists(place):
        with tempfile.TemporaryDirectory() as scratch:
            write_whole(place, read_bytes(os.path.join(download(tracking, version, scratch), WEIGHTS)))
    print(f"Starting from the weights of {version.uri}.")
    return replace(method, backbone=replace(method.backbone, weights=place))


def build_initial(config: TrainConfig) -> nn.Module:
    """The network with its initial weights, fetched if they are remote.

    WeightsError if they do not fit; ConfigError if the initial network is of another method.
    """
    if not config.initial:
        return _started_backbone(config.method)
    model = open_model(config.initial)
    if unlike := differences(flatten(model.config), flatten(config.method)):
        raise ConfigError(f"the initial network {config.initial} has another method ({'; '.join(unlike)})")
    return model.network


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
