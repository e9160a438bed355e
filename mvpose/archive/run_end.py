"""How a run ends: failures and figures gathered, leftovers of mvpose removed, the summary written.

All of it some captures at a time; only what the summary tells is held.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import partial
from itertools import islice
from typing import TypeVar

import pyarrow as pa

from mvpose.archive.catalogue_table import Problem
from mvpose.archive.commits import remove_file, write_whole, write_whole_file
from mvpose.archive.failure_table import failure_table
from mvpose.archive.figure_table import FigureTable, figure_rows, figure_writer
from mvpose.archive.leftovers import Leftovers, leftovers, remove_attempts, strangers, tidy
from mvpose.archive.locations import join
from mvpose.archive.plan_table import taken_over
from mvpose.archive.planned import Planned
from mvpose.archive.run_folder import RunFolder
from mvpose.archive.run_summary import Summary
from mvpose.archive.store import ClipStore, Commit, parquet_bytes
from mvpose.records import CaptureTasks, Clip, ClipFailure, Kind

READERS = 16
"""Captures looked at at a time: their commits wait for the storage."""
CAPTURES_AT_ONCE = 256
NAMED = 5
"""Unknown files whose names are in the note on them."""

T = TypeVar("T")


@dataclass(frozen=True)
class _Ended:
    """What came of one capture."""

    capture_id: str
    clips: int
    failures: tuple[ClipFailure, ...]
    notes: tuple[str, ...]
    figures: pa.Table | None
    folders: tuple[str, ...]
    """Folders in those of the capture: of others, or of nobody."""
    unknown: tuple[str, ...]
    """Files in the folders of the capture that mvpose did not write."""


def end_run(run: RunFolder, planned: Planned, seconds: Mapping[str, float]) -> Summary:
    """Gather failures and figures, remove leftovers of mvpose, write the summary.

    What mvpose did not write stays and is a note. ResultsError if another start has replanned the folder meanwhile: the
    results of that one are no leftovers.
    """
    _require_own(run, planned)
    failures = [_unplanned(problem) for problem in planned.problems]
    notes, clips, ids, folders, unknown = list(planned.notes), 0, set[str](), list[str](), list[str]()
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        with figure_writer(file.name) as figures:
            for some in _in_parallel(partial(_ended, run.uri), planned.tasks()):
                for each in some:
                    ids.add(each.capture_id)
                    clips += each.clips
                    failures += each.failures
                    notes += each.notes
                    folders += each.folders
                    unknown += each.unknown
                figures.write_table(figure_rows([each.figures for each in some if each.figures is not None]))
                _require_own(run, planned)
        write_whole_file(run.figures_uri, file.name)
    write_whole(join(run.uri, "failures", "failures.parquet"), parquet_bytes(failure_table(failures)))
    for kind in Kind:
        others = strangers(run.uri, kind, ids, folders)
        _remove(run.uri, others)
        unknown += others.unknown
    unknown += remove_attempts(run.uri)
    summary = Summary(
        captures=planned.totals.captures,
        clips=clips,
        frames=planned.totals.frames,
        failures=tuple(failures),
        figures=FigureTable(run.figures_uri),
        notes=(*notes, *unknown_files(run.uri, unknown)),
        plan_digest=planned.totals.digest,
    )
    write_whole(join(run.uri, "summary.json"), _json(_told(summary)))
    write_whole(join(run.uri, "performance.json"), _json(dict(seconds)))
    return summary


def unknown_files(run_uri: str, paths: Sequence[str]) -> Iterator[str]:
    """One line about files that no commit of mvpose names; none where there are none."""
    if paths:
        some = ", ".join(map(repr, paths[:NAMED])) + (", ..." if len(paths) > NAMED else "")
        yield f"{len(paths)} files in {run_uri} belong to no result of mvpose and were left alone: {some}"


def withdraw_failures(run: RunFolder, plans: Iterable[CaptureTasks]) -> int:
    """Make what failed undone again, and all that was made without it; the number of captures concerned.

    2D joints that were found are kept: they depend on no other clip. Of the later kinds nothing is, since who is
    who in a capture, and its adjusted rig, were decided without the clips that failed. The summary and the last kinds
    go first, so that after a crash in here the failures that are left are found again.
    """
    return sum(sum(some) for some in _in_parallel(partial(_withdrawn, run.uri), plans))


def _withdrawn(run_uri: str, plan: CaptureTasks) -> bool:
    commits = {kind: _commits(run_uri, plan, kind) for kind in Kind}
    if not any(commit.failure for of_kind in commits.values() for commit in of_kind):
        return False
    remove_file(join(run_uri, "summary.json"))
    for kind in reversed(Kind):
        for commit in commits[kind]:
            if commit.failure or kind != Kind.KEYPOINTS:
                ClipStore(run_uri, kind).withdraw(commit)
    return True


def _in_parallel(work: Callable[[CaptureTasks], T], plans: Iterable[CaptureTasks]) -> Iterator[list[T]]:
    """The results of some captures after the other, in order."""
    upcoming = iter(plans)
    with ThreadPoolExecutor(READERS) as pool:
        while some := list(islice(upcoming, CAPTURES_AT_ONCE)):
            yield list(pool.map(work, some))


def _ended(run_uri: str, plan: CaptureTasks) -> _Ended:
    """What came of a capture; leftovers of mvpose beside its results are removed."""
    commits = {kind: _commits(run_uri, plan, kind) for kind in Kind if kind not in (Kind.KEYPOINTS, Kind.TRACKS)}
    poses = commits[Kind.POSES]
    # A clip that failed before has no poses either: where all have, two of three commits need not be read.
    whole = len(poses) == len(plan.clips) and not any(commit.failure for commit in poses)
    folders: list[str] = []
    unknown: list[str] = []
    for kind in Kind:
        if whole and kind not in commits and tidy(run_uri, plan, kind):
            continue
        found = leftovers(run_uri, plan, kind, commits.get(kind) or _commits(run_uri, plan, kind))
        folders += found.folders
        unknown += found.unknown
        _remove(run_uri, found)
    made = [commit for commit in commits[Kind.QUALITY] if not commit.failure]
    return _Ended(
        plan.capture_id,
        clips=len(poses),
        failures=tuple(commit.failure for commit in poses if commit.failure),
        notes=(*_nobody(plan, poses), *_unfiltered(commits[Kind.FILTERED])),
        figures=ClipStore(run_uri, Kind.QUALITY).read(made[0]) if made else None,
        folders=tuple(folders),
        unknown=tuple(unknown),
    )


def _remove(run_uri: str, found: Leftovers) -> None:
    """Commits go first: one whose data is gone would keep its clip from ever being made again."""
    for path in (*found.commits, *found.data):
        remove_file(join(run_uri, path))


def _commits(run_uri: str, plan: CaptureTasks, kind: Kind) -> list[Commit]:
    store = ClipStore(run_uri, kind)
    return [c for task in plan.tasks(kind) if (c := store.committed(task.clip, task.fingerprint))]


def _require_own(run: RunFolder, planned: Planned) -> None:
    if run.settings().plan_digest != planned.totals.digest:
        raise taken_over(run.uri)


def _unfiltered(commits: list[Commit]) -> Iterator[str]:
    """The raw poses are there all the same: filters that cannot be run are told, and are no failures."""
    for failure in (commit.failure for commit in commits):
        if failure and failure.stage == Kind.FILTERED:
            yield f"{failure.clip.capture_id}: no filtered poses: {failure.detail}"


def _nobody(plan: CaptureTasks, poses: list[Commit]) -> Iterator[str]:
    """A capture without people is complete, and its tables are empty: it is to be known, and is no failure."""
    if not any(commit.rows or commit.failure for commit in poses):
        yield (
            f"{plan.capture_id}: nobody is in its poses: no two cameras show a person at the same time. If somebody is "
            "there, look at the 2D joints, or lower --reconstruction.min-confidence"
        )


def _unplanned(problem: Problem) -> ClipFailure:
    return ClipFailure(Clip(problem.capture_id, 0, 0), "catalogue", problem.reason, problem.detail)


def _told(summary: Summary) -> dict[str, object]:
    """All but the figures, which have a table of their own."""
    return {field.name: getattr(summary, field.name) for field in fields(summary) if field.name != "figures"}


def _json(record: dict) -> bytes:
    return json.dumps(record, indent=1, sort_keys=True, default=vars).encode()
