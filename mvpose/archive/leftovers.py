"""Files of a run folder that belong to no result: of plans that were replaced, of workers that died, of the user.

What mvpose wrote is known by its own names and its commits: a data file is mvpose's where a commit names it and its
content is the one that was committed. Data without a commit may be a copy that the user made (a table of one stage is
often a table of another, too), so it is listed and never removed, as everything else. Hidden files are not even listed.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from mvpose.archive.commits import remove_file
from mvpose.archive.locations import filesystem, is_remote, join, name
from mvpose.archive.store import TEMPORARY, ClipStore, Commit, is_attempt
from mvpose.records import CaptureTasks, Kind


@dataclass(frozen=True)
class Leftovers:
    """What the folders of a capture hold beside the results of its tasks; paths relative to the run folder."""

    commits: tuple[str, ...] = ()
    """Of mvpose, and of no task."""
    data: tuple[str, ...] = ()
    """What these commits name, and temporary files of mvpose."""
    unknown: tuple[str, ...] = ()
    """Named by no commit of mvpose."""
    folders: tuple[str, ...] = ()
    """Not looked into: other captures may have theirs below."""


def tidy(run_uri: str, plan: CaptureTasks, kind: Kind) -> bool:
    """Whether each task of a kind has a commit and one data file, and there is nothing beside them: by names alone.

    Where no task failed, these files are the committed ones: data is written before its commit, and stays.
    """
    tasks = plan.tasks(kind)
    data = sorted(file.partition(".")[0] for file in _names(run_uri, f"{kind}/{plan.capture_id}"))
    return data == sorted(task.name.partition(".")[0] for task in tasks) and _names(
        run_uri, f"commits/{kind}/{plan.capture_id}"
    ) == {f"{task.name}.json" for task in tasks}


def leftovers(run_uri: str, plan: CaptureTasks, kind: Kind, commits: Sequence[Commit]) -> Leftovers:
    """What there is beside the commits of a kind and their data, with one listing each."""
    store, capture_id, tasks = ClipStore(run_uri, kind), plan.capture_id, plan.tasks(kind)
    names = _names(run_uri, f"commits/{kind}/{capture_id}") - {f"{task.name}.json" for task in tasks}
    data_names = _names(run_uri, f"{kind}/{capture_id}") - {name(commit.file) for commit in commits if commit.file}
    commit_paths = [f"{capture_id}/{other}" for other in sorted(names)]
    data_paths = [f"{capture_id}/{other}" for other in sorted(data_names)]
    own = {f"commits/{kind}/{path}": commit for path in commit_paths if (commit := store.commit_at(path))}
    data = [f"commits/{kind}/{path}" for path in commit_paths if TEMPORARY.fullmatch(path)]
    data += _own_data(store, data_paths, own.values())
    beside = [*(f"commits/{kind}/{path}" for path in commit_paths), *(f"{kind}/{path}" for path in data_paths)]
    known = {*own, *data}
    others = [path for path in beside if path not in known]
    folders = {path for path in others if _is_folder(run_uri, path)}
    return Leftovers(
        commits=tuple(own),
        data=tuple(data),
        unknown=tuple(path for path in others if path not in folders),
        folders=tuple(path for path in others if path in folders),
    )


def strangers(run_uri: str, kind: Kind, planned: Container[str], below: Sequence[str]) -> Leftovers:
    """What there is in folders of a kind of no planned capture; `below` are folders in those of planned ones."""
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
    return Leftovers(commits=tuple(commits), data=(*data, *own), unknown=tuple(unknown))


def _own_data(store: ClipStore, paths: Iterable[str], commits: Iterable[Commit]) -> list[str]:
    """Of files below the folder of a kind those that one of these commits names, and temporary files."""
    named = {commit.file for commit in commits}
    return [
        f"{store.kind}/{path}"
        for path in paths
        if TEMPORARY.fullmatch(path) or (f"{store.kind}/{path}" in named and store.is_data(path))
    ]


def remove_attempts(run_uri: str) -> list[str]:
    """Remove the attempts of a run, and their folders as they become empty; what else is there, which stays."""
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
    """In bytes; 0 where another driver has removed it."""
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
    """Of what there is in a folder, without hidden files, by one listing without a look at each."""
    fs, path = filesystem(_location(run_uri, folder))
    try:
        if not is_remote(run_uri):
            return {each for each in os.listdir(path) if not _is_hidden(each)}
        # Some tools put an empty object at the folder's own key.
        paths = [each for each in map(str, fs.ls(path, detail=False)) if each.rstrip("/") != path.rstrip("/")]
        return {name(each) for each in paths if not _is_hidden(name(each))}
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return set()


def _location(run_uri: str, path: str) -> str:
    """Of what a listing named: the user's names may be any."""
    return f"{run_uri.rstrip('/')}/{path}"


def _is_hidden(path: str) -> bool:
    return name(path).startswith(".")


def _is_folder(run_uri: str, path: str) -> bool:
    """Whether there is a folder; a link to one is not: what is behind it is elsewhere."""
    fs, there = filesystem(_location(run_uri, path))
    return fs.isdir(there) and (is_remote(run_uri) or not os.path.islink(there))
