"""The output of a job: what was asked for, what was planned, and what came of it.

run.json            settings of the job and the digest of its plan, written once
catalogue.parquet   the captures, with rigs and videos
plan.parquet        one row a clip, with the fingerprints of its results
keypoints/ poses/ filtered/ rigs/ quality/    data files by capture
commits/ attempts/  which data files count (see store.py)
failures/failures.parquet           one row a clip or capture without a result
summary.json        counts and figures of merit
performance.json    seconds by stage of the last start that had work to do
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.metadata import version

import pyarrow as pa
import pyarrow.parquet as pq

from mvpose.archive.catalogue import Catalogue, Problem, read_catalogue, write_catalogue
from mvpose.archive.catalogue_table import read_capture
from mvpose.archive.commits import create_once, swept, write_whole
from mvpose.archive.failure_table import failure_table
from mvpose.archive.filtered_table import filtered_from_table
from mvpose.archive.locations import exists, filesystem, join, read_bytes
from mvpose.archive.plan_table import plan_table, planned_digest, plans_from_table
from mvpose.archive.rig_table import figures_from_table, rig_from_table
from mvpose.archive.run_summary import Summary
from mvpose.archive.sequences import concatenated_keypoints, concatenated_poses
from mvpose.archive.store import ClipStore, Commit, parquet_bytes
from mvpose.config import differences, digest
from mvpose.errors import ConfigError, FailureReason, ResultsError
from mvpose.geometry.camera import CameraRig
from mvpose.reconstruction.filters import FilteredPoses
from mvpose.records import CapturePlan, Clip, ClipFailure, Keypoints2D, Kind, Poses3D

READERS = 16
"""Commits read at a time: they wait for the storage."""


@dataclass(frozen=True)
class Settings:
    """What makes two starts of a job the same job."""

    values: Mapping[str, object]
    """The settings that results depend on, flat."""
    plan_digest: str


def plan_digest(plans: Sequence[CapturePlan], problems: Sequence[Problem]) -> str:
    """Digest of all tasks and of what cannot be done: two starts of a job with the same digest have the same work."""
    tasks = [(clip.clip_id, plan.keypoints, plan.poses, plan.filtered) for plan in plans for clip in plan.clips]
    return digest(tasks, sorted((p.capture_id, p.reason, p.detail) for p in problems))


@dataclass(frozen=True)
class RunFolder:
    """A run folder by its URI; nothing is read or written before a method is called."""

    uri: str

    def matches(self, settings: Settings) -> bool:
        """Whether this folder was begun with these settings; False where there is no run yet.

        Raises ConfigError that names the difference if it was begun with others.
        """
        if not exists(join(self.uri, "run.json")):
            return False
        before = self.settings()
        differing = differences(dict(before.values), dict(settings.values))
        if differing:
            raise ConfigError(
                f"{self.uri} was begun with other settings ({'; '.join(differing)}). Use another output, the same "
                "settings, or --replan to go on with the new ones (results that still fit are kept)."
            )
        if before.plan_digest != settings.plan_digest:
            raise ConfigError(
                f"the footage, a calibration or the version of mvpose has changed since {self.uri} was begun. Use "
                "another output, or --replan to go on with what is there now (results that still fit are kept)."
            )
        return True

    def settings(self) -> Settings:
        """What `run.json` says; ResultsError if the folder is not a run."""
        uri = join(self.uri, "run.json")
        if not exists(uri):
            raise ResultsError(f"{self.uri} is not the output of `mvpose reconstruct`: it has no run.json.")
        record = _read_json(uri)
        return Settings(record["settings"], record["plan_digest"])

    def begin(self, settings: Settings, catalogue: Catalogue, plans: Sequence[CapturePlan], *, replan: bool) -> None:
        """Claim the folder for these settings and write the plan; one begun with other settings is refused.

        With `replan` the folder is taken over instead. `run.json` comes first: of two first starts one creates it, and
        the other writes nothing. A start that finds the plan of `run.json` missing (its writer died) writes it.
        """
        record = {"version": version("mvpose"), "settings": settings.values, "plan_digest": settings.plan_digest}
        data = json.dumps(record, indent=1, default=str).encode()
        if replan:
            write_whole(join(self.uri, "run.json"), data)
        elif not create_once(join(self.uri, "run.json"), data):
            self.matches(settings)
        if replan or self._planned() != settings.plan_digest:
            write_catalogue(join(self.uri, "catalogue.parquet"), catalogue)
            write_whole(join(self.uri, "plan.parquet"), parquet_bytes(plan_table(plans, settings.plan_digest)))

    def _planned(self) -> str:
        """The digest of the plan that is written; empty where none is, or none that can be read."""
        uri = join(self.uri, "plan.parquet")
        try:
            return planned_digest(pq.read_schema(io.BytesIO(read_bytes(uri)))) if exists(uri) else ""
        except (ValueError, pa.ArrowException):
            return ""

    def plans(self, digest: str | None = None) -> list[CapturePlan]:
        """The plan as it was written; ResultsError if it is not the one of this digest, where one is given."""
        table = self._table("plan.parquet")
        if digest is not None and planned_digest(table.schema) != digest:
            raise ResultsError(_taken_over(self.uri))
        return plans_from_table(table, {c.capture_id: c for c in self.catalogue().captures})

    def plan_of(self, capture_id: str, digest: str) -> CapturePlan:
        """The plan of one capture, by reading the parts of the tables that have it; ResultsError as `plans`."""
        fs, path = filesystem(join(self.uri, "plan.parquet"))
        with fs.open(path, "rb") as file:
            table = pq.read_table(file, filters=[("capture", "=", capture_id)])
        if planned_digest(table.schema) != digest:
            raise ResultsError(_taken_over(self.uri))
        capture = read_capture(join(self.uri, "catalogue.parquet"), capture_id)
        return plans_from_table(table, {capture_id: capture})[0]

    def catalogue(self) -> Catalogue:
        """The captures as they were found, and what was wrong with others."""
        return read_catalogue(join(self.uri, "catalogue.parquet"))

    def failures(self) -> list[dict[str, str | int]]:
        """The rows of `failures/`: capture, start, stop, stage, reason, detail."""
        return self._table("failures/failures.parquet").to_pylist()

    def finalize(self, catalogue: Catalogue, plans: Sequence[CapturePlan], seconds: Mapping[str, float]) -> Summary:
        """Gather failures and figures, remove what no commit names, write the summary.

        ResultsError if another start has replanned the folder meanwhile: what this one does not know is not rubbish.
        """
        digest_of_plan = plan_digest(plans, catalogue.problems)
        if self.settings().plan_digest != digest_of_plan:
            raise ResultsError(_taken_over(self.uri))
        commits = {kind: self._commits(kind, plans) for kind in Kind}
        failures = [_unplanned(p) for p in catalogue.problems]
        failures += [c.failure for c in commits[Kind.POSES] if c.failure]
        write_whole(join(self.uri, "failures", "failures.parquet"), parquet_bytes(failure_table(failures)))
        for kind in Kind:
            ClipStore(self.uri, kind).remove_unreferenced(commits[kind])
        quality = ClipStore(self.uri, Kind.QUALITY)
        summary = Summary(
            captures=len(plans),
            clips=len(commits[Kind.POSES]),
            frames=sum(plan.capture.num_frames for plan in plans),
            failures=tuple(failures),
            figures={
                c.clip.capture_id: figures_from_table(quality.read(c)) for c in commits[Kind.QUALITY] if not c.failure
            },
            notes=(*catalogue.notes, *_unfiltered(commits[Kind.FILTERED])),
            plan_digest=digest_of_plan,
        )
        write_whole(join(self.uri, "summary.json"), _json(asdict(summary)))
        write_whole(join(self.uri, "performance.json"), _json(dict(seconds)))
        swept(join(self.uri, "attempts"))
        return summary

    def withdraw_failures(self, plans: Sequence[CapturePlan]) -> int:
        """Make what failed undone again, and all that was made without it; the number of captures concerned.

        2D joints that were found are kept: they depend on no other clip. Of the later kinds nothing is, since who is
        who in a capture, and its adjusted rig, were decided without the clips that failed. The last kinds go first,
        so that after a crash in here the failures that are left are found again.
        """
        concerned = [plan for plan in plans if any(c.failure for kind in Kind for c in self._commits(kind, [plan]))]
        if concerned:
            swept(join(self.uri, "summary.json"))
        for plan in concerned:
            for kind in reversed(Kind):
                store = ClipStore(self.uri, kind)
                for commit in self._commits(kind, [plan]):
                    if commit.failure or kind != Kind.KEYPOINTS:
                        store.withdraw(commit.clip, commit.fingerprint)
        return len(concerned)

    def finished(self) -> bool:
        """Whether there is a summary, and of the plan that stands in `run.json`."""
        uri, plan = join(self.uri, "summary.json"), self.settings().plan_digest
        return exists(uri) and _read_json(uri).get("plan_digest") == plan

    def summary(self) -> Summary:
        """The summary of a finished run; ResultsError if the run is not finished, or the folder is not a run."""
        if not self.finished():
            raise ResultsError(f"{self.uri} is not finished: run the same `mvpose reconstruct` again to go on.")
        uri = join(self.uri, "summary.json")
        record = _read_json(uri)
        try:
            failures = tuple(
                ClipFailure(Clip(**f["clip"]), f["stage"], FailureReason(f["reason"]), f["detail"])
                for f in record.pop("failures")
            )
            return Summary(failures=failures, notes=tuple(record.pop("notes")), **record)
        except (KeyError, TypeError, ValueError) as error:
            raise ResultsError(f"{uri} is damaged ({error!r}): remove it and run the job again.") from error

    def performance(self) -> dict[str, float]:
        """Seconds by stage of the last start that had work to do; nothing where none has ended yet."""
        if not exists(join(self.uri, "performance.json")):
            return {}
        return _read_json(join(self.uri, "performance.json"))

    def poses(self, plan: CapturePlan) -> Poses3D | None:
        """All poses of a capture over its frames; None if no clip has any."""
        tables = self._tables(Kind.POSES, plan)
        return concatenated_poses(tables, plan.whole) if tables else None

    def filtered(self, plan: CapturePlan) -> FilteredPoses:
        """Filtered poses of a capture beside its raw ones; ResultsError says why there are none."""
        raw, commits = self.poses(plan), self._commits(Kind.FILTERED, [plan])
        if raw is None or not commits:
            why = "it has no poses" if plan.filtered else "run the job again with --filtered --replan"
            raise ResultsError(f"{plan.capture.capture_id} has no filtered poses: {why}.")
        if commits[0].failure:
            raise ResultsError(f"{plan.capture.capture_id} has no filtered poses: {commits[0].failure.detail}")
        return filtered_from_table(ClipStore(self.uri, Kind.FILTERED).read(commits[0]), raw)

    def keypoints(self, plan: CapturePlan) -> Keypoints2D | None:
        """All 2D joints of a capture over its frames; None if no clip has any."""
        tables = self._tables(Kind.KEYPOINTS, plan)
        return concatenated_keypoints(tables, plan.whole) if tables else None

    def rig(self, plan: CapturePlan) -> CameraRig:
        """The rig that the poses were made with: the adjusted one if there is one."""
        tables = self._tables(Kind.RIGS, plan)
        return rig_from_table(tables[0]) if tables else plan.capture.rig

    def _tables(self, kind: Kind, plan: CapturePlan) -> list[pa.Table]:
        store = ClipStore(self.uri, kind)
        return [store.read(c) for c in self._commits(kind, [plan]) if not c.failure]

    def _commits(self, kind: Kind, plans: Sequence[CapturePlan]) -> list[Commit]:
        """Commits of a kind that belong to the plan; a stage that was not asked for has none."""
        store = ClipStore(self.uri, kind)
        tasks = [t for plan in plans for t in plan.tasks(kind)]
        with ThreadPoolExecutor(READERS) as pool:
            return [c for c in pool.map(lambda t: store.committed(t.clip, t.fingerprint), tasks) if c]

    def _table(self, name: str) -> pa.Table:
        uri = join(self.uri, name)
        try:
            return pq.read_table(io.BytesIO(read_bytes(uri)))
        except (OSError, ValueError, pa.ArrowException) as error:
            raise ResultsError(f"{uri} cannot be read ({error}): run the job again with --replan.") from error


def _unfiltered(commits: Sequence[Commit]) -> list[str]:
    """The raw poses are there all the same: filters that cannot be run are told, and are no failures."""
    failures = [c.failure for c in commits if c.failure and c.failure.stage == Kind.FILTERED]
    return [f"{f.clip.capture_id}: no filtered poses: {f.detail}" for f in failures]


def _taken_over(uri: str) -> str:
    return (
        f"{uri} was replanned while this job ran: another job is at work on this output. What is committed is kept; "
        "give each job an output of its own."
    )


def _unplanned(problem: Problem) -> ClipFailure:
    return ClipFailure(Clip(problem.capture_id, 0, 0), "catalogue", problem.reason, problem.detail)


def _read_json(uri: str) -> dict:
    try:
        record = json.loads(read_bytes(uri))
        if not isinstance(record, dict):
            raise ValueError("no table of names and values")
        return record
    except (OSError, ValueError) as error:
        raise ResultsError(f"{uri} cannot be read ({error}): remove it and run the job again with --replan.") from error


def _json(record: dict) -> bytes:
    return json.dumps(record, indent=1, sort_keys=True, default=dict).encode()
