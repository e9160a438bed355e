"""Overhead of Ray Data over a plain loop with as many processes, on the same clips, in turns.

Both run the stages of the job with the same workers (claim, decode, compute, commit). The detector is a stand-in, so
that decoding takes most of the time. Start-up, until a worker has its first clip, is measured separately. On a shared
machine the ratio of whole turns is unreliable; the gap between two clips of a worker is measured by time stamps and is
the best indicator. The load of Ray's own processes on the workers' cores is included in the former only.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from itertools import groupby, pairwise
from multiprocessing.pool import Pool

from mvpose.benchmarks.scale_footage import STAND_IN, write_archive
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.pipeline.engine import WORKER_ENVIRONMENT, Engine, EngineConfig
from mvpose.pipeline.job import ReconstructJob, plan_job, stage_specs
from mvpose.pipeline.worker import ClipWorker, Outcome, Stage, StageSpec
from mvpose.records import Kind, Task
from mvpose.tracking.circumstances import machine


@dataclass(frozen=True)
class Stamp:
    """Times of a worker at a clip: seconds of the clock shared by all processes of a machine."""

    worker: float
    started: float
    ended: float
    processor: float
    """CPU seconds of all threads of the worker's process."""


class Stamped:
    """A stage that adds a stamp to its output."""

    def __init__(self, make: Callable[..., Stage], arguments: dict[str, object]) -> None:
        self.stage = make(**arguments)

    def __call__(self, task: Task) -> Outcome:
        """The table of the stage, with the stamp instead of its seconds."""
        started, processor = time.monotonic(), time.process_time()
        table = self.stage(task).table
        return Outcome(table, asdict(Stamp(os.getpid(), started, time.monotonic(), time.process_time() - processor)))


RunStage = Callable[[StageSpec, list[Task]], Iterable[dict[str, float]]]


@dataclass(frozen=True, kw_only=True)
class OverheadBenchmark:
    """Ray Data against a plain loop with as many processes, in turns: decoding alone, and the whole job."""

    width: int = 1280
    height: int = 720
    clip_frames: int = 300
    clips: int = 24
    """Clips per turn, in captures of one clip, which is the maximum number of tasks per clip."""
    rounds: int = 5
    """Rounds of one turn of the loop and one of Ray; the order alternates."""
    workers: int = 2
    json: str | None = None
    """Output file for the figures."""


@dataclass(frozen=True)
class Round:
    """One run of the job: start of each stage, and its clips."""

    began: dict[str, float]
    clips: dict[str, list[Stamp]]

    def clip_s(self, kinds: Iterable[str]) -> float:
        """Seconds per clip that a worker is in the stages themselves, without its first clip, for which a new process
        has to allocate memory: 1.3 s at a clip of 720p (measured), once per worker."""
        return sum(
            _mean(clip.ended - clip.started for own in self._workers(kind) for clip in own[1:]) for kind in kinds
        )

    def processor_s(self, kinds: Iterable[str]) -> float:
        """CPU seconds per clip of the stages themselves; without a worker's first clip."""
        return sum(_mean(clip.processor for own in self._workers(kind) for clip in own[1:]) for kind in kinds)

    def between_s(self, kinds: Iterable[str]) -> float:
        """Seconds per clip from the end of a worker's clip to the start of its next: commit, claim, scheduling."""
        return sum(
            _mean(b.started - a.ended for own in self._workers(kind) for a, b in pairwise(own)) for kind in kinds
        )

    def start_s(self, kinds: Iterable[str]) -> float:
        """Seconds from the start of a stage until a worker has its first clip, per worker and stage."""
        return sum(_mean(own[0].started - self.began[kind] for own in self._workers(kind)) for kind in kinds)

    def _workers(self, kind: str) -> list[list[Stamp]]:
        in_order = sorted(self.clips[kind], key=lambda clip: (clip.worker, clip.started))
        return [list(own) for _, own in groupby(in_order, key=lambda clip: clip.worker)]


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def run(config: OverheadBenchmark) -> dict[str, object]:
    """Print each round and the summary; returns figures by name."""
    if config.clips < 4 * config.workers:
        raise ValueError(f"{config.clips} clips for {config.workers} workers: each needs four or more.")
    turns: dict[str, list[Round]] = {"loop": [], "Ray": []}
    engine = Engine(EngineConfig(workers=config.workers))
    with tempfile.TemporaryDirectory() as scratch, _processes(config.workers) as pool:
        size = (config.width, config.height)
        archive = write_archive(os.path.join(scratch, "footage"), config.clips, config.clip_frames, size)
        run_stage: dict[str, RunStage] = {
            "loop": lambda spec, tasks: pool.imap_unordered(partial(_work, spec), tasks),
            "Ray": lambda spec, tasks: (json.loads(r["seconds"]) for r in engine.run(spec, tasks)),
        }
        try:
            engine.start()
            for number in range(config.rounds):
                for name in sorted(turns, reverse=bool(number % 2)):
                    job = _job(config, archive, os.path.join(scratch, f"{name}{number}"))
                    turns[name].append(_turn(job, run_stage[name]))
                for line in _lines({name: own[-1:] for name, own in turns.items()}):
                    print(f"round {number + 1}: {line}", flush=True)
        finally:
            engine.close()
    figures = {"machine": machine("cpu"), **dict(_figures(turns))}
    print("\n".join(["all rounds:", *(f"  {line}" for line in _lines(turns))]))
    if config.json:
        with open(config.json, "w") as file:
            json.dump(figures, file, indent=1)
    return figures


