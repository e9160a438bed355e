"""Throughput of the batch job and of its stages, on the user's own footage."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from mvpose.footage.catalogue import find_captures
from mvpose.footage.video.capture_frames import view_frames
from mvpose.models.detection.detector import load_detector, scale_of
from mvpose.pipeline.engine import EngineConfig
from mvpose.pipeline.job import ReconstructJob, reconstruct_archive
from mvpose.pipeline.stages import stack_people
from mvpose.reconstruction.clip import reconstruct
from mvpose.records import Capture
from mvpose.run.run_folder import RunFolder

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class JobBenchmark:
    """Frames per second of decoding, detection and reconstruction alone, and of the whole job with and without Ray."""

    archive: str
    """Archive with at least one capture."""
    clip_frames: int = 25
    workers: int = 2
    json: str | None = None
    """Output file for the figures."""


def run(config: JobBenchmark) -> dict[str, float]:
    """Print one line per measurement; returns figures by name. A frame counts once, for any number of cameras."""
    with tempfile.TemporaryDirectory() as scratch:
        job = ReconstructJob(archive=config.archive, output=scratch, clip_frames=config.clip_frames)
        captures = find_captures(config.archive, job.catalogue).captures
        figures = dict(_stages(job, captures[0])) | dict(_jobs(job, config.workers, scratch))
    for name, value in figures.items():
        print(f"{name:32} {value:10.2f}")
    if config.json:
        with open(config.json, "w") as file:
            json.dump(figures, file, indent=1)
    return figures


def _stages(job: ReconstructJob, capture: Capture) -> Iterator[tuple[str, float]]:
    """Each stage alone in this process, one thread: frames of the first capture per second."""
    frames, cameras = capture.num_frames, len(capture.videos)
    detector = load_detector(job.detector)

    def decode() -> list[list]:
        views = [view_frames(v, 0, frames, detector.chunk_frames) for v in capture.videos]
        return [[view.images for view in chunk] for chunk in zip(*views, strict=True)]

    chunks, decode_s = _timed(decode)
    found, detect_s = _timed(lambda: [detector(chunk) for chunk in chunks])
    views = [[people for chunk in found for people in chunk[v]] for v in range(cameras)]
    keypoints = stack_people(views, detector.skeleton, scale_of(detector))
    _, reconstruct_s = _timed(lambda: reconstruct(keypoints, capture.rig, job.reconstruction, capture.fps))
    for name, seconds in [("decode", decode_s), ("detect", detect_s), ("reconstruct", reconstruct_s)]:
        yield f"{name} frames/s", frames / seconds
        yield f"{name} camera-frames/s", frames * cameras / seconds


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
