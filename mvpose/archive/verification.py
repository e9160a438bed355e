"""Is a run what it says it is? Everything is read, nothing is repaired.

A run is sound when its clips tile every capture, every planned task of every kind has one commit, every commit names
a whole data file (SHA-256) of the plan's fingerprint whose rows are its own and unique, failures and results together
are the plan, and no file of mvpose is beside them that belongs to no result. Files of the user are notes, not findings.
A run that has not come to its end is one finding, and what it has so far is checked all the same.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, pairwise

import numpy as np
import pyarrow as pa

from mvpose.archive.catalogue_table import Problem, read_captures
from mvpose.archive.figure_table import FigureTable
from mvpose.archive.leftovers import Leftovers, leftovers, strangers
from mvpose.archive.locations import join
from mvpose.archive.plan_table import plan_digest
from mvpose.archive.rig_table import figures_from_table
from mvpose.archive.run_end import unknown_files
from mvpose.archive.run_folder import RunFolder, Settings
from mvpose.archive.store import ClipStore, Commit
from mvpose.archive.tables import table_info
from mvpose.config import digest
from mvpose.errors import ConfigError, ResultsError
from mvpose.records import Capture, CaptureTasks, Clip, Kind, Task

READERS = 8
"""Captures looked at at a time: their files wait for the storage, not for the processor."""
CAPTURES_AT_ONCE = 64

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
    notes: tuple[str, ...] = ()
    """What is there that mvpose did not write."""


@dataclass
class _Seen:
    """What was seen of one capture, or of all."""

    commits: int = 0
    clips: int = 0
    rows: int = 0
    failed: Counter[tuple[object, ...]] = field(default_factory=Counter)
    """Clips without poses: capture, start, stop, reason."""
    figures: dict[str, str] = field(default_factory=dict)
    """Digest of the figures of merit by capture, of the table in `quality/`."""
    captures: set[str] = field(default_factory=set)
    folders: list[str] = field(default_factory=list)
    """In folders of captures: not looked into."""
    findings: list[Finding] = field(default_factory=list)
    open: list[Finding] = field(default_factory=list)
    """Tasks without a commit, and leftovers: the end of a run makes and removes them."""
    unknown: list[str] = field(default_factory=list)

    def add(self, other: _Seen) -> None:
        """What was seen of another capture."""
        self.commits, self.clips, self.rows = (
            self.commits + other.commits, self.clips + other.clips, self.rows + other.rows
        )  # fmt: skip
        self.failed += other.failed
        self.figures |= other.figures
        self.captures |= other.captures
        self.folders += other.folders
        self.findings += other.findings
        self.open += other.open
        self.unknown += other.unknown


def verify_run(uri: str) -> Verification:
    """Read a run from one end to the other, some captures at a time; ResultsError if the folder is not a run."""
    run = RunFolder(uri)
    settings = run.settings()
    try:
        captures, problems, findings = _planned(run, settings)
    except (ConfigError, ResultsError) as error:
        return Verification(findings=(Finding("plan", str(error)),))
    if "adjust_extrinsics" not in settings.values:
        return Verification(findings=(Finding("run.json", "lacks settings: it is damaged"),))
    kinds = [kind for kind in Kind if kind != Kind.RIGS or settings.values["adjust_extrinsics"]]
    seen, upcoming = _Seen(), run.tasks()
    with ThreadPoolExecutor(READERS) as pool:
        while some := list(islice(upcoming, CAPTURES_AT_ONCE)):
            for each in pool.map(partial(_capture, uri, kinds), some):
                seen.add(each)
    for kind in kinds:
        seen.add(_beside(strangers(uri, kind, seen.captures, seen.folders)))
    findings += seen.findings
    if _has_ended(run):
        findings += [*seen.open, *_account(run, problems, seen), *_figures(run, seen.figures)]
    else:
        findings.append(Finding(uri, "is not finished: run the same `mvpose reconstruct` again to resume it"))
    return Verification(
        captures=captures,
        clips=seen.clips,
        failed_clips=seen.failed.total(),
        commits=seen.commits,
        rows=seen.rows,
        findings=tuple(findings),
        notes=tuple(unknown_files(uri, seen.unknown)),
    )


def _has_ended(run: RunFolder) -> bool:
    """Whether a run has come to its end; a summary that is damaged says that it had."""
    try:
        return run.ended() is not None
    except ResultsError:
        return True


def _planned(run: RunFolder, settings: Settings) -> tuple[int, list[Problem], list[Finding]]:
    """Captures and problems; clips tile every capture, and the plan is the one that run.json names."""
    plans, problems, findings = run.tasks(), list[Problem](), list[Finding]()
    captures, plan = 0, next(plans, None)
    for found in read_captures(join(run.uri, "catalogue.parquet")):
        if isinstance(found, Problem):
            problems.append(found)
        elif isinstance(found, Capture):
            captures += 1
            own = plan.clips if plan and plan.capture_id == found.capture_id else ()
            findings += _tiling(found, own)
            plan = next(plans, None) if own else plan
    if plan is not None:
        raise ResultsError(f"plan.parquet and catalogue.parquet disagree from {plan.capture_id} on.")
    if plan_digest(run.tasks(), problems) != settings.plan_digest:
        findings.insert(0, Finding("plan.parquet", "is not the plan that run.json was begun with (its digest differs)"))
    return captures, problems, findings


def _tiling(capture: Capture, clips: Sequence[Clip]) -> Iterator[Finding]:
    edges = [(0, 0), *((clip.start, clip.stop) for clip in sorted(clips)), (capture.num_frames, capture.num_frames)]
    for (_, stop), (start, _) in pairwise(edges):
        if stop < start:
            yield Finding(capture.capture_id, f"no clip has the frames {stop} to {start}")
        if stop > start:
            yield Finding(capture.capture_id, f"the frames {start} to {stop} are in two clips, or beyond its end")


def _capture(run_uri: str, kinds: Sequence[Kind], plan: CaptureTasks) -> _Seen:
    """The commits of a capture, and what is wrong with them or lies beside them."""
    seen = _Seen(clips=len(plan.clips), captures={plan.capture_id})
    for kind in kinds:
        store, commits = ClipStore(run_uri, kind), list[Commit]()
        for task in plan.tasks(kind):
            commit, found = _checked(store, kind, task)
            commits += [commit] if commit else []
            seen.findings += found
            if commit is None and not found:
                seen.open.append(Finding(f"{kind} of {task.clip.clip_id}", "has neither a result nor a failure"))
        beside = leftovers(run_uri, plan, kind, commits)
        seen.add(_beside(beside))
        seen.folders += beside.folders
        seen.commits += len(commits)
        if kind == Kind.POSES:
            seen.rows = sum(commit.rows for commit in commits)
            failures = [commit.failure for commit in commits if commit.failure]
            seen.failed.update((f.clip.capture_id, f.clip.start, f.clip.stop, str(f.reason)) for f in failures)
        if kind == Kind.QUALITY and commits and not commits[0].failure:
            with contextlib.suppress(ResultsError):  # told already, with the file that is damaged
                seen.figures[plan.capture_id] = _told_apart(figures_from_table(store.read(commits[0])))
    return seen


def _beside(found: Leftovers) -> _Seen:
    strange = [Finding(path, "commits a clip that is not in the plan") for path in found.commits]
    unnamed = [Finding(path, "no commit names this file") for path in found.data]
    return _Seen(open=[*strange, *unnamed], unknown=list(found.unknown))


def _checked(store: ClipStore, kind: Kind, task: Task) -> tuple[Commit | None, list[Finding]]:
    where = f"{kind} of {task.clip.clip_id}"
    commit = None
    try:
        commit = store.committed(task.clip, task.fingerprint)
        if commit is None:
            return None, []
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


def _account(run: RunFolder, problems: Sequence[Problem], seen: _Seen) -> Iterator[Finding]:
    """Failures and results together are the plan, and the summary says the same."""
    try:
        summary, rows = run.summary(), run.failures()
    except ResultsError as error:
        yield Finding("summary", str(error))
        return
    expected = seen.failed + Counter((p.capture_id, 0, 0, str(p.reason)) for p in problems)
    told: Counter[tuple[object, ...]] = Counter(
        (row["capture"], row["start"], row["stop"], row["reason"]) for row in rows
    )
    for capture_id, start, stop, reason in sorted(expected - told):
        yield Finding("failures", f"{capture_id}/{start}-{stop} failed ({reason}) and has no row")
    for capture_id, start, stop, reason in sorted(told - expected):
        yield Finding("failures", f"{capture_id}/{start}-{stop} has a row ({reason}) too many")
    if (summary.clips, len(summary.failures)) != (seen.clips, expected.total()):
        counted = f"{seen.clips} clips and {expected.total()} failures"
        yield Finding("summary.json", f"says {summary.clips} clips and {len(summary.failures)} failures, not {counted}")


def _figures(run: RunFolder, made: dict[str, str]) -> Iterator[Finding]:
    """The figures of merit that the run tells of all captures are those of the tables they were taken from."""
    try:
        told = {capture_id: _told_apart(figures) for capture_id, figures in FigureTable(run.figures_uri).each()}
    except ResultsError as error:
        yield Finding("figures.parquet", str(error))
        return
    for capture_id in sorted({*made, *told}):
        if made.get(capture_id) != told.get(capture_id):
            yield Finding("figures.parquet", f"the figures of {capture_id} are not those of its table in quality/")


def _told_apart(figures: dict[str, float]) -> str:
    """A digest; as JSON, where a figure that is NaN equals itself."""
    return digest(figures)
