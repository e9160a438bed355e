"""Verify that a run is sound. Everything is read, nothing is repaired.

A run is sound if its clips tile every capture, every planned task of every kind has one commit, every commit names a
complete data file (SHA-256) with the plan's fingerprint whose rows belong to it and are unique, failures and results
together make up the plan, and no unreferenced file of mvpose exists. Files of the user are notes, not findings. An
unfinished run is one finding, and its results so far are still checked.
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

from mvpose.capture import Capture
from mvpose.config import digest
from mvpose.errors import ConfigError, ResultsError
from mvpose.footage.catalogue_table import Problem, read_captures
from mvpose.footage.rig_table import figures_from_table
from mvpose.records import CaptureTasks, Clip, ClipFailure, Kind, Task
from mvpose.run.capture_tables import FigureTable
from mvpose.run.plan_table import plan_digest
from mvpose.run.pose_tables import table_info
from mvpose.run.run_end import strict_failures, unknown_files
from mvpose.run.run_folder import RunFolder, Settings
from mvpose.run.store import ClipStore, Commit
from mvpose.run.unreferenced import Unreferenced, unplanned_files, unreferenced_files
from mvpose.run.verdict_table import findings_of
from mvpose.storage.locations import join

READERS = 8
"""Number of captures processed at a time, since their files wait for the storage, not for the processor."""
CAPTURES_AT_ONCE = 64

# Columns that identify a row of a clip. Tables of whole captures are not about single frames.
ROW_KEYS = {
    Kind.KEYPOINTS: ["frame", "camera", "person"],
    Kind.TRACKS: ["frame", "track"],
    Kind.POSES: ["frame", "track"],
    Kind.FILTERED: ["frame", "track"],
}


@dataclass(frozen=True)
class Discrepancy:
    """Something that is not as it should be: where, and what."""

    where: str
    what: str


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was checked, and what was found."""

    captures: int = 0
    clips: int = 0
    failed_clips: int = 0
    commits: int = 0
    """Number of commits of all kinds, including failures."""
    rows: int = 0
    """Number of rows of poses."""
    findings: tuple[Discrepancy, ...] = ()
    notes: tuple[str, ...] = ()
    """Files that mvpose did not write."""


@dataclass
class _Seen:
    """Observations on one capture, or on all."""

    commits: int = 0
    clips: int = 0
    rows: int = 0
    failed: Counter[tuple[object, ...]] = field(default_factory=Counter)
    """Clips without poses: capture, start, stop, reason."""
    strict: Counter[tuple[object, ...]] = field(default_factory=Counter)
    """Bad captures of a strict job, as `failed`."""
    figures: dict[str, str] = field(default_factory=dict)
    """Digest of the figures of merit in `quality/`, by capture."""
    captures: set[str] = field(default_factory=set)
    folders: list[str] = field(default_factory=list)
    """Folders inside those of captures; not searched."""
    findings: list[Discrepancy] = field(default_factory=list)
    open: list[Discrepancy] = field(default_factory=list)
    """Tasks without a commit, and unreferenced files; the end of a run creates and removes them."""
    unknown: list[str] = field(default_factory=list)

    def add(self, other: _Seen) -> None:
        """Add the observations on another capture."""
        self.commits, self.clips, self.rows = (
            self.commits + other.commits, self.clips + other.clips, self.rows + other.rows
        )  # fmt: skip
        self.failed += other.failed
        self.strict += other.strict
        self.figures |= other.figures
        self.captures |= other.captures
        self.folders += other.folders
        self.findings += other.findings
        self.open += other.open
        self.unknown += other.unknown


