"""A trained network on disk: a folder with `model.json` (config, digest, lineage) and `weights.safetensors`.

Nothing is ever unpickled, and weights whose digest is not the one that `model.json` states are refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from mvpose.config import nearest, structure, without_other_kinds
from mvpose.errors import WeightsError
from mvpose.models.detection.cards import file_sha256
from mvpose.models.method import build_method
from mvpose.models.network_settings import Method
from mvpose.storage.locations import exists, is_folder, join, list_folder, name

FORMAT_VERSION = 1
DESCRIPTION, WEIGHTS = "model.json", "weights.safetensors"


@dataclass(frozen=True, eq=False)
class SavedModel:
    """A network with its weights, ready for inference, and where it came from."""

    network: nn.Module
    config: Method
    sha256: str
    """Of the weights file: the version of the model."""
    lineage: dict[str, Any]
    """What the maker wrote: digest of the data, settings of the training, commit, figures."""


def save_model(folder: str, network: nn.Module, config: Method, lineage: Mapping[str, Any]) -> str:
    """Write a network into a local folder; the SHA-256 (hex) of its weights.

    `lineage` is plain JSON values. The description is written last, so that a folder with one is whole.
    """
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, WEIGHTS)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}, path)
    sha256 = file_sha256(path)
    description = {
        "format_version": FORMAT_VERSION,
        "config": asdict(config),
        "weights_sha256": sha256,
        "lineage": dict(lineage),
    }
    with open(os.path.join(folder, DESCRIPTION), "w", encoding="utf-8") as file:
        json.dump(description, file, indent=2)
    return sha256


def load_model(folder: str, device: str = "cpu") -> SavedModel:
    """What `save_model` wrote, in evaluation mode. WeightsError where it is missing, altered or of another format."""
    where = os.path.join(folder, DESCRIPTION)
    try:
        with open(where, encoding="utf-8") as file:
            description = json.load(file)
    except (OSError, json.JSONDecodeError, RecursionError) as error:
        raise WeightsError(f"no model in {folder}: {where} cannot be read ({error})") from error
    if description.get("format_version") != FORMAT_VERSION:
        raise WeightsError(
            f"{where} has format {description.get('format_version')!r}; this mvpose reads {FORMAT_VERSION}"
        )
    path = os.path.join(folder, WEIGHTS)
    if not os.path.isfile(path):
        raise WeightsError(f"{folder} has a description but no {WEIGHTS}: copy the folder again")
    if (found := file_sha256(path)) != description["weights_sha256"]:
        raise WeightsError(f"{path} has SHA-256 {found}, {where} says {description['weights_sha256']}: it was altered")
    config = structure(without_other_kinds(description["config"], Method), Method, where)
    network = build_method(config, pretrained=False)
    try:
        network.load_state_dict(load_file(path, device="cpu"))
    except (RuntimeError, SafetensorError) as error:
        raise WeightsError(f"{path} does not fit the network that {where} describes: {error}") from error
    return SavedModel(network.to(device).eval(), config, found, description["lineage"])


def require_model(uri: str) -> None:
    """WeightsError, with the names of networks nearby, where a folder holds none."""
    if exists(join(uri, DESCRIPTION)):
        return
    if exists(join(uri, "model", DESCRIPTION)):
        raise WeightsError(f"no model in {uri} itself: it is in its folder model, {join(uri, 'model')}.")
    parent = uri.rstrip("/").rpartition("/")[0] or "."
    beside = list_folder(parent) if is_folder(parent) else []
    models = [name(f) for f in beside if exists(join(f, DESCRIPTION))]
    models += [f"{name(f)}/model" for f in beside if exists(join(f, "model", DESCRIPTION))]
    raise WeightsError(
        f"no model in {uri}: it has no {DESCRIPTION} (of the models in {parent}: {nearest(name(uri), models)}). A "
        "version in the registry is named models:/NAME@ALIAS."
    )
