"""Files of a run folder that nobody speaks of: of workers that died, of plans that were given up."""

from __future__ import annotations

import os
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass

from mvpose.archive.locations import filesystem, is_remote, join, name
from mvpose.archive.store import Commit
from mvpose.records import CaptureTasks, Kind


@dataclass(frozen=True)
class Leftovers:
    """What lies in the folders of a capture and belongs to none of its tasks; all relative to the run folder."""

    commits: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    """Not looked into: other captures may have theirs below."""


def tidy(run_uri: str, plan: CaptureTasks, kind: Kind) -> bool:
    """Whether each task of a kind has a commit and one data file, and nothing lies beside them: by names alone.

    Where no task failed, these files are the committed ones: data stands before its commit, and stays.
    """
    tasks = plan.tasks(kind)
    data = sorted(file.partition(".")[0] for file in _names(run_uri, f"{kind}/{plan.capture_id}"))
    return data == sorted(task.name.partition(".")[0] for task in tasks) and _names(
        run_uri, f"commits/{kind}/{plan.capture_id}"
    ) == {f"{task.name}.json" for task in tasks}


def leftovers(run_uri: str, plan: CaptureTasks, kind: Kind, commits: Sequence[Commit]) -> Leftovers:
    """What lies beside the commits of a kind and their data, with one listing each."""
    capture_id, tasks = plan.capture_id, plan.tasks(kind)
    named, data = f"commits/{kind}/{capture_id}", f"{kind}/{capture_id}"
    commits_beside = _names(run_uri, named) - {f"{task.name}.json" for task in tasks}
    data_beside = _names(run_uri, data) - {name(commit.file) for commit in commits if commit.file}
    strange = [f"{named}/{other}" for other in sorted(commits_beside)]
    unnamed = [f"{data}/{other}" for other in sorted(data_beside)]
    folders = {path for path in (*strange, *unnamed) if _is_folder(run_uri, path)}
    return Leftovers(
        commits=tuple(path for path in strange if path.endswith(".json") and path not in folders),
        data=tuple(path for path in unnamed if path not in folders),
        folders=tuple(folders),
    )


def strangers(run_uri: str, kind: Kind, planned: Container[str], below: Sequence[str]) -> Leftovers:
    """What lies in folders of a kind that are of no planned capture; `below` are folders in those of planned ones."""
    found: list[str] = []
    for root in (f"commits/{kind}", kind):
        nested = [f for f in below if f.startswith(f"{root}/") and f[len(root) + 1 :] not in planned]
        for folder in (root, *nested):
            found += _files_of_none(run_uri, folder, root, planned)
    return Leftovers(
        commits=tuple(path for path in found if path.startswith("commits/") and path.endswith(".json")),
        data=tuple(path for path in found if not path.startswith("commits/")),
    )


def _files_of_none(run_uri: str, folder: str, root: str, planned: Container[str]) -> Iterator[str]:
    for other in sorted(_names(run_uri, folder)):
        path = f"{folder}/{other}"
        if path[len(root) + 1 :] in planned:
            continue
        if _is_folder(run_uri, path):
            yield from _files_of_none(run_uri, path, root, planned)
        else:
            yield path


def _names(run_uri: str, folder: str) -> set[str]:
    """Of what stands in a folder, by one listing without a look at each."""
    fs, path = filesystem(join(run_uri, folder))
    try:
        if not is_remote(run_uri):
            return set(os.listdir(path))
        # Some tools put an empty object at the folder's own key.
        return {name(each) for each in map(str, fs.ls(path, detail=False)) if each.rstrip("/") != path.rstrip("/")}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _is_folder(run_uri: str, path: str) -> bool:
    fs, there = filesystem(join(run_uri, path))
    return fs.isdir(there)
