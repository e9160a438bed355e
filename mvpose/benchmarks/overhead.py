"""What Ray Data costs beside a plain loop in as many processes, on the same clips, in turns.

Both do the stages of the job with the same workers (claim, decode, compute, commit); the detector is a stand-in, so
that decoding is what takes the time. Start-up, until a worker has its first clip, is apart. On a machine that others
use too the ratio of whole turns says little; what a worker waits between two clips is stamped, and says most. What
Ray's own processes take from the workers' cores is in the former alone.
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
from mvpose.models.detection.detector import DetectorConfig
from mvpose.pipeline.engine import WORKER_ENVIRONMENT, Engine, EngineConfig
from mvpose.pipeline.job import ReconstructJob, plan_job, stage_specs
from mvpose.pipeline.worker import ClipWorker, Outcome, Stage, StageSpec
from mvpose.records import Kind, Task
from mvpose.tracking.circumstances import machine


@dataclass(frozen=True)
class Stamp:
    """When a worker was at a clip: seconds of the clock that all processes of a machine share."""

    worker: float
    started: float
    ended: float
    processor: float
    """Seconds of all threads of the worker's process."""


class Stamped:
    """A stage that stamps what it makes."""

    def __init__(self, make: Callable[..., Stage], arguments: dict[str, object]) -> None:
        self.stage = make(**arguments)

    def __call__(self, task: Task) -> Outcome:
        """The table of the stage, with the stamp in place of its seconds."""
        started, processor = time.monotonic(), time.process_time()
        table = self.stage(task).table
        return Outcome(table, asdict(Stamp(os.getpid(), started, time.monotonic(), time.process_time() - processor)))


RunStage = Callable[[StageSpec, list[Task]], Iterable[dict[str, float]]]


@dataclass(frozen=True, kw_only=True)
class OverheadBenchmark:
    """Ray Data against a plain loop in as many processes, in turns: decoding alone, and the whole job."""

    width: int = 1280
    height: int = 720
    clip_frames: int = 300
    clips: int = 24
    """Of each turn, in captures of one clip: the most tasks that a clip can have."""
    rounds: int = 5
    """Each of a turn of the loop and one of Ray; who begins alternates."""
    workers: int = 2
    json: str | None = None
    """File for the figures."""


@dataclass(frozen=True)
class Round:
    """The job once: when each stage began, and its clips."""

    began: dict[str, float]
    clips: dict[str, list[Stamp]]

    def clip_s(self, kinds: Iterable[str]) -> float:
        """Seconds that a worker is in the stages themselves, a clip; without its first, which a new process has to
        find memory for: 1.3 s at a clip of 720p (measured), once a worker."""
        return sum(
            _mean(clip.ended - clip.started for own in self._workers(kind) for clip in own[1:]) for kind in kinds
        )

    def processor_s(self, kinds: Iterable[str]) -> float:
        """Seconds of processor that the stages themselves take, a clip; without a worker's first."""
        return sum(_mean(clip.processor for own in self._workers(kind) for clip in own[1:]) for kind in kinds)

    def between_s(self, kinds: Iterable[str]) -> float:
        """Seconds of a worker from the end of a clip to the start of the next, a clip: commit, claim, scheduling."""
        return sum(
            _mean(b.started - a.ended for own in self._workers(kind) for a, b in pairwise(own)) for kind in kinds
        )

    def start_s(self, kinds: Iterable[str]) -> float:
        """Seconds from the begin of a stage until a worker has its first clip in hand, a worker and stage."""
        return sum(_mean(own[0].started - self.began[kind] for own in self._workers(kind)) for kind in kinds)

    def _workers(self, kind: str) -> list[list[Stamp]]:
        in_order = sorted(self.clips[kind], key=lambda clip: (clip.worker, clip.started))
        return [list(own) for _, own in groupby(in_order, key=lambda clip: clip.worker)]


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def run(config: OverheadBenchmark) -> dict[str, object]:
    """Print each round and what comes of all; the figures by name."""
    if config.clips < 4 * config.workers:
        raise ValueError(f"{config.clips} clips for {config.workers} workers: each has to do four or more.")
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
            yield f"{name}: s of a clip, {part}", [turn.clip_s(kinds) for turn in own]
            yield f"{name}: s of processor, {part}", [turn.processor_s(kinds) for turn in own]
            yield f"{name}: s between clips, {part}", [turn.between_s(kinds) for turn in own]
            yield f"{name}: s to the first clip, {part}", [turn.start_s(kinds) for turn in own]
        rounds = list(zip(turns["Ray"], turns["loop"], strict=True))
        period = [[turn.clip_s(kinds) + turn.between_s(kinds) for turn in each] for each in rounds]
        processor = [[turn.processor_s(kinds) for turn in each] for each in rounds]
        yield f"Ray over loop, processor, {part}", [ray / loop - 1 for ray, loop in processor]
        waits = [ray.between_s(kinds) - loop.between_s(kinds) for ray, loop in rounds]
        yield (
            f"Ray over loop, between clips, {part}",
            [wait / loop for wait, (_, loop) in zip(waits, period, strict=True)],
        )
        yield f"Ray over loop, in all, {part}", [ray / loop - 1 for ray, loop in period]


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
    """Processes that wait for work, with the environment that Ray's workers have."""
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
    """Room for the one that a process makes of a stage, as an actor of Ray does."""
    return []


def _work(spec: StageSpec, task: Task) -> dict[str, float]:
    made = _worker(spec.run_uri, spec.kind)
    if not made:
        made.append(ClipWorker(spec))
    return made[0].run(task).seconds
