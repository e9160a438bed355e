"""Is a run what it says it is? Everything is read, nothing is repaired.

A run is sound when its clips tile every capture, every planned task of every kind has one commit, every commit names
a whole data file (SHA-256) of the plan's fingerprint whose rows are its own and unique, failures and results together
are the plan, and no file lies beside them that nobody speaks of.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from mvpose.archive.catalogue import Catalogue
from mvpose.archive.rig_table import figures_from_table
from mvpose.archive.run_folder import RunFolder, Settings, plan_digest
from mvpose.archive.store import ClipStore, Commit
from mvpose.archive.tables import table_info
from mvpose.errors import ConfigError, ResultsError
from mvpose.records import CapturePlan, Kind, Task

READERS = 8
"""Files read at a time: they wait for the storage, not for the processor."""

# What no two rows of a clip may share. The tables of whole captures are about no single frame.
ROW_KEYS = {
    Kind.KEYPOINTS: ["frame", "camera", "person"],
    Kind.TRACKS: ["frame", "track"],
    Kind.POSES: ["frame", "track"],
    Kind.FILTERED: ["frame", "track"],
}


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be: where, and what."""

    where: str
    what: str


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was looked at, and what was found."""

    captures: int = 0
    clips: int = 0
    failed_clips: int = 0
    commits: int = 0
    """Of all kinds, failures included."""
    rows: int = 0
    """Of poses."""
    findings: tuple[Finding, ...] = ()


def verify_run(uri: str) -> Verification:
    """Read a run from one end to the other; ResultsError if the folder is not a run."""
    run = RunFolder(uri)
    settings = run.settings()
    try:
        catalogue, plans = run.catalogue(), run.plans()
    except (ConfigError, ResultsError) as error:
        return Verification(findings=(Finding("plan", str(error)),))
    if "adjust_extrinsics" not in settings.values:
        return Verification(findings=(Finding("run.json", "lacks settings: it is damaged"),))
    findings = [*_planned(settings, catalogue, plans)]
    commits: dict[Kind, list[Commit]] = {}
    for kind in _kinds(settings):
        commits[kind], found = _kind(ClipStore(uri, kind), kind, plans)
        findings += found
    findings += _account(run, commits[Kind.POSES])
    findings += _figures(run, commits[Kind.QUALITY])
    return Verification(
        captures=len(catalogue.captures),
        clips=sum(len(plan.clips) for plan in plans),
        failed_clips=sum(commit.failure is not None for commit in commits[Kind.POSES]),
        commits=sum(map(len, commits.values())),
        rows=sum(commit.rows for commit in commits[Kind.POSES]),
        findings=tuple(findings),
    )


def _kinds(settings: Settings) -> list[Kind]:
    return [kind for kind in Kind if kind != Kind.RIGS or settings.values["adjust_extrinsics"]]


def _planned(settings: Settings, catalogue: Catalogue, plans: Sequence[CapturePlan]) -> Iterator[Finding]:
    """Clips tile every capture, and the plan is the one that run.json names."""
    if plan_digest(plans, catalogue.problems) != settings.plan_digest:
        yield Finding("plan.parquet", "is not the plan that run.json was begun with (its digest differs)")
    clips_of = {plan.capture.capture_id: plan.clips for plan in plans}
    for capture in catalogue.captures:
        clips = sorted(clips_of.get(capture.capture_id, ()))
        edges = [(0, 0), *((clip.start, clip.stop) for clip in clips), (capture.num_frames, capture.num_frames)]
        for (_, stop), (start, _) in pairwise(edges):
            if stop < start:
                yield Finding(capture.capture_id, f"no clip has the frames {stop} to {start}")
            if stop > start:
                yield Finding(capture.capture_id, f"the frames {start} to {stop} are in two clips, or beyond its end")


def _kind(store: ClipStore, kind: Kind, plans: Sequence[CapturePlan]) -> tuple[list[Commit], list[Finding]]:
    """The commits of one kind, and what is wrong with them or lies beside them."""
    commits: list[Commit] = []
    findings: list[Finding] = []
    with ThreadPoolExecutor(READERS) as pool:
        for plan in plans:
            for commit, found in pool.map(lambda task: _checked(store, kind, task), plan.tasks(kind)):
                commits += [commit] if commit else []
                findings += found
    planned = {f"{task.clip.clip_id}.{task.fingerprint}" for plan in plans for task in plan.tasks(kind)}
    strangers = [name for name in store.commit_names() if name not in planned]
    findings += [Finding(f"commits/{kind}/{name}.json", "commits a clip that is not in the plan") for name in strangers]
    named = {commit.file for commit in commits}
    findings += [Finding(file, "no commit names this file") for file in store.data_files() if file not in named]
    return commits, findings


def _checked(store: ClipStore, kind: Kind, task: Task) -> tuple[Commit | None, list[Finding]]:
    where = f"{kind} of {task.clip.clip_id}"
    commit = None
    try:
        commit = store.committed(task.clip, task.fingerprint)
        if commit is None:
            return None, [Finding(where, "has neither a result nor a failure")]
        if (commit.clip, commit.fingerprint) != (task.clip, task.fingerprint):
            said = f"says {commit.clip.clip_id}.{commit.fingerprint}, its name says otherwise"
            return commit, [Finding(where, f"its commit {said}")]
        if commit.failure:
            return commit, []
        table = store.read(commit)
    except ResultsError as error:
        return commit, [Finding(where, str(error))]
    return commit, [Finding(where, what) for what in _wrong_rows(kind, task, commit, table)]


def _wrong_rows(kind: Kind, task: Task, commit: Commit, table: pa.Table) -> Iterator[str]:
    if table.num_rows != commit.rows:
        yield f"has {table.num_rows} rows, its commit says {commit.rows}"
    if kind not in ROW_KEYS:
        return
    info, clip = table_info(table), task.clip
    if (info.capture_id, info.start, info.stop) != (clip.capture_id, clip.start, clip.stop):
        yield f"its file is about {info.capture_id}/{info.start}-{info.stop}"
    if info.fingerprint != task.fingerprint:
        yield f"its file has the fingerprint {info.fingerprint}, the plan {task.fingerprint}"
    frame = table["frame"].to_numpy()
    if outside := np.count_nonzero((frame < clip.start) | (frame >= clip.stop)):
        yield f"{outside} rows are of frames outside the clip"
    keys = table.select(ROW_KEYS[kind])
    if repeated := table.num_rows - keys.group_by(keys.column_names).aggregate([]).num_rows:
        yield f"{repeated} rows repeat the {', '.join(keys.column_names)} of another"


def _account(run: RunFolder, poses: Sequence[Commit]) -> Iterator[Finding]:
    """Failures and results together are the plan, and the summary says the same."""
    try:
        summary, rows = run.summary(), run.failures()
    except ResultsError as error:
        yield Finding("summary", str(error))
        return
    problems = run.catalogue().problems
    expected: Counter[tuple[object, ...]] = Counter(
        (c.clip.capture_id, c.clip.start, c.clip.stop, str(c.failure.reason)) for c in poses if c.failure
    )
    expected.update((p.capture_id, 0, 0, str(p.reason)) for p in problems)
    told: Counter[tuple[object, ...]] = Counter(
        (row["capture"], row["start"], row["stop"], row["reason"]) for row in rows
    )
    for capture_id, start, stop, reason in sorted(expected - told):
        yield Finding("failures", f"{capture_id}/{start}-{stop} failed ({reason}) and has no row")
    for capture_id, start, stop, reason in sorted(told - expected):
        yield Finding("failures", f"{capture_id}/{start}-{stop} has a row ({reason}) too many")
    if (summary.clips, len(summary.failures)) != (len(poses), expected.total()):
        counted = f"{len(poses)} clips and {expected.total()} failures"
        yield Finding("summary.json", f"says {summary.clips} clips and {len(summary.failures)} failures, not {counted}")


def _figures(run: RunFolder, quality: Sequence[Commit]) -> Iterator[Finding]:
    """The summary's figures of merit are those of the tables they were taken from."""
    store = ClipStore(run.uri, Kind.QUALITY)
    with contextlib.suppress(ResultsError):  # told already, with the file that is damaged
        told = run.summary().figures
        made = {c.clip.capture_id: figures_from_table(store.read(c)) for c in quality if not c.failure}
        for capture_id in sorted({*made, *told}):
            # As JSON: a figure that is NaN equals itself there.
            if json.dumps(made.get(capture_id), sort_keys=True) != json.dumps(told.get(capture_id), sort_keys=True):
                yield Finding("summary.json", f"the figures of {capture_id} are not those of its table in quality/")
