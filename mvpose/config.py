"""Settings: frozen dataclasses that live beside the code that reads them, filled from TOML and from flags.

This module knows how to read, print, compare and digest them; it knows none of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from dataclasses import asdict, is_dataclass
from typing import Any, TypeVar

import cattrs
from cattrs.errors import ClassValidationError
from cattrs.v import transform_error

from mvpose.errors import ConfigError

T = TypeVar("T")

_CONVERTER = cattrs.Converter(forbid_extra_keys=True)


def load_toml(uri: str, text: str, cls: type[T]) -> T:
    """A config of type `cls` from TOML text; ConfigError names the file and every unknown key or wrong value."""
    try:
        return structure(tomllib.loads(text), cls, uri)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{uri} is not valid TOML: {error}") from error


def structure(values: dict[str, Any], cls: type[T], where: str) -> T:
    """A config of type `cls` from a plain dict; keys that `cls` does not have are errors."""
    try:
        return _CONVERTER.structure(values, cls)
    except ClassValidationError as error:
        problems = "; ".join(transform_error(error, path=cls.__name__))
        raise ConfigError(f"{where}: {problems}") from error


def home_folder() -> str:
    """The user's home. A user who has none gets a folder that is not there, never one of the working directory."""
    home = os.path.expanduser("~")
    return home if os.path.isabs(home) else "/nonexistent"


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Settings as {"detector.batch_size": 16, ...}."""
    values: dict[str, Any] = config if isinstance(config, dict) else asdict(config)
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat.update(flatten(value, f"{name}.") if isinstance(value, dict) else {name: value})
    return flat


def digest(*parts: Any) -> str:
    """SHA-256 (hex) of plain values and configs, independent of key order."""
    plain = [flatten(p) if is_dataclass(p) else p for p in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What two flat settings disagree in, one sentence each, as JSON would store them."""
    old, new = (json.loads(json.dumps(d, default=str)) for d in (before, after))
    keys = sorted(old.keys() | new.keys())
    return [f"{k}: was {old.get(k)!r}, now {new.get(k)!r}" for k in keys if old.get(k) != new.get(k)]
