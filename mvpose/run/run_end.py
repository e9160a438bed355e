"""End a run: collect failures and figures, remove unreferenced files of mvpose, write the summary.

Captures are processed a few at a time; only the content of the summary is held in memory.
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
import pyarrow.parquet as pq

from mvpose.errors import FailureReason
from mvpose.footage.catalogue_table import Problem
from mvpose.footage.rig_table import figures_from_table
from mvpose.quality.findings import Finding
from mvpose.quality.judgement import Grade, Verdict, verdict_of
from mvpose.records import CaptureTasks, Clip, ClipFailure, Kind
from mvpose.run.capture_tables import FigureTable, failure_table, figure_rows, figure_writer
from mvpose.run.plan_scratch import Planned
from mvpose.run.plan_table import replanned_elsewhere
from mvpose.run.run_folder import RunFolder, Summary
from mvpose.run.store import ClipStore, Commit, parquet_bytes
from mvpose.run.unreferenced import Unreferenced, is_tidy, remove_attempts, unplanned_files, unreferenced_files
from mvpose.run.verdict_table import findings_of, verdict_rows, verdict_writer, without_result
from mvpose.storage.commits import remove_file, write_whole, write_whole_file
from mvpose.storage.locations import join

READERS = 16
"""Number of captures processed at a time, since their commits wait for the storage."""
CAPTURES_AT_ONCE = 256
NAMED = 5
"""Maximum number of unknown files that are named in the note on them."""

T = TypeVar("T")


@dataclass(frozen=True)
class _Outcome:
    """The results of one capture."""

    capture_id: str
    clips: int
    failures: tuple[ClipFailure, ...]
    notes: tuple[str, ...]
    figures: pa.Table | None
    findings: tuple[Finding, ...]
    """What the verdict follows from."""
    folders: tuple[str, ...]
    """Folders inside those of the capture: of other captures, or of none."""
    unknown: tuple[str, ...]
    """Files in the capture's folders that mvpose did not write."""


def end_run(run: RunFolder, planned: Planned, seconds: Mapping[str, float]) -> Summary:
    """Collect failures and figures, remove unreferenced files of mvpose, write the summary.

    Files that mvpose did not write are kept and reported in a note. Raises ResultsError if another start has replanned
    the folder in the meantime, since its results are not unreferenced.
    """
    _require_own(run, planned)
    failures = [_unplanned(problem) for problem in planned.problems]
    notes, clips, ids, folders, unknown = list(planned.notes), 0, set[str](), list[str](), list[str]()
    verdicts: dict[str, Verdict] = {}
    strict = bool(run.settings().values.get("strict"))
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file, tempfile.NamedTemporaryFile(suffix=".parquet") as rows:
        with figure_writer(file.name) as figures, verdict_writer(rows.name) as judged:
            unplanned = [(failure.clip.capture_id, without_result(failure)) for failure in failures]
            verdicts |= _write(judged, unplanned)
            for some in in_parallel(partial(_outcome, run.uri, strict), planned.tasks()):
                for each in some:
                    ids.add(each.capture_id)
                    clips += each.clips
                    failures += each.failures
                    notes += each.notes
                    folders += each.folders
                    unknown += each.unknown
                figures.write_table(figure_rows([each.figures for each in some if each.figures is not None]))
                verdicts |= _write(judged, [(each.capture_id, each.findings) for each in some])
                _require_own(run, planned)
        write_whole_file(run.figures_uri, file.name)
        write_whole_file(run.verdicts_uri, rows.name)
    write_whole(join(run.uri, "failures", "failures.parquet"), parquet_bytes(failure_table(failures)))
    for kind in Kind:
        others = unplanned_files(run.uri, kind, ids, folders)
        _remove(run.uri, others)
        unknown += others.unknown
    unknown += remove_attempts(run.uri)
    summary = Summary(
        captures=planned.totals.captures,
        clips=clips,
        frames=planned.totals.frames,
        failures=tuple(failures),
        figures=FigureTable(run.figures_uri),
        verdicts=verdicts,
        notes=(*notes, *unknown_files(run.uri, unknown)),
        plan_digest=planned.totals.digest,
    )
    write_whole(join(run.uri, "summary.json"), _json(_summary_json(summary)))
    write_whole(join(run.uri, "performance.json"), _json(dict(seconds)))
    return summary


def _write(writer: pq.ParquetWriter, captures: Sequence[tuple[str, Sequence[Finding]]]) -> dict[str, Verdict]:
    """Write the findings on some captures, and return the verdicts."""
    verdicts, rows = verdict_rows(captures)
    writer.write_table(rows)
    return verdicts


def unknown_files(run_uri: str, paths: Sequence[str]) -> Iterator[str]:
    """One line about files that no commit of mvpose names; nothing if there are none."""
    if paths:
        some = ", ".join(map(repr, paths[:NAMED])) + (", ..." if len(paths) > NAMED else "")
        yield f"{len(paths)} files in {run_uri} belong to no result of mvpose and were kept: {some}"


