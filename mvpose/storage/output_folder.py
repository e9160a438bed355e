"""Protect output folders: results go to their own folder, and files of the user are never overwritten."""

from __future__ import annotations

import json
import re
from importlib.metadata import version

from mvpose.errors import ConfigError
from mvpose.storage.commits import TEMPORARY_SUFFIX, create_once
from mvpose.storage.locations import filesystem, join, name

_TEMPORARY = re.compile(rf".*{TEMPORARY_SUFFIX}")
_NAMED = 3


def require_output(uri: str, command: str, *marks: str) -> set[str]:
    """The names in an output folder; empty if it does not exist.

    Raises ConfigError if it contains files but none of the `marks` that an earlier start of the command leaves. Hidden
    files, and temporary files of a start that died immediately, are ignored.
    """
    fs, path = filesystem(uri)
    try:
        paths = [each for each in map(str, fs.ls(path, detail=False)) if each.rstrip("/") != path.rstrip("/")]
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise ConfigError(f"the output {uri} cannot be listed: {error.strerror or error}.") from error
    if not paths and not fs.isdir(path) and fs.exists(path):
        raise ConfigError(f"the output {uri} is a file, not a folder.")
    names = {n for n in map(name, paths) if not n.startswith(".") and not _TEMPORARY.fullmatch(n)}
    if names and not names & set(marks):
        raise foreign_output(uri, command, names)
    return names


def foreign_output(uri: str, command: str, names: set[str]) -> ConfigError:
    """The error for an output folder that does not belong to the command."""
    some = ", ".join(map(repr, sorted(names)[:_NAMED])) + (", ..." if len(names) > _NAMED else "")
    return ConfigError(
        f"{uri} is not an output of `{command}`, but it already contains files ({some}). Results need their own "
        "folder: give a new or an empty one."
    )


def claim_output(uri: str, command: str, mark: str, *others: str) -> None:
    """`require_output`, then create the `mark` by which the next start of the command recognises the folder."""
    require_output(uri, command, mark, *others)
    create_once(join(uri, mark), json.dumps({"made_by": command, "version": version("mvpose")}).encode())
