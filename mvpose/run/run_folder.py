"""The run folder, the output of a job: its settings, its plan and its results.

run.json            settings of the job and the digest of its plan, written once
catalogue.parquet   the captures, with rigs and videos
plan.parquet        one row per clip, with the fingerprints of its results
keypoints/ poses/ filtered/ rigs/ quality/    data files by capture
commits/ attempts/  which data files count (see store.py)
failures/failures.parquet           one row per clip or capture without a result
figures.parquet     figures of merit, one row per capture and figure
verdicts.parquet    what was checked of every capture, one row per finding (see verdict_table.py)
summary.json        counts, verdicts, failures and notes
performance.json    seconds of all workers by stage, and those elapsed, of the last start that had work to do
logs/               what workers on Ray printed, one file per start; no result, and never read
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version

import pyarrow as pa
import pyarrow.parquet as pq

from mvpose.capture import Capture, CapturePlan
from mvpose.config import differences
from mvpose.errors import ConfigError, FailureReason, ResultsError
from mvpose.footage.catalogue_table import Catalogue, read_capture, read_captures, read_catalogue
from mvpose.footage.rig_table import rig_from_table
from mvpose.geometry.camera import CameraRig
from mvpose.quality.judgement import Grade, Verdict
from mvpose.records import CaptureTasks, Clip, ClipFailure, Keypoints2D, Kind, Poses3D
from mvpose.run.capture_tables import FigureTable, filtered_from_table
from mvpose.run.plan_scratch import Planned
from mvpose.run.plan_table import planned_digest, read_plan, read_plan_of
from mvpose.run.sequences import concatenated_keypoints, concatenated_poses
from mvpose.run.store import ClipStore, Commit
from mvpose.storage.commits import create_once, write_whole, write_whole_file
from mvpose.storage.locations import exists, join, read_bytes
from mvpose.storage.output_folder import foreign_output, require_output
from mvpose.temporal.filters import FilteredPoses


@dataclass(frozen=True, kw_only=True)
class Summary:
    """The result of a job."""

    captures: int
    clips: int
    frames: int
    """Number of frames of all planned captures."""
    failures: tuple[ClipFailure, ...] = ()
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Figures of merit by capture; for a finished run, they are read on access."""
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    """The verdict on every capture, including those without a result."""
    notes: tuple[str, ...] = ()
    """Assumptions about the footage and its calibration, and what was ignored."""
    plan_digest: str = ""
    """Digest of the plan."""

    def worst_first(self) -> list[tuple[str, Verdict]]:
        """The verdicts with the captures they are on, in order of severity, then of name."""
        return sorted(self.verdicts.items(), key=lambda each: (-each[1].severity, each[0]))

    @property
    def unplanned(self) -> list[ClipFailure]:
        """The captures that could not be planned, of which there are no clips."""
        return [failure for failure in self.failures if failure.stage == "catalogue"]

    @property
    def failed_share(self) -> float:
        """Failed clips as a fraction of all (a capture that could not be planned counts as one)."""
        return len(self.failures) / max(1, self.clips + len(self.unplanned))

    def exit_code(self, max_failed_share: float) -> int:
        """0 complete, 3 complete with an acceptable share of failures, 4 with more."""
        if not self.failures:
            return 0
        return 3 if self.failed_share <= max_failed_share else 4


@dataclass(frozen=True)
class Settings:
    """What two starts of a job must share to be the same job."""

    values: Mapping[str, object]
    """Flat settings on which results depend."""
    plan_digest: str


