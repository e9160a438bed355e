"""The network of a job: which one a name means, decided once when the job is planned, and its place in the run."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass

from mvpose.archive.commits import write_whole
from mvpose.archive.locations import exists, join, read_bytes, read_text
from mvpose.archive.model_folders import require_model
from mvpose.errors import WeightsError
from mvpose.models.saved import DESCRIPTION, WEIGHTS, SavedModel, load_model
from mvpose.tracking.config import TrackingConfig
from mvpose.tracking.registry import REGISTRY, download, resolve


@dataclass(frozen=True)
class ChosenModel:
    """A network by what it is, whatever its name means later."""

    uri: str
    """A folder, or `models:/NAME/VERSION`; an alias is resolved."""
    weights_sha256: str


def choose_model(uri: str, tracking: TrackingConfig) -> ChosenModel:
    """The network that a folder or a name of the registry (`models:/NAME@ALIAS`) means now.

    WeightsError where the folder holds none; RegistryError where the registry has no such version.
    """
    if uri.startswith(REGISTRY):
        version = resolve(tracking, uri)
        return ChosenModel(version.uri, version.weights_sha256)
    require_model(uri)
    return ChosenModel(uri.rstrip("/"), _description(uri)["weights_sha256"])


def place_model(chosen: ChosenModel, tracking: TrackingConfig, output: str) -> str:
    """Copy the network into the run, where workers of any machine find it; its location there.

    WeightsError where it is not, or no longer, the one that was chosen.
    """
    place = join(output, "models", chosen.weights_sha256[:16])
    if exists(join(place, DESCRIPTION)):
        return place
    with tempfile.TemporaryDirectory() as scratch:
        source = chosen.uri
        if source.startswith(REGISTRY):
            source = download(tracking, resolve(tracking, source), scratch)
        open_model(source, chosen.weights_sha256)
        # The description last, so that a place with one is whole.
        for name in (WEIGHTS, DESCRIPTION):
            write_whole(join(place, name), read_bytes(join(source, name)))
    return place


def open_model(folder: str, weights_sha256: str, device: str = "cpu") -> SavedModel:
    """A network at any location; WeightsError where its weights are not the expected ones."""
    with tempfile.TemporaryDirectory() as scratch:
        for name in (WEIGHTS, DESCRIPTION):
            if exists(join(folder, name)):
                with open(os.path.join(scratch, name), "wb") as file:
                    file.write(read_bytes(join(folder, name)))
        model = load_model(scratch, device)
    if model.sha256 != weights_sha256:
        raise WeightsError(f"{folder} holds weights {model.sha256}, the job was planned with {weights_sha256}.")
    return model


def _description(folder: str) -> dict:
    where = join(folder, DESCRIPTION)
    try:
        return json.loads(read_text(where))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"no model in {folder}: {where} cannot be read ({error}).") from error