PARTS = {"decoding and 2D": (Kind.KEYPOINTS,), "all stages": tuple(kind for kind in Kind if kind != Kind.RIGS)}


def _figures(turns: dict[str, list[Round]]) -> Iterator[tuple[str, object]]:
    for part, kinds in PARTS.items():
        for name, own in turns.items():
            yield f"{name}: s per clip, {part}", [turn.clip_s(kinds) for turn in own]
            yield f"{name}: CPU s per clip, {part}", [turn.processor_s(kinds) for turn in own]
            yield f"{name}: s between clips, {part}", [turn.between_s(kinds) for turn in own]
            yield f"{name}: s to the first clip, {part}", [turn.start_s(kinds) for turn in own]
        rounds = list(zip(turns["Ray"], turns["loop"], strict=True))
        period = [[turn.clip_s(kinds) + turn.between_s(kinds) for turn in each] for each in rounds]
        processor = [[turn.processor_s(kinds) for turn in each] for each in rounds]
        yield f"Ray over loop, CPU, {part}", [ray / loop - 1 for ray, loop in processor]
        waits = [ray.between_s(kinds) - loop.between_s(kinds) for ray, loop in rounds]
        yield (
            f"Ray over loop, between clips, {part}",
            [wait / loop for wait, (_, loop) in zip(waits, period, strict=True)],
        )
        yield f"Ray over loop, total, {part}", [ray / loop - 1 for ray, loop in period]


def _lines(turns: dict[str, list[Round]]) -> Iterator[str]:
    for name, values in _figures(turns):
        assert isinstance(values, list)
        unit, form = (100, "{:+.1f} %") if "over" in name else (1, "{:.3f}")
        middle = form.format(unit * statistics.median(values))
        spread = f" ({form.format(unit * min(values))} to {form.format(unit * max(values))})" if len(values) > 1 else ""
        yield f"{name:48} {middle}{spread}"


def _job(config: OverheadBenchmark, archive: str, output: str) -> ReconstructJob:
    detector = DetectorConfig(detector=STAND_IN)
    return ReconstructJob(archive=archive, output=output, clip_frames=config.clip_frames, detector=detector)


def _turn(job: ReconstructJob, run_stage: RunStage) -> Round:
    work = plan_job(job)
    work.run.begin(work.settings, work.planned, replan=False)
    turn = Round({}, {})
    for spec in stage_specs(job, work):
        stamped = replace(spec, make=Stamped, arguments={"make": spec.make, "arguments": spec.arguments})
        tasks = [task for plan in work.planned.tasks() for task in plan.tasks(Kind(spec.kind))]
        turn.began[spec.kind] = time.monotonic()
        turn.clips[spec.kind] = [Stamp(**stamp) for stamp in run_stage(stamped, tasks)]
    return turn


@contextmanager
def _processes(workers: int) -> Iterator[Pool]:
    """Waiting processes with the environment of Ray's workers."""
    before = {name: os.environ.get(name) for name in WORKER_ENVIRONMENT}
    os.environ |= WORKER_ENVIRONMENT
    pool = multiprocessing.get_context("spawn").Pool(workers)
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})
    try:
        yield pool
    finally:
        pool.close()
        pool.join()


@cache
def _worker(run_uri: str, kind: str) -> list[ClipWorker]:
    """Cache of a process for its worker of a stage, like a Ray actor's."""
    return []


def _work(spec: StageSpec, task: Task) -> dict[str, float]:
    made = _worker(spec.run_uri, spec.kind)
    if not made:
        made.append(ClipWorker(spec))
    return made[0].run(task).seconds
