"""Settings as frozen dataclasses, filled from TOML and command-line flags.

Each class is defined next to the code that uses it. This module reads, prints, compares and digests settings of any
class.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from importlib import import_module
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints, overload

import cattrs
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError
from cattrs.v import format_exception, transform_error

from mvpose.errors import ConfigError, redacted

T = TypeVar("T")

MAX_TOML_BYTES = 1 << 20
"""Maximum size of a TOML file. The standard library needs 4 s for this size with short table names (measured)."""
MAX_KEY_PARTS = 16
_PART = r"""(?:[A-Za-z0-9_-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(rf"(?<![A-Za-z0-9_-]){_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{MAX_KEY_PARTS}}}")
MOVED_SETTINGS = {
    "max_people": "detector and reconstruction share one setting: --people N or all, or `people` at the top of the "
    "file",
    "wave_clips": "leave it out: captures are finished one by one, in a single pass over all clips",
}
"""Names of former settings, and what to write in their place."""
_CONVERTER = cattrs.Converter(forbid_extra_keys=True)


@dataclass(frozen=True)
class TaggedUnion:
    """A union of settings classes. One field, the tag, selects the class; only settings of that class are accepted."""

    tag: str
    members: dict[str, type]
    """Classes by the value of the tag; the first is the default."""

    def member(self, kind: str) -> type:
        """The settings class of a kind; ConfigError if there is no such kind."""
        if kind not in self.members:
            raise _KindError(f"{kind!r} is not one of {', '.join(self.members)}")
        return self.members[kind]

    def kinds_with(self, key: str) -> list[str]:
        """The kinds that have a setting with this name."""
        return [kind for kind, member in self.members.items() if key in member.__dataclass_fields__]


class _KindError(ConfigError):
    """An unknown kind, or a setting of another kind."""


@cache
def tagged_union(annotation: Any) -> TaggedUnion | None:
    """The tagged union of an annotation, if its members are dataclasses with a Literal field of disjoint values."""
    members = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else ()
    if len(members) < 2 or not all(map(is_dataclass, members)):
        return None
    hints = [get_type_hints(member) for member in members]
    for name in hints[0]:
        kinds = {
            kind: member
            for member, hint in zip(members, hints, strict=True)
            if get_origin(hint.get(name)) is Literal
            for kind in get_args(hint[name])
        }
        if len(kinds) == sum(len(get_args(hint.get(name))) for hint in hints) and set(kinds.values()) == set(members):
            return TaggedUnion(name, kinds)
    return None


def _structure_tagged(values: Any, annotation: Any) -> Any:
    union = tagged_union(annotation)
    if union is None or not isinstance(values, dict):
        raise _KindError(f"expected a table, not {values!r}")
    kind = values.get(union.tag, next(iter(union.members)))
    member = union.member(kind)
    for key in values.keys() - member.__dataclass_fields__.keys():
        if others := union.kinds_with(key):
            raise _KindError(other_kind(key, union.tag, others, kind))
    return _CONVERTER.structure(values, member)


def other_kind(name: str, tag: str, others: list[str], kind: str) -> str:
    """The error message for a setting of another kind."""
    return f"{name} belongs to {tag} {' and '.join(others)}, but {tag} is {kind}"


def _structure_number_or_word(value: Any, annotation: Any) -> Any:
    number, words = get_args(annotation)
    if type(value) is not number and value not in get_args(words):
        raise ValueError(f"{value!r} is neither a whole number nor {' or '.join(map(repr, get_args(words)))}")
    return value


def _structure_number_or_text(value: Any, _: Any) -> Any:
    if type(value) not in (int, str):
        raise ValueError(f"{value!r} is neither a whole number nor text")
    return value


_CONVERTER.register_structure_hook_func(
    lambda kind: [get_origin(part) or part for part in get_args(kind)] == [int, Literal], _structure_number_or_word
)
_CONVERTER.register_structure_hook_func(lambda kind: get_args(kind) == (int, str), _structure_number_or_text)
_CONVERTER.register_structure_hook_func(lambda kind: tagged_union(kind) is not None, _structure_tagged)


def with_kind(config: Any, annotation: Any, kind: str) -> Any:
    """Settings of another kind of a tagged union. Values of common settings are kept."""
    union = tagged_union(annotation)
    assert union is not None
    member = union.member(kind)
    shared = {f.name: getattr(config, f.name) for f in fields(config) if f.name in member.__dataclass_fields__}
    return member(**shared | {union.tag: kind})


def without_other_kinds(values: dict[str, Any], annotation: Any) -> dict[str, Any]:
    """Plain settings without those of other kinds. Older files contain the settings of all kinds."""
    if union := tagged_union(annotation):
        kind = values.get(union.tag, next(iter(union.members)))
        annotation = union.member(kind)
        others = {key for key in values if union.kinds_with(key)} - annotation.__dataclass_fields__.keys()
        values = {key: value for key, value in values.items() if key not in others}
    hints = get_type_hints(annotation) if is_dataclass(annotation) else {}
    return {
        key: without_other_kinds(value, hints.get(key)) if isinstance(value, dict) else value
        for key, value in values.items()
    }


def load_toml(uri: str, text: str, cls: type[T]) -> T:
    """A config of type `cls` from TOML text. ConfigError names the file and every unknown key or invalid value."""
    return structure(read_toml(uri, text), cls, uri)


def read_toml(uri: str, text: str) -> dict[str, Any]:
    """TOML as plain values; ConfigError names the file if it is invalid."""
    try:
        return parse_toml(text)
    except ValueError as error:
        raise ConfigError(f"{uri} is not valid TOML: {error}") from error


def parse_toml(text: str) -> dict[str, Any]:
    """TOML as plain values. ValueError if it is invalid, too long or nested too deeply, or if a key has too many parts.

    The standard library takes quadratic time in the parts of a key (24,000 take 8 s), and linear time otherwise.
    """
    if len(text) > MAX_TOML_BYTES:
        raise ValueError(f"it is larger than {MAX_TOML_BYTES >> 20} MiB, the size limit")
    if _LONG_KEY.search(text):
        raise ValueError(f"a key has more than {MAX_KEY_PARTS} parts")
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def to_toml(values: Mapping[str, Any], table: str = "") -> str:
    """Nested settings as TOML text, which `load_toml` reads back. None, which TOML lacks, is left out."""
    own = {key: value for key, value in values.items() if not isinstance(value, Mapping) and value is not None}
    text = f"\n[{table}]\n" if table and own else ""
    text += "".join(f"{key} = {_toml_value(value)}\n" for key, value in own.items())
    inner = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    return text + "".join(to_toml(value, f"{table}.{key}" if table else key) for key, value in inner.items())


def _toml_value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return str(value).lower() if isinstance(value, bool) else repr(value)


@overload
def structure(values: dict[str, Any], cls: type[T], where: str) -> T: ...
@overload
def structure(values: dict[str, Any], cls: Any, where: str) -> Any: ...
def structure(values: dict[str, Any], cls: Any, where: str) -> Any:
    """A config of type `cls`, or of a tagged union, from a plain dict; unknown keys are errors."""
    try:
        return _CONVERTER.structure(values, cls)
    except _KindError as error:
        raise ConfigError(f"{where}: {error}") from error
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
            f"no {role} {reference!r} ({error}). Use the form package.module:name, and install the package on "
            "every machine that runs the job."
        ) from error
    if not hasattr(module, name):
        own = [n for n, value in vars(module).items() if getattr(value, "__module__", "") == module_name]
        raise ConfigError(f"no {role} {reference!r}: {module_name} does not define it ({nearest(name, own)}).")
    return getattr(module, name)


def nearest(name: str, known: Collection[str]) -> str:
    """A suggestion for an unknown name: the most similar known name, or all known names."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(known) or 'none'}"


def _problem_text(error: BaseException, kind: Any) -> str:
    """Describe an invalid value; `transform_error` adds the location."""
    if isinstance(error, ForbiddenExtraKeysError):
        known = [field.name for field in fields(error.cl)]
        said = {key: MOVED_SETTINGS.get(key) or nearest(key, known) for key in sorted(error.extra_fields)}
        return ", ".join(f"unknown key {key!r} ({what})" for key, what in said.items())
    if isinstance(error, _KindError):
        return str(error)
    if choices := _choices(kind):
        value = re.split(" not in literal| is not a valid ", str(error))[0].strip("'")
        return f"{value!r} is not one of {', '.join(choices)}"
    return format_exception(error, kind)


def _choices(kind: Any) -> list[str]:
    """The values of a Literal or Enum, even if it is optional."""
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
