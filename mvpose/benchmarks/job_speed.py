"""Cost of a camera's frame, and throughput of the batch job, on the user's own footage."""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from mvpose.capture import Capture
from mvpose.footage.archive_settings import CatalogueConfig
from mvpose.footage.catalogue import find_captures
from mvpose.models.detection.runtime import own_bfloat16
from mvpose.pipeline.detections import chunks_of_views
from mvpose.pipeline.engine import EngineConfig
from mvpose.pipeline.job import ReconstructJob, placed, plan_job, reconstruct_archive, stage_specs
from mvpose.pipeline.job_settings import AUTO, NO_MODEL
from mvpose.records import Clip, Kind
from mvpose.run.pose_tables import keypoints_from_table
from mvpose.run.run_folder import RunFolder
from mvpose.run.store import TableFile
from mvpose.tracking.circumstances import peak_mib

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class JobBenchmark:
    """CPU time of decoding and detection alone, and frames per second of the whole job with and without Ray."""

    archive: str
    """Archive with at least one capture."""
    catalogue: CatalogueConfig = field(default_factory=CatalogueConfig)
    clip_frames: int = 25
    workers: int = 2
    json: str | None = None
    """Output file for the figures."""


def run(config: JobBenchmark) -> dict[str, float]:
    """Print one line per measurement; returns figures by name. In frames/s, a frame counts once for all cameras."""
    with tempfile.TemporaryDirectory() as scratch:
        job = ReconstructJob(
            archive=config.archive,
            output=os.path.join(scratch, "stages"),
            clip_frames=config.clip_frames,
            catalogue=config.catalogue,
        )
        captures = find_captures(config.archive, job.catalogue).captures
        figures = (
            dict(_stages(job, captures[0])) | dict(_costs(job, scratch)) | dict(_jobs(job, config.workers, scratch))
        )
    for name, value in figures.items():
        print(f"{name:64} {value:10.2f}")
    if config.json:
        with open(config.json, "w") as file:
            json.dump(figures, file, indent=1)
    return figures


def _stages(job: ReconstructJob, capture: Capture) -> Iterator[tuple[str, float]]:
    """CPU time of the first stage for a frame of one camera: its first clip, in this process, for the second time."""
    for precision in ("float32", own_bfloat16()):
        if precision is None:
            continue
        for model in (NO_MODEL, AUTO):
            own = placed(replace(job, model=model, detector=replace(job.detector, precision=precision), replan=True))
            work = plan_job(own)
            work.run.begin(work.settings, work.planned, replan=True)
            spec = next(stage_specs(own, work))
            stage, task = (
                spec.make(**spec.arguments),
                next(iter(next(iter(work.planned.tasks())).tasks(Kind.KEYPOINTS))),
            )
            stage(task)
            outcome, seconds = _cpu_seconds(partial(stage, task))
            frames = (task.clip.stop - task.clip.start) * len(capture.videos)
            yield f"2D joints, {precision}, model {model}: CPU ms/camera-frame", 1000 * seconds / frames
    assert not isinstance(outcome.table, TableFile)
    seen, _ = keypoints_from_table(outcome.table)
    yield "people/camera-frame", (seen.box_score > 0).sum() / frames
    clip = Clip(capture.capture_id, task.clip.start, task.clip.stop)
    chunks = chunks_of_views(capture.videos, clip, job.detector.look(capture.fps)[0], as_decoded=True)
    yield "decode: CPU ms/camera-frame", 1000 * _cpu_seconds(lambda: deque(chunks, 0))[1] / frames


def _costs(job: ReconstructJob, scratch: str) -> Iterator[tuple[str, float]]:
    """CPU time and memory of the whole job in a plain loop, with fusion and without, in a process each."""
    for model in (NO_MODEL, AUTO):
        own = replace(job, output=os.path.join(scratch, f"cost {model}"), model=model, engine=EngineConfig(local=True))
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            cpu_s, memory_mib = process.submit(_cost, own).result()
        yield f"whole job, model {model}: CPU s", cpu_s
        yield f"whole job, model {model}: peak memory, MiB", memory_mib


def _cost(job: ReconstructJob) -> tuple[float, float]:
    """Seconds of CPU time and peak memory of this process, with its imports."""
    reconstruct_archive(job)
    return time.process_time(), peak_mib()


def _jobs(job: ReconstructJob, workers: int, scratch: str) -> Iterator[tuple[str, float]]:
    """The whole job: a plain loop, Ray with one worker, Ray with several."""
    engines = {
        "plain loop": EngineConfig(local=True),
        "Ray, 1 worker": EngineConfig(workers=1),
        f"Ray, {workers} workers": EngineConfig(workers=workers),
    }
    seconds = {}
    for name, engine in engines.items():
        output = os.path.join(scratch, name)
        changed = replace(job, output=output, engine=engine)
        summary, seconds[name] = _timed(lambda job=changed: reconstruct_archive(job))
        stages = RunFolder(output).performance()
        yield f"job {name} frames/s", summary.frames / seconds[name]
        yield f"  {name}: keypoints frames/s of a worker", summary.frames / stages["keypoints"]
    yield "Ray, 1 worker / plain loop", seconds["Ray, 1 worker"] / seconds["plain loop"]


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def _cpu_seconds(work: Callable[[], T]) -> tuple[T, float]:
    start = time.process_time()
    result = work()
    return result, time.process_time() - start
