"""Folders that results go to are their own: nothing that a user keeps there is written over."""

from __future__ import annotations

import json
import re
from importlib.metadata import version

from mvpose.archive.commits import TEMPORARY_SUFFIX, create_once
from mvpose.archive.locations import filesystem, join, name
from mvpose.errors import ConfigError

_TEMPORARY = re.compile(rf".*{TEMPORARY_SUFFIX}")
_NAMED = 3


def require_output(uri: str, command: str, *marks: str) -> set[str]:
    """The names in an output folder; none where there is no such folder.

    ConfigError where it holds files and none of the `marks` that an earlier start of the command has left. Hidden
    files, and temporary files of a start that died at once, do not count.
    """
    fs, path = filesystem(uri)
    try:
        paths = [each for each in map(str, fs.ls(path, detail=False)) if each.rstrip("/") != path.rstrip("/")]
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise ConfigError(f"the output {uri} cannot be listed: {error.strerror or error}.") from error
    if not paths and not fs.isdir(path) and fs.exists(path):
        raise ConfigError(f"the output {uri} is a file: name a folder.")
    names = {n for n in map(name, paths) if not n.startswith(".") and not _TEMPORARY.fullmatch(n)}
    if names and not names & set(marks):
        raise not_own(uri, command, names)
    return names


def not_own(uri: str, command: str, names: set[str]) -> ConfigError:
    """The error of an output that is not the command's."""
    some = ", ".join(map(repr, sorted(names)[:_NAMED])) + (", ..." if len(names) > _NAMED else "")
    return ConfigError(
        f"{uri} is not an output of `{command}`, and there are files in it already ({some}). Results go into a folder "
        "of their own: name a new or an empty one."
    )


def claim_output(uri: str, command: str, mark: str, *others: str) -> None:
    """`require_output`, then leave the `mark`, so that the next start of the command knows the folder again."""
    require_output(uri, command, mark, *others)
    create_once(join(uri, mark), json.dumps({"made_by": command, "version": version("mvpose")}).encode())