def in_parallel(work: Callable[[CaptureTasks], T], plans: Iterable[CaptureTasks]) -> Iterator[list[T]]:
    """The results of several captures at a time, in order."""
    upcoming = iter(plans)
    with ThreadPoolExecutor(READERS) as pool:
        while some := list(islice(upcoming, CAPTURES_AT_ONCE)):
            yield list(pool.map(work, some))


def _outcome(run_uri: str, strict: bool, plan: CaptureTasks) -> _Outcome:
    """The results of a capture; unreferenced files of mvpose next to them are removed."""
    commits = {kind: commits_of(run_uri, plan, kind) for kind in Kind if kind not in (Kind.KEYPOINTS, Kind.TRACKS)}
    poses = commits[Kind.POSES]
    # A clip that failed earlier has no poses either. If all clips have poses, two of three commits need not be read.
    whole = len(poses) == len(plan.clips) and not any(commit.failure for commit in poses)
    folders: list[str] = []
    unknown: list[str] = []
    for kind in Kind:
        if whole and kind not in commits and is_tidy(run_uri, plan, kind):
            continue
        found = unreferenced_files(run_uri, plan, kind, commits.get(kind) or commits_of(run_uri, plan, kind))
        folders += found.folders
        unknown += found.unknown
        _remove(run_uri, found)
    failures = [commit.failure for commit in poses if commit.failure]
    made = [commit for commit in commits[Kind.QUALITY] if not commit.failure]
    table = ClipStore(run_uri, Kind.QUALITY).read(made[0]) if made else None
    lost = [finding for c in commits[Kind.QUALITY] if c.failure for finding in without_result(c.failure)]
    findings = tuple(lost) if table is None else findings_of(table)
    return _Outcome(
        plan.capture_id,
        clips=len(poses),
        failures=(*failures, *strict_failures(plan, findings, failures, strict=strict)),
        notes=(
            *_without_people(plan, poses),
            *_left_out(plan, table),
            *_not_computed([*commits[Kind.FILTERED], *commits[Kind.QUALITY]]),
        ),
        figures=table,
        findings=findings,
        folders=tuple(folders),
        unknown=tuple(unknown),
    )


def strict_failures(
    plan: CaptureTasks, findings: Sequence[Finding], failures: Sequence[ClipFailure], *, strict: bool
) -> Iterator[ClipFailure]:
    """The failure of a strict job on a bad capture; none if all of its clips have failed already."""
    verdict = verdict_of(findings)
    if strict and verdict.grade == Grade.BAD and len(failures) < len(plan.clips):
        yield ClipFailure(plan.whole, "verdict", FailureReason.BAD_DATA, verdict.reason)


def _remove(run_uri: str, found: Unreferenced) -> None:
    """Remove commits first: a commit without its data would prevent its clip from being processed again."""
    for path in (*found.commits, *found.data):
        remove_file(join(run_uri, path))


def commits_of(run_uri: str, plan: CaptureTasks, kind: Kind) -> list[Commit]:
    """The commits of a kind that belong to a capture, one read per task."""
    store = ClipStore(run_uri, kind)
    return [c for task in plan.tasks(kind) if (c := store.committed(task.clip, task.fingerprint))]


def _require_own(run: RunFolder, planned: Planned) -> None:
    if run.settings().plan_digest != planned.totals.digest:
        raise replanned_elsewhere(run.uri)


def _not_computed(commits: list[Commit]) -> Iterator[str]:
    """Notes on filters and figures that could not be computed. The raw poses exist, so this is not a failure."""
    missing = {str(Kind.FILTERED): "filtered poses", str(Kind.QUALITY): "figures of merit"}
    for failure in (commit.failure for commit in commits):
        if failure and (what := missing.get(failure.stage)):
            yield f"{failure.clip.capture_id}: no {what}: {failure.detail}"


def _without_people(plan: CaptureTasks, poses: list[Commit]) -> Iterator[str]:
    """A note on a capture without people. It is complete, with empty tables, so this is not a failure."""
    if not any(commit.rows or commit.failure for commit in poses):
        yield (
            f"{plan.capture_id}: no people were reconstructed: no two cameras show a person at the same time. If there "
            "are people, inspect the 2D joints, or lower --reconstruction.min-confidence"
        )


def _left_out(plan: CaptureTasks, figures: pa.Table | None) -> Iterator[str]:
    """A note on people who were seen but not kept."""
    of = {} if figures is None else figures_from_table(figures)
    if people := int(of.get("people_left_out", 0)):
        more, frames = "person was" if people == 1 else "people were", int(of["people_left_out_frames"])
        yield f"{plan.capture_id}: {people} more {more} seen, in up to {frames} frames: --people all"


def _unplanned(problem: Problem) -> ClipFailure:
    return ClipFailure(Clip(problem.capture_id, 0, 0), "catalogue", problem.reason, problem.detail)


def _summary_json(summary: Summary) -> dict[str, object]:
    """All fields except the figures, which have a separate table."""
    return {field.name: getattr(summary, field.name) for field in fields(summary) if field.name != "figures"}


def _json(record: dict) -> bytes:
    return json.dumps(record, indent=1, sort_keys=True, default=vars).encode()
