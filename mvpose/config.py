"""Settings: frozen dataclasses defined next to the code that uses them, filled from TOML and command-line flags.

This module reads, prints, compares and digests settings without knowing any of them.
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
from importlib import import_module
from typing import Any, Literal, TypeVar, get_args, get_origin

import cattrs
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError
from cattrs.v import format_exception, transform_error

from mvpose.errors import ConfigError, redacted

T = TypeVar("T")

MAX_TOML_BYTES = 1 << 20
"""Maximum size of a TOML file. The standard library takes 4 s for this size in tables with short names (measured)."""
MAX_KEY_PARTS = 16
_PART = r"""(?:[A-Za-z0-9_-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(rf"(?<![A-Za-z0-9_-]){_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{MAX_KEY_PARTS}}}")
_CONVERTER = cattrs.Converter(forbid_extra_keys=True)


def load_toml(uri: str, text: str, cls: type[T]) -> T:
    """A config of type `cls` from TOML text. ConfigError names the file and every unknown key or wrong value."""
    try:
        values = parse_toml(text)
    except ValueError as error:
        raise ConfigError(f"{uri} is not valid TOML: {error}") from error
    return structure(values, cls, uri)


def parse_toml(text: str) -> dict[str, Any]:
    """TOML as plain values. Raises ValueError if it is invalid, too long or deep, or if a key has too many parts.

    The standard library's time is quadratic in a key's parts (24,000 take 8 s), and linear otherwise.
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
        problems = [
            problem.rpartition(" @ ") for problem in transform_error(error, path="", format_exception=_problem_text)
        ]
        problems_text = "; ".join(f"{key.lstrip('.')}: {what}" if key else what for what, _, key in problems)
        raise ConfigError(f"{where}: {problems_text}") from error


def home_folder() -> str:
    """The user's home folder. Without one, a folder that does not exist, never one in the working directory."""
    home = os.path.expanduser("~")
    return home if os.path.isabs(home) else "/nonexistent"


def import_named(reference: str, role: str) -> Any:
    """The object that `package.module:name` refers to, in the `role` of a "detector", an "export format", ...

    ConfigError, with the nearest name, if the module cannot be imported or does not define it. References come from
    flags and from the user's own TOML files only, never from an archive, a run or a model: importing runs code.
    """
    module_name, _, name = reference.partition(":")
    try:
        module = import_module(module_name)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"no {role} {reference!r} ({error}). Name it as package.module:name and install the package wherever the "
            "job runs."
        ) from error
    if not hasattr(module, name):
        own = [n for n, value in vars(module).items() if getattr(value, "__module__", "") == module_name]
        raise ConfigError(f"no {role} {reference!r}: {module_name} does not define it ({nearest(name, own)}).")
    return getattr(module, name)


def nearest(name: str, known: Collection[str]) -> str:
    """Suggestion for an unknown name: the most similar known name, or all known names."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(known) or 'none'}"


def _problem_text(error: BaseException, kind: Any) -> str:
    """Describe a wrong value, for `transform_error`, which adds the location."""
    if isinstance(error, ForbiddenExtraKeysError):
        known = [field.name for field in fields(error.cl)]
        return ", ".join(f"unknown key {key!r} ({nearest(key, known)})" for key in sorted(error.extra_fields))
    if choices := _choices(kind):
        value = re.split(" not in literal| is not a valid ", str(error))[0].strip("'")
        return f"{value!r} is not one of {', '.join(choices)}"
    return format_exception(error, kind)


def _choices(kind: Any) -> list[str]:
    """The values of a Literal or an Enum, also if it is optional."""
    if get_origin(kind) is Literal:
        return [str(value) for value in get_args(kind)]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [str(member.value) for member in kind]
    return [choice for part in get_args(kind) for choice in _choices(part)]


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Settings as {"detector.batch_size": 16, ...}, safe to print: credentials are removed."""
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
    """The differences between two flat settings as JSON would store them, one sentence each."""
    old, new = (json.loads(json.dumps(d, default=str)) for d in (before, after))
    keys = sorted(old.keys() | new.keys())
    return [f"{k}: was {old.get(k)!r}, now {new.get(k)!r}" for k in keys if old.get(k) != new.get(k)]
