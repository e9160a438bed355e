"""Parse arguments into a verb's dataclass: named runs, kinds of settings, and short and full `--help`."""

from __future__ import annotations

import os
import re
import shutil
import textwrap
import warnings
from collections.abc import Collection, Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from itertools import zip_longest
from typing import Any, TypeVar, get_args, get_type_hints

import tyro

from mvpose.config import MAX_TOML_BYTES, MOVED_SETTINGS, other_kind, read_toml, structure, tagged_union, with_kind
from mvpose.errors import ConfigError
from mvpose.storage.locations import absolute, exists, is_remote, parent, read_text

T = TypeVar("T")

# Only the settings of a union's chosen member are flags.
CONFIG = (tyro.conf.AvoidSubcommands,)
WIDEST_LINE = 120
"""Of a short help; a longer list of choices is wrapped."""


def parsed(verb: str, command: Any, arguments: list[str], common: Collection[str]) -> Any:
    """Parse the arguments of a verb into its dataclass; `--config FILE.toml` sets the defaults of the other flags.

    `--help` shows the flags in `common`, or all if it is empty; `--help-all` shows all. ConfigError for a setting that
    belongs to a kind other than the chosen one.
    """
    arguments = [part for a in arguments for part in (a.split("=", 1) if a.startswith("--config=") else [a])]
    _refuse_moved(arguments)
    verb, command, arguments = subcommand(verb, command, arguments)
    default, arguments = _defaults(command, arguments)
    if default is not None:
        default = _with_kinds(default, arguments)
    prog = f"mvpose {verb}"
    if common and default is not None and {"-h", "--help"} & set(arguments):
        print(short_help(prog, default, common))
        raise SystemExit(0)
    arguments = ["--help" if a == "--help-all" else a for a in arguments]
    if default is None:
        return tyro.cli(command, args=arguments, prog=prog)
    return tyro.cli(command, args=arguments, default=default, prog=prog, config=CONFIG)


def _refuse_moved(arguments: Sequence[str]) -> None:
    for flag in (a.partition("=")[0] for a in arguments if a.startswith("--")):
        if moved := MOVED_SETTINGS.get(flag.lstrip("-").rpartition(".")[2].replace("-", "_")):
            raise ConfigError(f"unknown flag {flag}: {moved}")


def subcommand(verb: str, command: Any, arguments: list[str]) -> tuple[str, Any, list[str]]:
    """Verb, dataclass and remaining arguments after the action named by the first argument, if the verb has actions."""
    for option in get_args(command):
        chosen, choice = get_args(option)
        if arguments[:1] == [choice.name]:
            return f"{verb} {choice.name}", chosen, arguments[1:]
    return verb, command, arguments


def _defaults(command: Any, arguments: list[str]) -> tuple[Any, list[str]]:
    """A command from the TOML file after `--config`, or with its defaults; and the arguments without the file."""
    if "--config" not in arguments:
        own = getattr(command, "__dataclass_fields__", {}).values()
        is_complete = own and all(f.default is not MISSING or f.default_factory is not MISSING for f in own)
        return (command() if is_complete else None), arguments
    at = arguments.index("--config")
    if at + 1 == len(arguments):
        raise ConfigError("--config needs a TOML file.")
    uri = arguments[at + 1]
    if not exists(uri):
        raise ConfigError(f"--config {uri}: there is no such file.")
    return named_run(uri, command), arguments[:at] + arguments[at + 2 :]


def named_run(uri: str, command: type[T]) -> T:
    """A command from a TOML file and the files it extends; ConfigError as for `load_toml`, and for a circular chain."""
    return structure(_with_extended(uri, ()), command, uri)


def _with_extended(uri: str, below: tuple[str, ...]) -> dict[str, Any]:
    """A file's values merged over those of the file named by its key `extends`, relative to its folder."""
    if absolute(uri) in below:
        raise ConfigError(f"{uri} extends itself: {' extends '.join((*below, absolute(uri)))}")
    if below and not exists(uri):
        raise ConfigError(f"{below[-1]} extends {uri}: there is no such file.")
    values = read_toml(uri, read_text(uri, MAX_TOML_BYTES))
    extended = values.pop("extends", None)
    if extended is None:
        return values
    if not isinstance(extended, str):
        raise ConfigError(f"{uri}: extends must be the name of a file, not {extended!r}.")
    location = extended if is_remote(extended) else os.path.join(parent(uri), extended)
    return _over(_with_extended(location, (*below, absolute(uri))), values)


