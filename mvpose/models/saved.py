"""Saved networks: a folder with `model.json` (input, config, digest, lineage) and `weights.safetensors`.

Loading never unpickles, and rejects weights whose digest differs from the one in `model.json`.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from mvpose.confidence import AS_STATED, ConfidenceScale
from mvpose.config import nearest, structure, without_other_kinds
from mvpose.errors import WeightsError
from mvpose.models.detection.cards import file_sha256
from mvpose.models.input_rule import InputRule, input_rule
from mvpose.models.method import build_method
from mvpose.models.network_settings import Method, OwnMethod, Solver, TokenMethod
from mvpose.models.pictorial_step import PictorialStep, solved_by
from mvpose.storage.commits import write_whole
from mvpose.storage.locations import exists, is_folder, join, list_folder, name, read_bytes

FORMAT_VERSION = 2
DESCRIPTION, WEIGHTS = "model.json", "weights.safetensors"
LIMBS = "limb_lengths_m"
"""Key of a lineage: mean length of each bone over the training's samples, by `pictorial_step.bone_name`."""
EARLIER_FLOOR = 0.02
TRUSTED_NETWORKS = "MVPOSE_TRUSTED_NETWORKS"
"""Environment variable: comma-separated `package.module:Class` that models may name as their network."""


@dataclass(frozen=True, eq=False)
class SavedModel:
    """A network with its weights, ready for inference, and its lineage."""

    network: nn.Module
    rule: InputRule
    """The input that the network was trained on and expects."""
    config: Method
    sha256: str
    """Digest of the weights file: the version of the model."""
    lineage: dict[str, Any]
    """Recorded by training: digest of the data, settings, commit, figures, mean limb lengths."""
    confidence: ConfidenceScale = AS_STATED
    """What the confidence of its 2D joints means, once it has been fitted (`write_confidence`)."""

    def solved_by(self, solver: Solver) -> SavedModel:
        """The same model with another 3D step; ConfigError if it does not support it."""
        network = self.network.method if isinstance(self.network, PictorialStep) else self.network
        return replace(self, network=solved_by(network, self.config, self.lineage.get(LIMBS, {}), solver))


def save_model(folder: str, network: nn.Module, rule: InputRule, config: Method, lineage: Mapping[str, Any]) -> str:
    """Write a network of `config`, trained with `rule`, to a local folder; return the SHA-256 (hex) of its weights.

    Parts that a frozen backbone's model card holds are left out and read from there. `lineage` holds plain JSON values.
    The description is written last, so a folder that has one is complete.
    """
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, WEIGHTS)
    left_out = _parts_of_the_card(config)
    state = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith(left_out)}
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, path)
    sha256 = file_sha256(path)
    description = {
        "format_version": FORMAT_VERSION,
        "input": asdict(rule),
        "config": asdict(config),
        "weights_sha256": sha256,
        "lineage": dict(lineage),
    }
    with open(os.path.join(folder, DESCRIPTION), "w", encoding="utf-8") as file:
        json.dump(description, file, indent=2)
    return sha256


def load_model(folder: str, device: str = "cpu") -> SavedModel:
    """Load the output of `save_model` in evaluation mode.

    WeightsError if the model is missing, altered, or of another format, or if it was trained on an input that the
    network of this version does not accept.
    """
    where = os.path.join(folder, DESCRIPTION)
    try:
        with open(where, encoding="utf-8") as file:
            description = json.load(file)
    except (OSError, json.JSONDecodeError, RecursionError) as error:
        raise WeightsError(f"no model in {folder}: {where} cannot be read ({error})") from error
    if (written := description.get("format_version")) not in (1, FORMAT_VERSION):
        raise WeightsError(f"{where} has format {written!r}; this mvpose reads 1 and {FORMAT_VERSION}")
    path = os.path.join(folder, WEIGHTS)
    if not os.path.isfile(path):
        raise WeightsError(f"{folder} has a description but no {WEIGHTS}: copy the folder again")
    if (found := file_sha256(path)) != description["weights_sha256"]:
        raise WeightsError(
            f"{path} has SHA-256 {found}, but {where} states {description['weights_sha256']}: it was altered"
        )
    config = structure(without_other_kinds(_with_earlier_floor(description["config"]), Method), Method, where)
    _require_trusted(config, where)
    rule = _rule(description, config, where)
    of_card = _parts_of_the_card(config)
    network = build_method(config, pretrained=bool(of_card))
    rest = {name: tensor for name, tensor in network.state_dict().items() if name.startswith(of_card)}
    try:
        network.load_state_dict(rest | load_file(path, device="cpu"))
    except (RuntimeError, SafetensorError) as error:
        raise WeightsError(f"{path} does not fit the network that {where} describes: {error}") from error
    scale = structure(description.get("confidence", {}), ConfidenceScale, where)
    model = SavedModel(network.to(device).eval(), rule, config, found, description["lineage"], scale)
    return model.solved_by(config.solver)