def verify_run(uri: str) -> Verification:
    """Read a whole run, a few captures at a time. Raises ResultsError if the folder is not a run folder."""
    run = RunFolder(uri)
    settings = run.settings()
    try:
        captures, problems, findings = _planned(run, settings)
    except (ConfigError, ResultsError) as error:
        return Verification(findings=(Discrepancy("plan", str(error)),))
    if "adjust_extrinsics" not in settings.values:
        return Verification(findings=(Discrepancy("run.json", "lacks settings: it is damaged"),))
    kinds = [kind for kind in Kind if kind != Kind.RIGS or settings.values["adjust_extrinsics"]]
    seen, upcoming = _Seen(), run.tasks()
    with ThreadPoolExecutor(READERS) as pool:
        while some := list(islice(upcoming, CAPTURES_AT_ONCE)):
            for each in pool.map(partial(_capture, uri, kinds, bool(settings.values.get("strict"))), some):
                seen.add(each)
    for kind in kinds:
        seen.add(_as_findings(unplanned_files(uri, kind, seen.captures, seen.folders)))
    findings += seen.findings
    if _has_ended(run):
        findings += [*seen.open, *_account(run, problems, seen), *_figures(run, seen.figures)]
    else:
        findings.append(Discrepancy(uri, "is not finished: run the same `mvpose reconstruct` again to resume it"))
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
    """Whether a run has finished. A damaged summary counts as finished."""
    try:
        return run.ended() is not None
    except ResultsError:
        return True


def _planned(run: RunFolder, settings: Settings) -> tuple[int, list[Problem], list[Discrepancy]]:
    """Captures and problems. Checks that clips tile every capture, and that the plan is the one of run.json."""
    plans, problems, findings = run.tasks(), list[Problem](), list[Discrepancy]()
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
        findings.insert(0, Discrepancy("plan.parquet", "is not the plan that run.json names (its digest differs)"))
    return captures, problems, findings


def _tiling(capture: Capture, clips: Sequence[Clip]) -> Iterator[Discrepancy]:
    edges = [(0, 0), *((clip.start, clip.stop) for clip in sorted(clips)), (capture.num_frames, capture.num_frames)]
    for (_, stop), (start, _) in pairwise(edges):
        if stop < start:
            yield Discrepancy(capture.capture_id, f"no clip contains the frames {stop} to {start}")
        if stop > start:
            yield Discrepancy(capture.capture_id, f"the frames {start} to {stop} are in two clips, or beyond its end")


def _capture(run_uri: str, kinds: Sequence[Kind], strict: bool, plan: CaptureTasks) -> _Seen:
    """The commits of a capture, their defects, and unreferenced files."""
    failures: list[ClipFailure] = []
    seen = _Seen(clips=len(plan.clips), captures={plan.capture_id})
    for kind in kinds:
        store, commits = ClipStore(run_uri, kind), list[Commit]()
        for task in plan.tasks(kind):
            commit, found = _checked(store, kind, task)
            commits += [commit] if commit else []
            seen.findings += found
            if commit is None and not found:
                seen.open.append(Discrepancy(f"{kind} of {task.clip.clip_id}", "has neither a result nor a failure"))
        unreferenced = unreferenced_files(run_uri, plan, kind, commits)
        seen.add(_as_findings(unreferenced))
        seen.folders += unreferenced.folders
        seen.commits += len(commits)
        if kind == Kind.POSES:
            seen.rows = sum(commit.rows for commit in commits)
            failures = [commit.failure for commit in commits if commit.failure]
            seen.failed.update((f.clip.capture_id, f.clip.start, f.clip.stop, str(f.reason)) for f in failures)
        if kind == Kind.QUALITY and commits and not commits[0].failure:
            with contextlib.suppress(ResultsError):  # already reported, with the damaged file
                table = store.read(commits[0])
                if len(table):
                    seen.figures[plan.capture_id] = _comparable(figures_from_table(table))
                bad = strict_failures(plan, findings_of(table), failures, strict=strict)
                seen.strict.update((f.clip.capture_id, f.clip.start, f.clip.stop, str(f.reason)) for f in bad)
    return seen


def _as_findings(found: Unreferenced) -> _Seen:
    strange = [Discrepancy(path, "commits a clip that is not in the plan") for path in found.commits]
    unnamed = [Discrepancy(path, "no commit names this file") for path in found.data]
    return _Seen(open=[*strange, *unnamed], unknown=list(found.unknown))


