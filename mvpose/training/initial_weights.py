"""Initial weights of a training, from a file, an object store or the model registry."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace

from torch import nn

from mvpose.errors import WeightsError
from mvpose.models.method import build_method
from mvpose.models.network_settings import Method
from mvpose.models.saved import WEIGHTS
from mvpose.storage.commits import write_whole
from mvpose.storage.locations import absolute, exists, is_remote, join, name, read_bytes
from mvpose.tracking.registry import REGISTRY, download, resolve
from mvpose.tracking.tracking_config import TrackingConfig


def with_placed_weights(method: Method, tracking: TrackingConfig, output: str) -> Method:
    """Copy weights of the registry (`models:/NAME@ALIAS`) to OUTPUT/initial, named by digest; return the new method.

    Every worker can then read them. If the alias has moved, resuming the training fails, because its settings name
    other weights. RegistryError if there is no such version.
    """
    uri = method.backbone.weights
    if not uri.startswith(REGISTRY):
        return method
    version = resolve(tracking, uri)
    place = join(absolute(output), "initial", f"{version.weights_sha256[:16]}.safetensors")
    if not exists(place):
        with tempfile.TemporaryDirectory() as scratch:
            write_whole(place, read_bytes(os.path.join(download(tracking, version, scratch), WEIGHTS)))
    print(f"Starting from the weights of {version.uri}.")
    return replace(method, backbone=replace(method.backbone, weights=place))


def build_initial(method: Method) -> nn.Module:
    """The network with its initial weights, fetched if they are remote. WeightsError if they do not fit."""
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