def write_confidence(folder: str, scale: ConfidenceScale) -> None:
    """Add a confidence scale to the description of a saved model, or replace it; `folder` is any location."""
    where = join(folder, DESCRIPTION)
    description = json.loads(read_bytes(where)) | {"confidence": asdict(scale)}
    write_whole(where, json.dumps(description, indent=2).encode())


def open_model(folder: str, weights_sha256: str = "", device: str = "cpu") -> SavedModel:
    """Load a network from any location; WeightsError if its weights are not the expected ones, if these are named."""
    with tempfile.TemporaryDirectory() as scratch:
        for part in (WEIGHTS, DESCRIPTION):
            if exists(join(folder, part)):
                with open(os.path.join(scratch, part), "wb") as file:
                    file.write(read_bytes(join(folder, part)))
        model = load_model(scratch, device)
    if weights_sha256 and model.sha256 != weights_sha256:
        raise WeightsError(f"{folder} has weights {model.sha256}, but the job was planned with {weights_sha256}.")
    return model


def _with_earlier_floor(values: dict[str, Any]) -> dict[str, Any]:
    """Settings of a model; one of earlier versions, which do not state the algebraic weights' floor, had 0.02."""
    inner = {key: _with_earlier_floor(value) for key, value in values.items() if isinstance(value, dict)}
    earlier = {"floor": EARLIER_FLOOR} if "confidence_widths" in values else {}
    return earlier | values | inner


def _parts_of_the_card(config: Method) -> tuple[str, ...]:
    """Prefixes of the weights that are not saved, because they are those of the backbone's model card, unchanged."""
    frozen = isinstance(config, TokenMethod) and config.backbone.frozen and config.backbone.weights
    return ("backbone.", "head.") if frozen else ()


def _require_trusted(config: Method, where: str) -> None:
    """WeightsError if building the network would import code that the user has not named: a model may be anybody's."""
    trusted = os.environ.get(TRUSTED_NETWORKS, "").split(",")
    if isinstance(config, OwnMethod) and config.network not in trusted:
        raise WeightsError(
            f"{where} names code outside mvpose, {config.network}. If you trust it, set "
            f"{TRUSTED_NETWORKS}={config.network} in the environment of all processes that load the model."
        )


def _rule(description: dict[str, Any], config: Method, where: str) -> InputRule:
    if "input" in description:
        rule = structure(description["input"], InputRule, where)
        if rule != (own := input_rule(config, rule.crop.margin)):
            raise WeightsError(
                f"{where}: the weights were trained on {rule}, but the network takes {own}: train it again"
            )
        return rule
    # Format 1 has the margin only in the training settings; everything else follows from the config.
    margin = description["lineage"].get("settings", {}).get("samples.margin")
    if margin is None:
        raise WeightsError(f"{where} has format 1 and does not state the crop margin of the training: train it again")
    return input_rule(config, margin)


def require_model(uri: str) -> None:
    """Raise WeightsError, with the names of nearby models, if a folder contains no model."""
    if exists(join(uri, DESCRIPTION)):
        return
    if exists(join(uri, "model", DESCRIPTION)):
        raise WeightsError(f"no model in {uri} itself: use the subfolder {join(uri, 'model')}.")
    parent = uri.rstrip("/").rpartition("/")[0] or "."
    siblings = list_folder(parent) if is_folder(parent) else []
    models = [name(f) for f in siblings if exists(join(f, DESCRIPTION))]
    models += [f"{name(f)}/model" for f in siblings if exists(join(f, "model", DESCRIPTION))]
    raise WeightsError(
        f"no model in {uri}: it has no {DESCRIPTION} (models in {parent}: {nearest(name(uri), models)}). To use a "
        "registered version, give models:/NAME@ALIAS."
    )
