"""The network of a job, or the one that a training starts from: its name is resolved once, and it is copied there."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from typing import Any

from mvpose.errors import ConfigError, WeightsError
from mvpose.models.network_settings import LIFTING, ONE_VIEW
from mvpose.models.saved import DESCRIPTION, WEIGHTS, open_model, require_model
from mvpose.models.shipped import model_folder
from mvpose.storage.commits import write_whole
from mvpose.storage.locations import exists, join, read_bytes, read_text
from mvpose.tracking.registry import REGISTRY, download, registered_method, resolve
from mvpose.tracking.tracking_config import TrackingConfig


@dataclass(frozen=True)
class ChosenModel:
    """A network identified by its weights, so that a later change of its alias has no effect."""

    uri: str
    """A folder, the name of a shipped model, or `models:/NAME/VERSION`; aliases are resolved."""
    weights_sha256: str


@dataclass(frozen=True)
class OneViewModel(ChosenModel):
    """A network for captures of one camera."""

    method: str

    @property
    def takes_images(self) -> bool:
        """Whether its input is images, and not 2D joints."""
        return self.method not in LIFTING


def choose_one_view_model(uri: str, tracking: TrackingConfig) -> OneViewModel:
    """The same for a lifter or a network of one image; ConfigError if it is another network."""
    chosen = choose_model(uri, tracking)
    method = chosen_method(chosen, tracking)
    if method not in ONE_VIEW:
        raise ConfigError(f"--monocular {uri} is a network of the method {method}: name a lifter, or one of one image.")
    return OneViewModel(chosen.uri, chosen.weights_sha256, method)


def choose_model(uri: str, tracking: TrackingConfig) -> ChosenModel:
    """Resolve a folder, shipped model or registry name (`models:/NAME@ALIAS`) to the network it currently refers to.

    WeightsError if the folder holds no network; RegistryError if the registry has no such version.
    """
    if uri.startswith(REGISTRY):
        version = resolve(tracking, uri)
        return ChosenModel(version.uri, version.weights_sha256)
    folder = model_folder(uri)
    require_model(folder)
    return ChosenModel(uri.rstrip("/"), _description(folder)["weights_sha256"])


def chosen_method(chosen: ChosenModel, tracking: TrackingConfig) -> str:
    """The method (`method.method`) of a chosen network."""
    if chosen.uri.startswith(REGISTRY):
        return registered_method(tracking, resolve(tracking, chosen.uri))
    return method_of(model_folder(chosen.uri))


def place_model(chosen: ChosenModel, tracking: TrackingConfig, folder: str) -> str:
    """Copy the network into `folder`, where workers on any machine can read it, and return its location.

    WeightsError if it is not, or is no longer, the chosen network.
    """
    place = join(folder, chosen.weights_sha256[:16])
    if exists(join(place, DESCRIPTION)):
        return place
    with tempfile.TemporaryDirectory() as scratch:
        source = model_folder(chosen.uri)
        if source.startswith(REGISTRY):
            source = download(tracking, resolve(tracking, source), scratch)
        open_model(source, chosen.weights_sha256)
        # The description is written last: its presence marks a complete copy.
        for name in (WEIGHTS, DESCRIPTION):
            write_whole(join(place, name), read_bytes(join(source, name)))
    return place


def method_of(folder: str) -> str:
    """The method (`method.method`) of the network in a folder."""
    return _description(folder)["config"]["method"]


def lineage_of(folder: str) -> dict[str, Any]:
    """What the training of the network in a folder recorded."""
    return _description(folder)["lineage"]


def _description(folder: str) -> dict:
    where = join(folder, DESCRIPTION)
    try:
        return json.loads(read_text(where))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"no model in {folder}: {where} cannot be read ({error}).") from error
