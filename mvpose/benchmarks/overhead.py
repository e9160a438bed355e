"""What Ray Data costs beside a plain loop in as many processes, on the same clips, in turns.

Both do the stages of the job with the same workers (claim, decode, compute, commit); the detector is a stand-in, so
that decoding is what takes the time. Start-up is apart: a clip's time is counted over the second half of a stage. On a
machine that others use too single figures mean little, ratios of neighbours in time more, and most what a worker waits
between two clips: both parts of that share are of the same seconds.
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
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing.pool import Pool

import numpy as np

from mvpose.benchmarks.machine import machine
from mvpose.benchmarks.scale_footage import STAND_IN, write_archive
from mvpose.models.detector import DetectorConfig
from mvpose.pipeline.engine import WORKER_ENVIRONMENT, Engine, EngineConfig
from mvpose.pipeline.job import ReconstructJob, plan_job, stage_specs
from mvpose.pipeline.worker import ClipWorker, StageSpec
from mvpose.records import Kind, Task

RunStage = Callable[[StageSpec, list[Task]], Iterable[float]]
"""The seconds that each task took in its worker, as they are done."""


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
class Turn:
    """The job once: of each stage when its clips were done, in seconds from its start, and how long each took."""

    done: dict[str, list[tuple[float, float]]]
    workers: int

    def clip_s(self, kinds: Iterable[str]) -> float:
        """Seconds a clip in these stages, all workers together: the slope over the second half of the clips, when all
        workers are up."""
        return sum(float(np.polyfit(np.arange(len(half)), half[:, 0], 1)[0]) for half in self._second_halves(kinds))

    def between_s(self, kinds: Iterable[str]) -> float:
        """Seconds of a worker between two clips, a clip: what a scheduler adds, whoever else uses the machine."""
        halves = zip(kinds, self._second_halves(kinds), strict=True)
        return sum(self.workers * self.clip_s([kind]) - float(half[:, 1].mean()) for kind, half in halves)

    def start_s(self, kinds: Iterable[str]) -> float:
        """Seconds of these stages beyond those of their clips."""
        return sum(self.done[kind][-1][0] - len(self.done[kind]) * self.clip_s([kind]) for kind in kinds)

    def _second_halves(self, kinds: Iterable[str]) -> list[np.ndarray]:
        return [np.array(self.done[kind][len(self.done[kind]) // 2 :]) for kind in kinds]


def run(config: OverheadBenchmark) -> dict[str, object]:
    """Print each round and what comes of all; the figures by name."""
    if config.clips < 4 * config.workers:
        raise ValueError(f"{config.clips} clips for {config.workers} workers: each has to do four or more.")
    turns: dict[str, list[Turn]] = {"loop": [], "Ray": []}
    engine = Engine(EngineConfig(workers=config.workers))
    with tempfile.TemporaryDirectory() as scratch, _processes(config.workers) as pool:
        size = (config.width, config.height)
        archive = write_archive(os.path.join(scratch, "footage"), config.clips, config.clip_frames, size)
        run_stage: dict[str, RunStage] = {
            "loop": lambda spec, tasks: pool.imap_unordered(partial(_work, spec), tasks),
            "Ray": lambda spec, tasks: (float(receipt["wall"]) for receipt in engine.run(spec, tasks)),
        }
        try:
            engine.start()
            for number in range(config.rounds):
                for name in sorted(turns, reverse=bool(number % 2)):
                    job = _job(config, archive, os.path.join(scratch, f"{name}{number}"))
                    turns[name].append(_turn(job, config.workers, run_stage[name]))
                for line in _told({name: own[-1:] for name, own in turns.items()}):
                    print(f"round {number + 1}: {line}", flush=True)
        finally:
            engine.close()
    figures = {"machine": machine("cpu"), **dict(_figures(turns))}
    print("\n".join(["all rounds:", *(f"  {line}" for line in _told(turns))]))
    if config.json:
        with open(config.json, "w") as file:
            json.dump(figures, file, indent=1)
    return figures


PARTS = {"decoding and 2D": (Kind.KEYPOINTS,), "all stages": tuple(kind for kind in Kind if kind != Kind.RIGS)}


def _figures(turns: dict[str, list[Turn]]) -> Iterator[tuple[str, object]]:
    for part, kinds in PARTS.items():
        clip = {name: [turn.clip_s(kinds) for turn in own] for name, own in turns.items()}
        for name, values in clip.items():
            yield f"{name}: s a clip, {part}", values
            yield f"{name}: s of a worker between clips, {part}", [turn.between_s(kinds) for turn in turns[name]]
            yield f"{name}: s of start, {part}", [turn.start_s(kinds) for turn in turns[name]]
        waits = [(t.between_s(kinds), t.workers * t.clip_s(kinds)) for t in turns["Ray"]]
        yield f"Ray: between clips over clips, {part}", [wait / (period - wait) for wait, period in waits]
        yield f"Ray over loop, {part}", [ray / loop - 1 for ray, loop in zip(clip["Ray"], clip["loop"], strict=True)]


def _told(turns: dict[str, list[Turn]]) -> Iterator[str]:
    for name, values in _figures(turns):
        assert isinstance(values, list)
        unit, form = (100, "{:+.1f} %") if "over" in name else (1, "{:.3f}")
        middle = form.format(unit * statistics.median(values))
        spread = f" ({form.format(unit * min(values))} to {form.format(unit * max(values))})" if len(values) > 1 else ""
        yield f"{name:48} {middle}{spread}"


def _job(config: OverheadBenchmark, archive: str, output: str) -> ReconstructJob:
    detector = DetectorConfig(detector=STAND_IN)
    return ReconstructJob(archive=archive, output=output, clip_frames=config.clip_frames, detector=detector)


def _turn(job: ReconstructJob, workers: int, run_stage: RunStage) -> Turn:
    work = plan_job(job)
    work.run.begin(work.settings, work.planned, replan=False)
    done = {}
    for spec in stage_specs(job, work):
        tasks = [task for plan in work.planned.tasks() for task in plan.tasks(Kind(spec.kind))]
        started = time.perf_counter()
        done[spec.kind] = [(time.perf_counter() - started, wall) for wall in run_stage(spec, tasks)]
    return Turn(done, workers)


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


def _work(spec: StageSpec, task: Task) -> float:
    made = _worker(spec.run_uri, spec.kind)
    if not made:
        made.append(ClipWorker(spec))
    started = time.perf_counter()
    made[0].run(task)
    return time.perf_counter() - started
