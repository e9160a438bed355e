"""What Ray Data costs beside a plain loop in as many processes, on the same clips, in turns.

Both do the stages of the job with the same workers (claim, decode, compute, commit); the detector is a stand-in, so
that decoding is what takes the time. Start-up is apart: a clip's time is counted from the moment when each worker has
done one. On a machine that others use too, single figures mean little: the ratio of neighbours in time does.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mvpose.benchmarks.machine import machine
from mvpose.benchmarks.scale_footage import STAND_IN, write_archive
from mvpose.models.detector import DetectorConfig
from mvpose.pipeline.engine import WORKER_ENVIRONMENT, Engine, EngineConfig
from mvpose.pipeline.job import ReconstructJob, plan_job, stage_specs
from mvpose.pipeline.worker import ClipWorker, StageSpec
from mvpose.records import Kind, Task


@dataclass(frozen=True, kw_only=True)
class OverheadBenchmark:
    """Ray Data against a plain loop in as many processes, in turns: decoding alone, and the whole job."""

    width: int = 1280
    height: int = 720
    clip_frames: int = 300
    clips: int = 12
    """Of each turn, in captures of one clip: the most tasks that a clip can have."""
    rounds: int = 5
    """Each of a turn of the loop and one of Ray; who begins alternates."""
    workers: int = 2
    json: str | None = None
    """File for the figures."""


@dataclass(frozen=True)
class Turn:
    """The job once: of each stage when its clips were done, in seconds from its start."""

    done: dict[str, list[float]]
    workers: int

    def clip_s(self, kinds: Iterable[str]) -> float:
        """Seconds a clip in these stages, all workers together, once each of them has done one."""
        times = [self.done[kind] for kind in kinds]
        return sum((t[-1] - t[self.workers - 1]) / (len(t) - self.workers) for t in times)

    def start_s(self, kinds: Iterable[str]) -> float:
        """Seconds of these stages that go beyond that."""
        return sum(self.done[kind][-1] - len(self.done[kind]) * self.clip_s([kind]) for kind in kinds)


def run(config: OverheadBenchmark) -> dict[str, object]:
    """Print each round and what comes of all; the figures by name."""
    if config.clips < 2 * config.workers:
        raise ValueError(f"{config.clips} clips for {config.workers} workers: each has to do two or more.")
    turns: dict[str, list[Turn]] = {"loop": [], "Ray": []}
    engine = Engine(EngineConfig(workers=config.workers))
    with tempfile.TemporaryDirectory() as scratch:
        archive = write_archive(
            os.path.join(scratch, "footage"), config.clips, config.clip_frames, (config.width, config.height)
        )
        try:
            engine.start()
            for number in range(config.rounds):
                for name in sorted(turns, reverse=bool(number % 2)):
                    output = os.path.join(scratch, f"{name}{number}")
                    turns[name].append(_turn(config, archive, output, engine if name == "Ray" else None))
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
            yield f"{name}: s of start, {part}", [turn.start_s(kinds) for turn in turns[name]]
        yield f"Ray over loop, {part}", [ray / loop - 1 for ray, loop in zip(clip["Ray"], clip["loop"], strict=True)]


def _told(turns: dict[str, list[Turn]]) -> Iterator[str]:
    for name, values in _figures(turns):
        assert isinstance(values, list)
        unit, form = (100, "{:+.1f} %") if "over" in name else (1, "{:.3f}")
        middle = form.format(unit * statistics.median(values))
        spread = f" ({form.format(unit * min(values))} to {form.format(unit * max(values))})" if len(values) > 1 else ""
        yield f"{name:36} {middle}{spread}"


def _turn(config: OverheadBenchmark, archive: str, output: str, engine: Engine | None) -> Turn:
    job = ReconstructJob(
        archive=archive, output=output, clip_frames=config.clip_frames, detector=DetectorConfig(detector=STAND_IN)
    )
    work = plan_job(job)
    work.run.begin(work.settings, work.planned, replan=False)
    done = {}
    for spec in stage_specs(job, work):
        tasks = [task for plan in work.planned.tasks() for task in plan.tasks(Kind(spec.kind))]
        started = time.perf_counter()
        results = _in_processes(spec, tasks, config.workers) if engine is None else engine.run(spec, tasks)
        done[spec.kind] = [time.perf_counter() - started for _ in results]
    return Turn(done, config.workers)


def _in_processes(spec: StageSpec, tasks: list[Task], workers: int) -> Iterator[bool]:
    """A plain loop in each of some processes, with the environment that Ray's workers have."""
    before = {name: os.environ.get(name) for name in WORKER_ENVIRONMENT}
    os.environ |= WORKER_ENVIRONMENT
    try:
        with multiprocessing.get_context("spawn").Pool(workers, _begin, (spec,)) as pool:
            yield from pool.imap_unordered(_work, tasks)
            pool.close()
            pool.join()
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _begin(spec: StageSpec) -> None:
    global _WORKER
    _WORKER = ClipWorker(spec)


def _work(task: Task) -> bool:
    return _WORKER.run(task).failure is None