def _checked(store: ClipStore, kind: Kind, task: Task) -> tuple[Commit | None, list[Discrepancy]]:
    where = f"{kind} of {task.clip.clip_id}"
    commit = None
    try:
        commit = store.committed(task.clip, task.fingerprint)
        if commit is None:
            return None, []
        if (commit.clip, commit.fingerprint) != (task.clip, task.fingerprint):
            said = f"says {commit.clip.clip_id}.{commit.fingerprint}, but its name differs"
            return commit, [Discrepancy(where, f"its commit {said}")]
        if commit.failure:
            return commit, []
        table = store.read(commit)
    except ResultsError as error:
        return commit, [Discrepancy(where, str(error))]
    return commit, [Discrepancy(where, what) for what in _wrong_rows(kind, task, commit, table)]


def _wrong_rows(kind: Kind, task: Task, commit: Commit, table: pa.Table) -> Iterator[str]:
    if table.num_rows != commit.rows:
        yield f"has {table.num_rows} rows, but its commit states {commit.rows}"
    if kind not in ROW_KEYS:
        return
    info, clip = table_info(table), task.clip
    if (info.capture_id, info.start, info.stop) != (clip.capture_id, clip.start, clip.stop):
        yield f"its file is of {info.capture_id}/{info.start}-{info.stop}"
    if info.fingerprint != task.fingerprint:
        yield f"its file has the fingerprint {info.fingerprint}, but the plan has {task.fingerprint}"
    frame = table["frame"].to_numpy()
    if outside := np.count_nonzero((frame < clip.start) | (frame >= clip.stop)):
        yield f"{outside} rows are of frames outside the clip"
    keys = table.select(ROW_KEYS[kind])
    if repeated := table.num_rows - keys.group_by(keys.column_names).aggregate([]).num_rows:
        yield f"{repeated} rows repeat the {', '.join(keys.column_names)} of another"


def _account(run: RunFolder, problems: Sequence[Problem], seen: _Seen) -> Iterator[Discrepancy]:
    """Check that failures and results together make up the plan, and that the summary agrees."""
    try:
        summary, rows = run.summary(), run.failures()
    except ResultsError as error:
        yield Discrepancy("summary", str(error))
        return
    expected = seen.failed + seen.strict + Counter((p.capture_id, 0, 0, str(p.reason)) for p in problems)
    recorded: Counter[tuple[object, ...]] = Counter(
        (row["capture"], row["start"], row["stop"], row["reason"]) for row in rows
    )
    for capture_id, start, stop, reason in sorted(expected - recorded):
        yield Discrepancy("failures", f"{capture_id}/{start}-{stop} failed ({reason}) but has no row")
    for capture_id, start, stop, reason in sorted(recorded - expected):
        yield Discrepancy("failures", f"{capture_id}/{start}-{stop} has a surplus row ({reason})")
    if (summary.clips, len(summary.failures)) != (seen.clips, expected.total()):
        counted = f"{seen.clips} clips and {expected.total()} failures"
        yield Discrepancy(
            "summary.json", f"states {summary.clips} clips and {len(summary.failures)} failures, not {counted}"
        )


def _figures(run: RunFolder, made: dict[str, str]) -> Iterator[Discrepancy]:
    """Check that the run's figures of merit equal those of the captures' own tables."""
    try:
        recorded = {capture_id: _comparable(figures) for capture_id, figures in FigureTable(run.figures_uri).each()}
    except ResultsError as error:
        yield Discrepancy("figures.parquet", str(error))
        return
    for capture_id in sorted({*made, *recorded}):
        if made.get(capture_id) != recorded.get(capture_id):
            yield Discrepancy("figures.parquet", f"the figures of {capture_id} differ from its table in quality/")


def _comparable(figures: dict[str, float]) -> str:
    """A digest via JSON, in which a NaN figure equals itself."""
    return digest(figures)
