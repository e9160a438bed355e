"""Find files of a run folder that belong to no result: from replaced plans, from workers that died, from the user.

Files of mvpose are recognised by their names and commits: a data file is mvpose's if a commit names it and its content
is the committed one. Data without a commit may be a copy made by the user (and a table of one stage is often identical
to one of another), so it is listed and never removed, like all other files. Hidden files are not even listed.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mvpose.records import CaptureTasks, Kind
from mvpose.run.store import TEMPORARY, ClipStore, Commit, is_attempt
from mvpose.storage.commits import remove_file
from mvpose.storage.locations import filesystem, is_remote, join, name


@dataclass(frozen=True)
class Unreferenced:
    """Files in a capture's folders other than the results of its tasks; paths relative to the run folder."""

    commits: tuple[str, ...] = ()
    """Commits of mvpose that belong to no task."""
    data: tuple[str, ...] = ()
    """Data files named by these commits, and temporary files of mvpose."""
    unknown: tuple[str, ...] = ()
    """Files named by no commit of mvpose."""
    folders: tuple[str, ...] = ()
    """Folders, not searched: other captures may have theirs below."""


def is_tidy(run_uri: str, plan: CaptureTasks, kind: Kind) -> bool:
    """Whether each task of a kind has a commit and one data file, and no other file exists, judged only by names.

    If no task failed, these files are the committed ones, since data is written before its commit and stays.
    """
    tasks = plan.tasks(kind)
    data = sorted(file.partition(".")[0] for file in _names(run_uri, f"{kind}/{plan.capture_id}"))
    return data == sorted(task.name.partition(".")[0] for task in tasks) and _names(
        run_uri, f"commits/{kind}/{plan.capture_id}"
    ) == {f"{task.name}.json" for task in tasks}


def unreferenced_files(run_uri: str, plan: CaptureTasks, kind: Kind, commits: Sequence[Commit]) -> Unreferenced:
    """Files other than the commits of a kind and their data, from one listing each."""
    store, capture_id, tasks = ClipStore(run_uri, kind), plan.capture_id, plan.tasks(kind)
    names = _names(run_uri, f"commits/{kind}/{capture_id}") - {f"{task.name}.json" for task in tasks}
    data_names = _names(run_uri, f"{kind}/{capture_id}") - {name(commit.file) for commit in commits if commit.file}
    commit_paths = [f"{capture_id}/{other}" for other in sorted(names)]
    data_paths = [f"{capture_id}/{other}" for other in sorted(data_names)]
    own = {f"commits/{kind}/{path}": commit for path in commit_paths if (commit := store.commit_at(path))}
    data = [f"commits/{kind}/{path}" for path in commit_paths if TEMPORARY.fullmatch(path)]
    data += _own_data(store, data_paths, own.values())
    found = [*(f"commits/{kind}/{path}" for path in commit_paths), *(f"{kind}/{path}" for path in data_paths)]
    known = {*own, *data}
    others = [path for path in found if path not in known]
    folders = {path for path in others if _is_folder(run_uri, path)}
    return Unreferenced(
        commits=tuple(own),
        data=tuple(data),
        unknown=tuple(path for path in others if path not in folders),
        folders=tuple(path for path in others if path in folders),
    )


def unplanned_files(run_uri: str, kind: Kind, planned: Container[str], below: Sequence[str]) -> Unreferenced:
    """Files in a kind's folders of no planned capture; `below` are folders inside those of planned captures."""
    store, commits = ClipStore(run_uri, kind), dict[str, Commit]()
    data: list[str] = []
    unknown: list[str] = []
    for path in _files_of_none(run_uri, f"commits/{kind}", planned, below):
        inside = path.removeprefix(f"commits/{kind}/")
        if TEMPORARY.fullmatch(inside):
            data.append(path)
        elif commit := store.commit_at(inside):
            commits[path] = commit
        else:
            unknown.append(path)
    below_kind = [path.removeprefix(f"{kind}/") for path in _files_of_none(run_uri, str(kind), planned, below)]
    own = _own_data(store, below_kind, commits.values())
    unknown += sorted({f"{kind}/{path}" for path in below_kind} - {*own})
    return Unreferenced(commits=tuple(commits), data=(*data, *own), unknown=tuple(unknown))