@dataclass(frozen=True)
class RunFolder:
    """A run folder by its URI; nothing is read or written until a method is called."""

    uri: str

    @property
    def figures_uri(self) -> str:
        """Location of the figures of merit of all captures."""
        return join(self.uri, "figures.parquet")

    @property
    def verdicts_uri(self) -> str:
        """Location of the findings on all captures."""
        return join(self.uri, "verdicts.parquet")

    @property
    def end_tables(self) -> tuple[str, ...]:
        """Locations of the tables that the end of a run writes."""
        return (self.figures_uri, self.verdicts_uri, join(self.uri, "failures", "failures.parquet"))

    def matches(self, settings: Settings) -> bool:
        """Whether this folder was created with these settings; False if it contains no run yet.

        Raises ConfigError, naming the differences, if it was created with other settings.
        """
        if not exists(join(self.uri, "run.json")):
            return False
        before = self.settings()
        differing = differences(dict(before.values), dict(settings.values))
        if differing:
            raise ConfigError(
                f"{self.uri} was created with other settings ({'; '.join(differing)}). Use another output, the same "
                "settings, or --replan to continue with the new ones (results that are still valid are kept)."
            )
        if before.plan_digest != settings.plan_digest:
            raise ConfigError(
                f"the footage, a calibration or the version of mvpose has changed since {self.uri} was created. Use "
                "another output, or --replan to continue with the present state (results still valid are kept)."
            )
        return True

    def require_own(self) -> None:
        """Raises ConfigError if the folder has files but is not a run folder, not even one without its `run.json`."""
        names = require_output(self.uri, "mvpose reconstruct", "run.json", "plan.parquet", "catalogue.parquet")
        with suppress(ResultsError):
            if "run.json" in names and "plan_digest" in _read_json(join(self.uri, "run.json")):
                return
        with suppress(ConfigError):
            if "catalogue.parquet" in names and next(read_captures(join(self.uri, "catalogue.parquet"))):
                return
        if names and not self._planned():
            raise foreign_output(self.uri, "mvpose reconstruct", names)

    def settings(self) -> Settings:
        """The content of `run.json`. Raises ResultsError if the folder is not a run folder."""
        uri = join(self.uri, "run.json")
        if not exists(uri):
            raise ResultsError(f"{self.uri} is not the output of `mvpose reconstruct`: it has no run.json.")
        record = _read_json(uri)
        return Settings(record["settings"], record["plan_digest"])

    def begin(self, settings: Settings, planned: Planned, *, replan: bool) -> None:
        """Claim the folder for these settings and write the plan. A folder with other settings is refused.

        With `replan`, the folder is taken over instead. `run.json` is written first: of two simultaneous first starts,
        one creates it and the other writes nothing. A start that finds the plan missing (its writer died, or somebody
        deleted it) writes it.
        """
        record = {"version": version("mvpose"), "settings": settings.values, "plan_digest": settings.plan_digest}
        data = json.dumps(record, indent=1, default=str).encode()
        if replan:
            write_whole(join(self.uri, "run.json"), data)
        elif not create_once(join(self.uri, "run.json"), data):
            self.matches(settings)
        if replan or self._planned() != settings.plan_digest or not exists(join(self.uri, "catalogue.parquet")):
            write_whole_file(join(self.uri, "catalogue.parquet"), planned.catalogue)
            write_whole_file(join(self.uri, "plan.parquet"), planned.plan)

    def _planned(self) -> str:
        """The digest of the stored plan; empty if there is none or it cannot be read."""
        uri = join(self.uri, "plan.parquet")
        try:
            return planned_digest(pq.read_schema(io.BytesIO(read_bytes(uri)))) if exists(uri) else ""
        except (ValueError, pa.ArrowException):
            return ""

    def tasks(self, digest: str | None = None) -> Iterator[CaptureTasks]:
        """The stored plan, read lazily. Raises ResultsError if it cannot be read or does not have this digest."""
        return read_plan(join(self.uri, "plan.parquet"), digest)

    def plans(self, digest: str | None = None) -> list[CapturePlan]:
        """The plan with its captures. Raises ResultsError like `tasks`."""
        captures = {capture.capture_id: capture for capture in self.catalogue().captures}
        plans = list(self.tasks(digest))
        if unknown := {plan.capture_id for plan in plans} - captures.keys():
            raise ResultsError(f"plan.parquet has captures that catalogue.parquet lacks: {', '.join(sorted(unknown))}.")
        return [_with_capture(plan, captures[plan.capture_id]) for plan in plans]

    def plan_of(self, capture_id: str, digest: str) -> CapturePlan:
        """The plan of one capture; only its parts of the tables are read. Raises ResultsError like `tasks`."""
        plan = read_plan_of(join(self.uri, "plan.parquet"), capture_id, digest)
        return _with_capture(plan, read_capture(join(self.uri, "catalogue.parquet"), capture_id))

    def catalogue(self) -> Catalogue:
        """The captures as they were found, with the problems of unusable ones."""
        return read_catalogue(join(self.uri, "catalogue.parquet"))

    def failures(self) -> list[dict[str, str | int]]:
        """The rows of `failures/`: capture, start, stop, stage, reason, detail."""
        return self._table("failures/failures.parquet").to_pylist()

    def has_ended(self, digest: str) -> bool:
        """Whether the plan of this digest has been carried out."""
        uri = join(self.uri, "summary.json")
        return exists(uri) and _read_json(uri).get("plan_digest") == digest

    def ended(self) -> Summary | None:
        """The result of the plan in `run.json`; None if it has not finished."""
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
            verdicts = {c: Verdict(Grade(v["grade"]), v["reason"]) for c, v in record.pop("verdicts", {}).items()}
            notes = tuple(record.pop("notes"))
            return Summary(failures=failures, notes=notes, figures=figures, verdicts=verdicts, **record)
        except (KeyError, TypeError, ValueError) as error:
            raise ResultsError(f"{uri} is damaged ({error!r}): delete it and run the job again.") from error

    def summary(self) -> Summary:
        """The summary of a finished run. Raises ResultsError if it is unfinished, or the folder is not a run folder."""
        self.settings()
        summary = self.ended()
        if summary is None:
            raise ResultsError(f"{self.uri} is not finished: run the same `mvpose reconstruct` again to resume.")
        return summary

    def performance(self) -> dict[str, float]:
        """Seconds of all workers by stage and `elapsed`, of the last start that had work; empty if none finished."""
        if not exists(join(self.uri, "performance.json")):
            return {}
        return _read_json(join(self.uri, "performance.json"))

    def poses(self, plan: CapturePlan) -> Poses3D | None:
        """All poses of a capture over its frames; None if no clip has any."""
        tables = self._tables(Kind.POSES, plan)
        return concatenated_poses(tables, plan.whole) if tables else None

    def filtered(self, plan: CapturePlan) -> FilteredPoses:
        """Filtered poses of a capture together with its raw ones. The ResultsError raised otherwise states why."""
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
        """The rig with which the poses were computed: the adjusted one if there is one."""
        tables = self._tables(Kind.RIGS, plan)
        return rig_from_table(tables[0]) if tables else plan.capture.rig

    def _tables(self, kind: Kind, plan: CapturePlan) -> list[pa.Table]:
        store = ClipStore(self.uri, kind)
        return [store.read(c) for c in self._commits(kind, plan) if not c.failure]

    def _commits(self, kind: Kind, plan: CapturePlan) -> list[Commit]:
        """Commits of a kind that belong to a capture; empty for a stage that was not requested."""
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
            raise ValueError("not a JSON object")
        return record
    except (OSError, ValueError, RecursionError) as error:
        raise ResultsError(f"{uri} cannot be read ({error}): delete it and run the job again with --replan.") from error
