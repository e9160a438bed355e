"""What a training starts from, wherever it lies: a file, an object in a store, a version in the registry."""

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
    """The method with weights of the registry (`models:/NAME@ALIAS`) copied to OUTPUT/initial, under their digest.

    So every worker finds them, and a training that is gone on with after the alias has moved is refused, since its
    settings name other weights. RegistryError where there is no such version.
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
    """The network as a training starts with it; weights in a store are fetched. WeightsError where they do not fit."""
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