def _own_data(store: ClipStore, paths: Iterable[str], commits: Iterable[Commit]) -> list[str]:
    """Files below a kind's folder that one of these commits names, and temporary files."""
    named = {commit.file for commit in commits}
    return [
        f"{store.kind}/{path}"
        for path in paths
        if TEMPORARY.fullmatch(path) or (f"{store.kind}/{path}" in named and store.is_data(path))
    ]


def remove_attempts(run_uri: str) -> list[str]:
    """Remove the attempts of a run and their folders once empty; returns all other files, which are kept."""
    root = join(run_uri, "attempts")
    fs, path = filesystem(root)
    if is_remote(run_uri):
        listed: Any = fs.find(path, detail=True)
        found = {key[len(path) + 1 :]: entry["size"] for key, entry in listed.items()}
        own = {key for key, size in found.items() if is_attempt(key, size)}
        if own:
            fs.rm([f"{path}/{key}" for key in own])
        return [f"attempts/{key}" for key in found if key not in own and not _is_hidden(key)]
    unknown: list[str] = []
    for folder, _, files in os.walk(path, topdown=False):
        inside = os.path.relpath(folder, path)
        own = {f for f in files if is_attempt(f"{inside}/{f}", _size(os.path.join(folder, f)))}
        for file in own:
            remove_file(join(root, inside, file))
        unknown += [os.path.normpath(f"attempts/{inside}/{file}") for file in files if file not in own]
        with suppress(OSError):  # another driver writes there, or the user
            os.rmdir(folder)
    return sorted(path for path in unknown if not _is_hidden(path))


def _size(path: str) -> int:
    """Size in bytes; 0 if another driver has removed the file."""
    with suppress(FileNotFoundError):
        return os.lstat(path).st_size
    return 0


def _files_of_none(run_uri: str, root: str, planned: Container[str], below: Sequence[str]) -> Iterator[str]:
    """Files below `root` in folders of no planned capture."""
    nested = [f for f in below if f.startswith(f"{root}/") and f[len(root) + 1 :] not in planned]
    for folder in (root, *nested):
        yield from _files_in(run_uri, folder, root, planned)


def _files_in(run_uri: str, folder: str, root: str, planned: Container[str]) -> Iterator[str]:
    for other in sorted(_names(run_uri, folder)):
        path = f"{folder}/{other}"
        if path[len(root) + 1 :] in planned:
            continue
        if _is_folder(run_uri, path):
            yield from _files_in(run_uri, path, root, planned)
        else:
            yield path


def _names(run_uri: str, folder: str) -> set[str]:
    """Names in a folder except hidden ones, from one listing without looking at each."""
    fs, path = filesystem(_location(run_uri, folder))
    try:
        if not is_remote(run_uri):
            return {each for each in os.listdir(path) if not _is_hidden(each)}
        # Some tools store an empty object under the folder's own key.
        paths = [each for each in map(str, fs.ls(path, detail=False)) if each.rstrip("/") != path.rstrip("/")]
        return {name(each) for each in paths if not _is_hidden(name(each))}
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return set()


def _location(run_uri: str, path: str) -> str:
    """Location of a listed path, which may contain any name chosen by the user."""
    return f"{run_uri.rstrip('/')}/{path}"


def _is_hidden(path: str) -> bool:
    return name(path).startswith(".")


def _is_folder(run_uri: str, path: str) -> bool:
    """Whether the path is a folder. A link to one does not count, since its content is elsewhere."""
    fs, there = filesystem(_location(run_uri, path))
    return fs.isdir(there) and (is_remote(run_uri) or not os.path.islink(there))
