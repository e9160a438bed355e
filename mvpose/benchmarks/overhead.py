"""Overhead of Ray over a plain loop with as many processes, on the same captures, in turns.

Both run all stages of the job with the same workers (claim, decode, compute, commit): a process of the loop takes a
capture through all of them. The detector is a stand-in, so that decoding takes most of the time. A turn counts from the
first clip to the last result; start-up before it is measured separately. On a shared machine the ratio of two turns is
unreliable; the share of a worker's time outside of stages is measured by time stamps and is the best indicator.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from multiprocessing.pool import Pool
from typing import Any

from mvpose.benchmarks.scale_footage import STAND_IN, write_archive
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.pipeline.engine import WORKER_ENVIRONMENT, Engine, EngineConfig
from mvpose.pipeline.job import ReconstructJob, job_stages, plan_job
from mvpose.pipeline.open_work import OpenWork
from mvpose.pipeline.worker import ClipStages, JobStages, Outcome, Receipt, Stage, finished
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

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.ended - self.started


class Stamped:
    """A stage that adds a stamp to its output."""

    def __init__(self, make: Callable[..., Stage], arguments: dict[str, object]) -> None:
        self.stage = make(**arguments)

    def __call__(self, task: Task) -> Outcome:
        """The table of the stage, with the stamp instead of its seconds."""
        started, processor = time.monotonic(), time.process_time()
        table = self.stage(task).table
        return Outcome(
            table, asdict(Stamp(float(os.getpid()), started, time.monotonic(), time.process_time() - processor))
        )


Turn = Callable[[JobStages, OpenWork], Iterable[Receipt]]


@dataclass(frozen=True, kw_only=True)
class OverheadBenchmark:
    """Ray against a plain loop with as many processes, in turns, and how early the first capture is done."""

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
    """One run of the job: when it was started, and what its workers did."""

    began: float
    stamps: dict[str, list[Stamp]]
    """By stage."""

    @property
    def start_s(self) -> float:
        """Seconds until the first clip: processes, imports, weights."""
        return min(stamp.started for own in self.stamps.values() for stamp in own) - self.began

    @property
    def span_s(self) -> float:
        """Seconds from the first clip to the last result."""
        return max(stamp.ended for own in self.stamps.values() for stamp in own) - self.began - self.start_s

    @property
    def processor_s(self) -> float:
        """CPU seconds of all stages per clip."""
        clips = len(self.stamps[Kind.KEYPOINTS])
        return sum(stamp.processor for own in self.stamps.values() for stamp in own) / clips

    @property
    def idle_share(self) -> float:
        """Share of the time of the workers that detect, from their first to their last stage, outside of stages."""
        workers = {stamp.worker for stamp in self.stamps[Kind.KEYPOINTS]}
        own = [stamp for stamps in self.stamps.values() for stamp in stamps if stamp.worker in workers]
        there = sum(
            max(s.ended for s in own if s.worker == worker) - min(s.started for s in own if s.worker == worker)
            for worker in workers
        )
        return 1 - sum(stamp.seconds for stamp in own) / there

    @property
    def first_capture_share(self) -> float:
        """When the first capture has its last result, as a share of the time from the first clip to the last result."""
        return (min(stamp.ended for stamp in self.stamps[Kind.QUALITY]) - self.began - self.start_s) / self.span_s


def run(config: OverheadBenchmark) -> dict[str, object]:
    """Print each round and the summary; returns figures by name."""
    if config.clips < 4 * config.workers:
        raise ValueError(f"{config.clips} clips for {config.workers} workers: each needs four or more.")
    turns: dict[str, list[Round]] = {"loop": [], "Ray": []}
    engine = Engine(EngineConfig(workers=config.workers))
    with tempfile.TemporaryDirectory() as scratch, _processes(config.workers) as pool:
        size = (config.width, config.height)
        archive = write_archive(os.path.join(scratch, "footage"), config.clips, config.clip_frames, size)
        turn: dict[str, Turn] = {"loop": partial(_in_processes, pool), "Ray": engine.run}
        try:
            engine.start()
            for number in range(config.rounds):
                for name in sorted(turns, reverse=bool(number % 2)):
                    job = _job(config, archive, os.path.join(scratch, f"{name}{number}"))
                    turns[name].append(_turn(job, turn[name]))
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


def _figures(turns: dict[str, list[Round]]) -> Iterator[tuple[str, list[float]]]:
    for name, own in turns.items():
        yield f"{name}: s from first clip to last result", [turn.span_s for turn in own]
        yield f"{name}: s to the first clip", [turn.start_s for turn in own]
        yield f"{name}: CPU s per clip", [turn.processor_s for turn in own]
        yield f"{name}: share of workers' time outside of stages", [turn.idle_share for turn in own]
        yield f"{name}: share of the job until the first capture is done", [turn.first_capture_share for turn in own]
    for what in ("span_s", "processor_s"):
        ratios = [getattr(a, what) / getattr(b, what) for a, b in zip(turns["Ray"], turns["loop"], strict=True)]
        yield f"Ray over loop, {'total' if what == 'span_s' else 'CPU'}", [ratio - 1 for ratio in ratios]


def _lines(turns: dict[str, list[Round]]) -> Iterator[str]:
    for name, values in _figures(turns):
        unit, form = (100, "{:+.1f} %") if "over" in name or "share" in name else (1, "{:.3f}")
        middle = form.format(unit * statistics.median(values))
        spread = f" ({form.format(unit * min(values))} to {form.format(unit * max(values))})" if len(values) > 1 else ""
        yield f"{name:58} {middle}{spread}"


def _job(config: OverheadBenchmark, archive: str, output: str) -> ReconstructJob:
    detector = DetectorConfig(detector=STAND_IN)
    return ReconstructJob(archive=archive, output=output, clip_frames=config.clip_frames, detector=detector)


def _turn(job: ReconstructJob, run: Turn) -> Round:
    work = plan_job(job)
    work.run.begin(work.settings, work.planned, replan=False)
    stages = job_stages(job, work)
    stamped = stages.changed(
        lambda spec: replace(spec, make=Stamped, arguments={"make": spec.make, "arguments": spec.arguments})
    )
    kinds = [Kind(spec.kind) for spec in stages.of_clips]
    todo = OpenWork.of(job.output, work.planned.tasks(), kinds)
    began, stamps = time.monotonic(), defaultdict(list)
    for receipt in run(stamped, todo):
        stamps[receipt["stage"]].append(Stamp(**receipt["seconds"]))
    return Round(began, dict(stamps))


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


def _in_processes(pool: Pool, stages: JobStages, work: OpenWork) -> Iterator[Receipt]:
    rows = [row for table in work.tables for row in table.to_pylist()]
    return chain.from_iterable(pool.imap_unordered(partial(_work, stages), rows))


_KEPT: dict[str, ClipStages] = {}
"""The stages of clips of a process by the run, like those of a Ray actor."""


def _work(stages: JobStages, row: dict[str, Any]) -> list[Receipt]:
    """All stages of a capture of one clip."""
    of_clips = _KEPT.setdefault(stages.of_clips[0].run_uri, ClipStages(stages.of_clips))
    return of_clips.receipts(row) + finished(stages, row["capture_id"])
