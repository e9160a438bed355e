"""The output of a job: what was asked for, what was planned, and what came of it.

run.json            settings of the job and the digest of its plan, written once
catalogue.parquet   the captures, with rigs and videos
plan.parquet        one row a clip, with the fingerprints of its results
keypoints/ poses/ filtered/ rigs/ quality/    data files by capture
commits/ attempts/  which data files count (see store.py)
failures/failures.parquet           one row a clip or capture without a result
figures.parquet     figures of merit, one row a capture and figure
summary.json        counts, failures and notes
performance.json    seconds by stage of the last start that had work to do
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version

import pyarrow as pa
import pyarrow.parquet as pq

from mvpose.archive.catalogue import Catalogue, read_catalogue
from mvpose.archive.catalogue_table import read_capture, read_captures
from mvpose.archive.commits import create_once, write_whole, write_whole_file
from mvpose.archive.figure_table import FigureTable
from mvpose.archive.filtered_table import filtered_from_table
from mvpose.archive.locations import exists, join, read_bytes
from mvpose.archive.output_folder import not_own, require_output
from mvpose.archive.plan_table import planned_digest, read_plan, read_plan_of
from mvpose.archive.planned import Planned
from mvpose.archive.rig_table import rig_from_table
from mvpose.archive.run_summary import Summary
from mvpose.archive.sequences import concatenated_keypoints, concatenated_poses
from mvpose.archive.store import ClipStore, Commit
from mvpose.config import differences
from mvpose.errors import ConfigError, FailureReason, ResultsError
from mvpose.geometry.camera import CameraRig
from mvpose.reconstruction.filters import FilteredPoses
from mvpose.records import Capture, CapturePlan, CaptureTasks, Clip, ClipFailure, Keypoints2D, Kind, Poses3D


@dataclass(frozen=True)
class Settings:
    """What makes two starts of a job the same job."""

    values: Mapping[str, object]
    """The settings that results depend on, flat."""
    plan_digest: str


@dataclass(frozen=True)
class RunFolder:
    """A run folder by its URI; nothing is read or written before a method is called."""

    uri: str

    @property
    def figures_uri(self) -> str:
        """Where the figures of merit of all captures are."""
        return join(self.uri, "figures.parquet")

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

    def require_own(self) -> None:
        """ConfigError where the folder holds files and is not a run: not even one that lost its `run.json`."""
        names = require_output(self.uri, "mvpose reconstruct", "run.json", "plan.parquet", "catalogue.parquet")
        with suppress(ResultsError):
            if "run.json" in names and "plan_digest" in _read_json(join(self.uri, "run.json")):
                return
        with suppress(ConfigError):
            if "catalogue.parquet" in names and next(read_captures(join(self.uri, "catalogue.parquet"))):
                return
        if names and not self._planned():
            raise not_own(self.uri, "mvpose reconstruct", names)

    def settings(self) -> Settings:
        """What `run.json` says; ResultsError if the folder is not a run."""
        uri = join(self.uri, "run.json")
        if not exists(uri):
            raise ResultsError(f"{self.uri} is not the output of `mvpose reconstruct`: it has no run.json.")
        record = _read_json(uri)
        return Settings(record["settings"], record["plan_digest"])

    def begin(self, settings: Settings, planned: Planned, *, replan: bool) -> None:
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
            write_whole_file(join(self.uri, "catalogue.parquet"), planned.catalogue)
            write_whole_file(join(self.uri, "plan.parquet"), planned.plan)

    def _planned(self) -> str:
        """The digest of the plan that is written; empty where none is, or none that can be read."""
        uri = join(self.uri, "plan.parquet")
        try:
            return planned_digest(pq.read_schema(io.BytesIO(read_bytes(uri)))) if exists(uri) else ""
        except (ValueError, pa.ArrowException):
            return ""

    def tasks(self, digest: str | None = None) -> Iterator[CaptureTasks]:
        """The plan as it was written, read as it is asked for; ResultsError if it cannot be, or is not of `digest`."""
        return read_plan(join(self.uri, "plan.parquet"), digest)

    def plans(self, digest: str | None = None) -> list[CapturePlan]:
        """The plan with its captures; ResultsError as `tasks`."""
        captures = {capture.capture_id: capture for capture in self.catalogue().captures}
        plans = list(self.tasks(digest))
        if unknown := {plan.capture_id for plan in plans} - captures.keys():
            raise ResultsError(f"plan.parquet has captures that catalogue.parquet lacks: {', '.join(sorted(unknown))}.")
        return [_with_capture(plan, captures[plan.capture_id]) for plan in plans]

    def plan_of(self, capture_id: str, digest: str) -> CapturePlan:
        """The plan of one capture, by reading the parts of the tables that have it; ResultsError as `tasks`."""
        plan = read_plan_of(join(self.uri, "plan.parquet"), capture_id, digest)
        return _with_capture(plan, read_capture(join(self.uri, "catalogue.parquet"), capture_id))

    def catalogue(self) -> Catalogue:
        """The captures as they were found, and what was wrong with others."""
        return read_catalogue(join(self.uri, "catalogue.parquet"))

    def failures(self) -> list[dict[str, str | int]]:
        """The rows of `failures/`: capture, start, stop, stage, reason, detail."""
        return self._table("failures/failures.parquet").to_pylist()

    def ended(self) -> Summary | None:
        """What came of the plan that stands in `run.json`; None where it has not come to its end."""
        uri = join(self.uri, "summary.json")
        if not exists(uri):
            return None
        record = _read_json(uri)
        if record.get("plan_digest") != self.settings().plan_digest:
            return None
        try:
            failures = tuple(
                ClipFailure(Clip(**f["clip"]), f["stage"], FailureReason(f["reason"]), f["detail"])
                for f in record.pop("failures")
            )
            figures = record.pop("figures", FigureTable(self.figures_uri))
            return Summary(failures=failures, notes=tuple(record.pop("notes")), figures=figures, **record)
        except (KeyError, TypeError, ValueError) as error:
            raise ResultsError(f"{uri} is damaged ({error!r}): remove it and run the job again.") from error

    def summary(self) -> Summary:
        """The summary of a finished run; ResultsError if the run is not finished, or the folder is not a run."""
        self.settings()
        summary = self.ended()
        if summary is None:
            raise ResultsError(f"{self.uri} is not finished: run the same `mvpose reconstruct` again to go on.")
        return summary

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
        raw, commits = self.poses(plan), self._commits(Kind.FILTERED, plan)
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
        return [store.read(c) for c in self._commits(kind, plan) if not c.failure]

    def _commits(self, kind: Kind, plan: CapturePlan) -> list[Commit]:
        """Commits of a kind that belong to a capture; a stage that was not asked for has none."""
        store = ClipStore(self.uri, kind)
        return [c for t in plan.tasks(kind) if (c := store.committed(t.clip, t.fingerprint))]

    def _table(self, name: str) -> pa.Table:
        uri = join(self.uri, name)
        try:
            return pq.read_table(io.BytesIO(read_bytes(uri)))
        except (OSError, ValueError, pa.ArrowException) as error:
            raise ResultsError(f"{uri} cannot be read ({error}): run the job again with --replan.") from error


def _with_capture(plan: CaptureTasks, capture: Capture) -> CapturePlan:
    return CapturePlan(**vars(plan), capture=capture)


def _read_json(uri: str) -> dict:
    try:
        record = json.loads(read_bytes(uri))
        if not isinstance(record, dict):
            raise ValueError("no table of names and values")
        return record
    except (OSError, ValueError, RecursionError) as error:
        raise ResultsError(f"{uri} cannot be read ({error}): remove it and run the job again with --replan.") from error