def _over(values: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """Merge tables key by key; replace anything else, including lists."""
    tables = {
        key: _over(values[key], value)
        for key, value in others.items()
        if isinstance(value, dict) and isinstance(values.get(key), dict)
    }
    return values | others | tables


def _with_kinds(config: Any, arguments: Sequence[str], prefix: str = "") -> Any:
    """The config with the union kinds selected by flags; ConfigError for a flag of another kind."""
    hints = get_type_hints(type(config))
    for name in (f.name for f in fields(config)):
        value, path = getattr(config, name), f"{prefix}{name}"
        if not is_dataclass(value):
            continue
        if union := tagged_union(hints[name]):
            flag = f"{path}.{union.tag}"
            if (kind := _given(arguments, flag)) is not None:
                if kind not in union.members:
                    raise ConfigError(f"--{_dashed(flag)}: {kind!r} is not one of {', '.join(union.members)}")
                value = with_kind(value, hints[name], kind)
            for key in {key for member in union.members.values() for key in member.__dataclass_fields__}:
                if key not in type(value).__dataclass_fields__ and _is_given(arguments, f"{path}.{key}"):
                    tag, kind = f"--{_dashed(flag)}", getattr(value, union.tag)
                    raise ConfigError(other_kind(f"--{_dashed(path)}.{_dashed(key)}", tag, union.kinds_with(key), kind))
        config = replace(config, **{name: _with_kinds(value, arguments, f"{path}.")})
    return config


def _given(arguments: Sequence[str], name: str) -> str | None:
    """The value of a flag, by its dotted name; the last occurrence wins."""
    found = None
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        flag, equals, value = argument.partition("=")
        if flag.startswith("--") and flag[2:].replace("-", "_") == name:
            found = value if equals else following
    return found


def _is_given(arguments: Sequence[str], name: str) -> bool:
    """Whether a flag sets a setting or one nested in it."""
    pattern = re.compile(rf"--{re.escape(name).replace('_', '[_-]')}(?:$|[.=])")
    return any(map(pattern.match, arguments))


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def flags_of(prog: str, default: Any) -> list[Any]:
    """The flags of a command as argparse actions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        parser = tyro.extras.get_parser(type(default), default=default, prog=prog, config=CONFIG)
    return [action for action in parser._actions if "--help" not in action.option_strings]


def short_help(prog: str, default: Any, common: Collection[str]) -> str:
    """Help on the most common flags, one paragraph each, with a pointer to the full help."""
    width = shutil.get_terminal_size((80, 24)).columns
    flags = flags_of(prog, default)
    kinds = {f"--{_dashed(path)}": union for path, union in _unions(default)}
    shown = [a for a in flags if not a.option_strings or set(a.option_strings) & set(common)]
    places = " ".join(f"[{a.dest.upper()}]" for a in shown if not a.option_strings)
    lines = [f"usage: {prog} {places} [--config FILE.toml] [flags]".replace("  ", " "), ""]
    lines += [*textwrap.wrap(" ".join((type(default).__doc__ or "").split()), width), ""]
    for action in shown:
        names = ", ".join(action.option_strings) or action.dest.upper()
        value = f"{{{','.join(kinds[names])}}}" if names in kinds else action.metavar if action.option_strings else ""
        line = f"  {names} {value or ''}".rstrip()
        fits = len(line) <= WIDEST_LINE
        lines += [line] if fits else textwrap.wrap(line.replace(",", ", "), WIDEST_LINE, subsequent_indent=" " * 6)
        lines += textwrap.wrap(" ".join(action.help.split()), width, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join([*lines, "", f"{len(flags) - len(shown)} more flags: {prog} --help-all"])


def _unions(config: Any, prefix: str = "") -> list[tuple[str, list[str]]]:
    """Dotted names of the union tags in a config, with their kinds."""
    found: list[tuple[str, list[str]]] = []
    hints = get_type_hints(type(config))
    for name in (f.name for f in fields(config)):
        if is_dataclass(value := getattr(config, name)):
            if union := tagged_union(hints[name]):
                found.append((f"{prefix}{name}.{union.tag}", list(union.members)))
            found += _unions(value, f"{prefix}{name}.")
    return found
