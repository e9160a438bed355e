"""Settings: frozen dataclasses that live beside the code that reads them, filled from TOML and from flags.

This module knows how to read, print, compare and digest them; it knows none of them.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import tomllib
from collections.abc import Collection
from dataclasses import asdict, fields, is_dataclass
from enum import Enum
from typing import Any, Literal, TypeVar, get_args, get_origin

import cattrs
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError
from cattrs.v import format_exception, transform_error

from mvpose.errors import ConfigError
from mvpose.redaction import redacted

T = TypeVar("T")

MAX_TOML_BYTES = 1 << 20
"""Of any TOML. The standard library takes 4 s for as much in tables of few letters (measured)."""
MAX_KEY_PARTS = 16
_PART = r"""(?:[A-Za-z0-9_-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(rf"(?<![A-Za-z0-9_-]){_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{MAX_KEY_PARTS}}}")
_CONVERTER = cattrs.Converter(forbid_extra_keys=True)


def load_toml(uri: str, text: str, cls: type[T]) -> T:
    """A config of type `cls` from TOML text; ConfigError names the file and every unknown key or wrong value."""
    try:
        values = parse_toml(text)
    except ValueError as error:
        raise ConfigError(f"{uri} is not valid TOML: {error}") from error
    return structure(values, cls, uri)


def parse_toml(text: str) -> dict[str, Any]:
    """TOML as plain values; ValueError where it is not valid, too long or deep, or a key has too many parts.

    The standard library's time grows with the square of a key's parts (24,000 take 8 s), and is linear otherwise.
    """
    if len(text) > MAX_TOML_BYTES:
        raise ValueError(f"it has more than {MAX_TOML_BYTES >> 20} MiB, the limit of TOML")
    if _LONG_KEY.search(text):
        raise ValueError(f"a key has more than {MAX_KEY_PARTS} parts")
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def structure(values: dict[str, Any], cls: type[T], where: str) -> T:
    """A config of type `cls` from a plain dict; keys that `cls` does not have are errors."""
    try:
        return _CONVERTER.structure(values, cls)
    except ClassValidationError as error:
        problems = [problem.rpartition(" @ ") for problem in transform_error(error, path="", format_exception=_told)]
        told = "; ".join(f"{key.lstrip('.')}: {what}" if key else what for what, _, key in problems)
        raise ConfigError(f"{where}: {told}") from error


def home_folder() -> str:
    """The user's home. A user who has none gets a folder that is not there, never one of the working directory."""
    home = os.path.expanduser("~")
    return home if os.path.isabs(home) else "/nonexistent"


def nearest(name: str, known: Collection[str]) -> str:
    """What to say about a name that is not known: which one was probably meant, or all there are."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(known) or 'none'}"


def _told(error: BaseException, kind: Any) -> str:
    """What is wrong with a value, for `transform_error`, which says where."""
    if isinstance(error, ForbiddenExtraKeysError):
        known = [field.name for field in fields(error.cl)]
        return ", ".join(f"no key is named {key!r} ({nearest(key, known)})" for key in sorted(error.extra_fields))
    if choices := _choices(kind):
        value = re.split(" not in literal| is not a valid ", str(error))[0].strip("'")
        return f"{value!r} is not one of {', '.join(choices)}"
    return format_exception(error, kind)


def _choices(kind: Any) -> list[str]:
    """The values of a Literal or an Enum, also of one that may be None."""
    if get_origin(kind) is Literal:
        return [str(value) for value in get_args(kind)]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [str(member.value) for member in kind]
    return [choice for part in get_args(kind) for choice in _choices(part)]


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Settings as {"detector.batch_size": 16, ...}, as they may be shown: without credentials."""
    values: dict[str, Any] = config if isinstance(config, dict) else asdict(config)
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = _shown(value)
    return flat


def _shown(value: Any) -> Any:
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, dict):
        return {key: _shown(part) for key, part in value.items()}
    return type(value)(map(_shown, value)) if type(value) in (list, tuple) else value


def digest(*parts: Any) -> str:
    """SHA-256 (hex) of plain values and configs, independent of key order."""
    plain = [flatten(p) if is_dataclass(p) else p for p in parts]
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What two flat settings disagree in, one sentence each, as JSON would store them."""
    old, new = (json.loads(json.dumps(d, default=str)) for d in (before, after))
    keys = sorted(old.keys() | new.keys())
    return [f"{k}: was {old.get(k)!r}, now {new.get(k)!r}" for k in keys if old.get(k) != new.get(k)]
