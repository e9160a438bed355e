"""Where the people are made from: meshes, pictures and motion capture, named by a card and checked by digest.

The files are not part of mvpose. `card.toml` beside this module names each one by its path, its SHA-256 and the
upstream project it comes from; here they are read from a folder or an S3 prefix that holds them under these paths.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Any, TypeVar

import cv2
import numpy as np
from jaxtyping import UInt8

from mvpose.archive import locations
from mvpose.config import home_folder, load_toml
from mvpose.datasets.rendered.mesh import Mesh, read_obj
from mvpose.errors import WeightsError

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Source:
    """An upstream project that publishes some of the files."""

    what: str
    upstream: str
    licence: str
    files: dict[str, str]
    """SHA-256 by path."""


@dataclass(frozen=True, kw_only=True)
class AssetCard:
    """All files that rendered people are made from."""

    sources: tuple[Source, ...]

    def source(self, key: str) -> Source:
        """The upstream of a file; KeyError for a file that the card does not name."""
        for source in self.sources:
            if key in source.files:
                return source
        raise KeyError(key)

    def keys(self, prefix: str, suffix: str = "") -> list[str]:
        """Paths that begin and end so, sorted."""
        found = [key for source in self.sources for key in source.files]
        return sorted(key for key in found if key.startswith(prefix) and key.endswith(suffix))


@lru_cache(maxsize=1)
def asset_card() -> AssetCard:
    """The card that comes with mvpose."""
    text = (files("mvpose.datasets.rendered") / "card.toml").read_text(encoding="utf-8")
    return load_toml("card.toml", text, AssetCard)


def assets_folder() -> str:
    """Where the files lie: $MVPOSE_ASSETS, else `assets` in $MVPOSE_CACHE, else in ~/.cache/mvpose. May be at s3://."""
    cache = os.environ.get("MVPOSE_CACHE") or os.path.join(home_folder(), ".cache", "mvpose")
    return os.environ.get("MVPOSE_ASSETS") or os.path.join(cache, "assets")


@dataclass(frozen=True, eq=False)
class Assets:
    """Files by key, each read and its digest checked at first use, then kept for as long as this object lives."""

    folder: str
    card: AssetCard = field(default_factory=asset_card)
    _kept: dict[tuple[str, str], Any] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, uri: str | None = None) -> Assets:
        """Files of a folder or S3 prefix (default: `assets_folder()`); `motion/` may lie in it or beside it."""
        return cls(uri or assets_folder())

    def read(self, key: str) -> bytes:
        """The content of a file; WeightsError says which upstream to get it from where it is missing or damaged."""
        source = self.card.source(key)
        for uri in self._places(key):
            if locations.exists(uri):
                content = locations.read_bytes(uri)
                break
        else:
            raise WeightsError(
                f"{key} is not in {self.folder}: get it from {source.upstream} and put it there under this path, "
                f"or name the folder that has it in MVPOSE_ASSETS"
            )
        if (found := hashlib.sha256(content).hexdigest()) != source.files[key]:
            raise WeightsError(
                f"{uri} has SHA-256 {found}, the card says {source.files[key]}: the file is damaged or another "
                f"version; delete it and get it from {source.upstream}"
            )
        return content

    def parsed(self, key: str, parse: Callable[[bytes], T]) -> T:
        """What `parse` makes of a file, made once. The same object at each call: copy to change."""
        place = (key, parse.__qualname__)
        if place not in self._kept:
            self._kept[place] = parse(self.read(key))
        return self._kept[place]

    def mesh(self, key: str) -> Mesh:
        """A Wavefront OBJ file."""
        return self.parsed(key, _mesh)

    def texture(self, key: str) -> UInt8[np.ndarray, "H W 4"]:
        """A picture as RGBA, sRGB colours, opaque where the file has no alpha."""
        return self.parsed(key, _picture)

    def _places(self, key: str) -> tuple[str, ...]:
        """Where a file may lie. Motion capture may also lie beside the folder: it is no asset of MakeHuman's."""
        here = locations.join(self.folder, *key.split("/"))
        beside = locations.join(os.path.dirname(self.folder.rstrip("/")), *key.split("/"))
        return (here, beside) if key.startswith("motion/") else (here,)


def _mesh(content: bytes) -> Mesh:
    return read_obj(content.decode("utf-8-sig"))


def _picture(content: bytes) -> UInt8[np.ndarray, "H W 4"]:
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture is not None  # its digest was that of a picture
    if picture.ndim == 2:
        return cv2.cvtColor(picture, cv2.COLOR_GRAY2RGBA)
    return cv2.cvtColor(picture, cv2.COLOR_BGRA2RGBA if picture.shape[2] == 4 else cv2.COLOR_BGR2RGBA)
