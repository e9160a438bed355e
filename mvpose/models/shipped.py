"""Trained networks that are part of this package, so that a job needs no registry and no training.

mvpose/models/trained/NAME/   model.json, weights.safetensors   as `mvpose train` saved them
                              card.toml                         licences, training data and figures
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

from mvpose.config import load_toml
from mvpose.models.detection.cards import Licence

FUSION = "canonical_tokens_halpe26"
"""Canonical fusion of the default detector's joint tokens."""


@dataclass(frozen=True, kw_only=True)
class ShippedModel:
    """The card of a trained network."""

    name: str
    detector: str
    """Card of the detector whose tokens it takes."""
    about: str
    trained_on: str
    figures: dict[str, str]
    """What was measured, and the result."""
    licence: Licence


def shipped_names() -> list[str]:
    """Names of the trained networks of this package, sorted."""
    return sorted(folder.name for folder in _trained().iterdir() if (folder / "card.toml").is_file())


def read_shipped(name: str) -> ShippedModel:
    """The card of a trained network of this package."""
    card = _trained() / name / "card.toml"
    return load_toml(f"{name}/card.toml", card.read_text(encoding="utf-8"), ShippedModel)


def model_folder(uri: str) -> str:
    """Local folder of a trained network of this package; any other location is returned unchanged."""
    return str(_trained() / uri) if uri in shipped_names() else uri


def _trained():
    return files("mvpose.models") / "trained"
