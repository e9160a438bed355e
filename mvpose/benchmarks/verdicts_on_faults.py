"""Verdicts on takes with planted faults: how many faults are named, and how many good takes are blamed.

Takes are motion capture before random cameras with the errors of the real detector, or the 2D joints of finished runs.
Each is reconstructed and judged as in a job.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from mvpose.benchmarks.planted_faults import CalibratedTake, Planted, faults, take_of
from mvpose.benchmarks.planted_recording_faults import recording_faults
from mvpose.datasets.sample import TRAIN
from mvpose.errors import ConfigError, MvposeError
from mvpose.quality.findings import CheckKind, Finding, PreflightConfig, Status
from mvpose.quality.judgement import Grade, ranked, verdict_of
from mvpose.quality.pose_findings import pose_findings
from mvpose.quality.preflight import preflight, sampled_runs
from mvpose.quality.quality import quality
from mvpose.reconstruction.clip import reconstruct
from mvpose.reconstruction.reconstruction_settings import ReconstructionConfig
from mvpose.reconstruction.view_errors import keypoints_at
from mvpose.rendering.keypoint_source import KeypointSource, keypoint_clip
from mvpose.run.run_folder import RunFolder

NO_FAULT = "none"
FPS = 30.0


@dataclass(frozen=True, kw_only=True)
class VerdictBenchmark:
    """Plant faults into drawn takes or finished runs, and list the verdicts."""

    runs: tuple[str, ...] = ()
    """Outputs of `mvpose reconstruct` whose 2D joints are used instead of drawn takes."""
    takes: int = 50
    """Number of drawn takes."""
    seconds: float = 10.0
    """Length of a drawn take."""
    views: int = 4
    """Cameras of a drawn take."""
    faults: tuple[str, ...] = ()
    """Only these rows of the table, by the start of their name (default: all)."""
    seed: int = 0
    reconstruction: ReconstructionConfig = field(default_factory=ReconstructionConfig)
    json: str | None = None
    """Output file for the verdict on every take."""


@dataclass(frozen=True)
class JudgedTake:
    """The verdict on a take with a fault."""

    take: str
    fault: str
    grade: Grade
    named: bool
    """Whether the deciding finding is of the planted kind and names exactly the cameras at fault."""
    falsely_blamed: bool
    """Whether the deciding finding fails a camera that is not at fault."""
    reason: str
    figures: dict[str, float]


def run(config: VerdictBenchmark) -> None:
    """Judge, print a table, write JSON."""
    takes = list(_of_runs(config.runs) if config.runs else _drawn(config))
    if not takes:
        raise ConfigError(f"{', '.join(config.runs)}: no capture with 2D joints.")
    found = list(_judged(takes, config))
    by_fault: dict[str, list[JudgedTake]] = defaultdict(list)
    for each in found:
        by_fault[each.fault].append(each)
    grades = "".join(f"{grade:>7s}" for grade in Grade)
    print(f"{'planted fault':38s} {'takes':>5s} {grades} {'named':>5s} {'falsely blamed':>14s}")
    for fault, of_fault in by_fault.items():
        count = Counter(each.grade for each in of_fault)
        grades = "".join(f"{count[grade]:7d}" for grade in Grade)
        named = f"{sum(each.named for each in of_fault):5d}" if fault != NO_FAULT else "    -"
        falsely = sum(each.falsely_blamed for each in of_fault)
        print(f"{fault:38s} {len(of_fault):5d} {grades} {named} {falsely:14d}")
    for each in found:
        if not each.named:
            print(f"  {each.fault}, {each.take}: {each.grade}: {each.reason}")
    if config.json:
        with open(config.json, "w", encoding="utf-8") as file:
            json.dump([asdict(each) for each in found], file, indent=1)


def take_findings(take: CalibratedTake, config: ReconstructionConfig) -> list[Finding]:
    """All findings on a take, as in a job."""
    num_frames = take.keypoints.xy.shape[1]
    frames = np.concatenate([np.asarray(part) for part in sampled_runs(num_frames, PreflightConfig())])
    checked = preflight(keypoints_at(take.keypoints, frames), frames, take.rig, take.fps, PreflightConfig())
    try:
        poses = reconstruct(take.keypoints, take.rig, config, take.fps)
    except MvposeError as error:
        return [*checked.findings, Finding(check=CheckKind.POSES, status=Status.FAIL, reason=str(error))]
    figures = quality(poses, take.keypoints, take.rig, take.fps, config)
    return [*checked.findings, *pose_findings(figures, config.max_error, num_frames, 0)]


def _of_runs(uris: Sequence[str]) -> Iterator[CalibratedTake]:
    for uri in uris:
        folder = RunFolder(uri)
        for plan in folder.plans():
            keypoints = folder.keypoints(plan)
            if keypoints is not None:
                yield CalibratedTake(f"{uri}/{plan.capture_id}", keypoints, folder.rig(plan), plan.capture.fps)


def _drawn(config: VerdictBenchmark) -> Iterator[CalibratedTake]:
    source = KeypointSource(views=config.views, frames=round(config.seconds * FPS), fps=FPS, seed=config.seed)
    for i in range(config.takes):
        clip = keypoint_clip(source, TRAIN, i)
        yield take_of(clip, f"{i} {clip.action}")


def _judged(takes: list[CalibratedTake], config: VerdictBenchmark) -> Iterator[JudgedTake]:
    for i, take in enumerate(takes):
        rows = {NO_FAULT: lambda take, _: Planted(take, ()), **faults(), **recording_faults()}
        for name, fault in rows.items():
            if not config.faults or name.startswith(config.faults):
                planted = fault(take, np.random.default_rng([config.seed, i]))
                yield _verdict_on(planted, name, config.reconstruction)


def _verdict_on(planted: Planted, fault: str, config: ReconstructionConfig) -> JudgedTake:
    found = take_findings(planted.take, config)
    verdict, first = verdict_of(found), ranked(found)[0]
    blamed = verdict.grade != Grade.GOOD
    return JudgedTake(
        take=planted.take.name,
        fault=fault,
        grade=verdict.grade,
        named=blamed == bool(planted.checks)
        and (not blamed or (first.check in planted.checks and set(first.cameras) == set(planted.cameras))),
        falsely_blamed=verdict.grade == Grade.BAD and bool(set(first.cameras) - set(planted.cameras)),
        reason=verdict.reason,
        figures={
            f"{f.check}/{name}": value for f in found if f.check in _OF_POSES for name, value in f.figures.items()
        },
    )


_OF_POSES = (CheckKind.POSES, CheckKind.LEFT_OUT, CheckKind.VIEWS, CheckKind.BONES, CheckKind.SPEED)
