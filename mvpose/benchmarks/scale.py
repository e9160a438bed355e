"""Scaling of the job's cost: with the archive's length, with Ray, with a capture's length in memory, with nodes.

The detector is a stand-in without cost, so that it does not dominate the rest.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from mvpose.benchmarks.long_capture import memory_costs
from mvpose.benchmarks.run_bookkeeping import planning_costs
from mvpose.benchmarks.scale_footage import STAND_IN, write_archive
from mvpose.benchmarks.throughput import Throughput
from mvpose.footage.video.frames import probe, read_frames
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.pipeline.engine import EngineConfig
from mvpose.pipeline.job import ReconstructJob, reconstruct_archive
from mvpose.run.run_folder import RunFolder

CAMERAS = 4
MIN_CLIPS = 10
"""Clips of each length per round; a shorter archive is processed several times."""


@dataclass(frozen=True, kw_only=True)
class ScaleBenchmark:
    """Cost per frame by archive length, Ray against a plain loop, memory by capture length, and a model of N nodes."""

    width: int = 640
    height: int = 360
    clip_frames: int = 300
    lengths: tuple[int, ...] = (1, 5, 50)
    """Captures of one clip each, for the cost per frame."""
    rounds: int = 3
    """Rounds of one run of each length."""
    ray_clips: tuple[int, int] = (8, 40)
    """Clips of two runs, whose difference excludes the start-up; none if both are 0."""
    workers: int = 2
    memory_minutes: tuple[float, ...] = (1.0, 10.0)
    """Lengths of one capture of two people, at 30 frames per second. 2D joints are synthetic: decoding and 2D
    detection work on single clips, and their memory does not depend on the length."""
    plan_clips: tuple[int, ...] = (1_000, 10_000)
    """Lengths of finished archives that are planned, ended and resumed; captures have 50 clips."""
    detect_camera_frames_per_s: float = 10.0
    """Speed of the detector per core in the model of N nodes; default: the default detector on 1080p, measured."""
    bytes_per_camera_frame: float = 33e3
    """Size of the footage in the model of N nodes: 8 Mbit/s at 30 frames per second."""
    json: str | None = None
    """Output file for the figures."""


def run(config: ScaleBenchmark) -> dict[str, float]:
    """Print one line per measurement; returns figures by name."""
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for part in (_lengths, _ray, _memory, _planning):
            for name, value in part(config, scratch):
                figures[name] = value
                print(f"{name:58} {value:12.4f}", flush=True)
    _print_model(config, figures)
    if config.json:
        with open(config.json, "w") as file:
            json.dump(figures, file, indent=1)
    return figures


def _job(config: ScaleBenchmark, folder: str, captures: int, frames: int, engine: EngineConfig) -> ReconstructJob:
    archive = write_archive(folder, captures, frames, (config.width, config.height))
    return ReconstructJob(
        archive=archive,
        output=os.path.join(folder, "run"),
        clip_frames=config.clip_frames,
        detector=DetectorConfig(detector=STAND_IN),
        engine=engine,
    )


def _lengths(config: ScaleBenchmark, scratch: str) -> Iterator[tuple[str, float]]:
    """CPU time per frame in a plain loop; a first short run absorbs the imports, a cost of once per process."""
    _cost(config, os.path.join(scratch, "warm"), 1)
    cost: dict[int, list[float]] = {length: [] for length in config.lengths}
    for number in range(config.rounds):
        for length, own in cost.items():
            # A shared machine may be a third faster from one second to the next: a single clip is unreliable.
            runs = range(-(-MIN_CLIPS // length))
            costs = [_cost(config, os.path.join(scratch, f"length{length}-{number}-{run}"), length) for run in runs]
            own.append(statistics.fmean(costs))
    for length, own in cost.items():
        yield f"archive x{length}: CPU ms per frame", 1e3 * statistics.median(own)
    decoding = _decoding_s(os.path.join(scratch, "warm", "footage.mp4"))
    yield "decoding: CPU ms per camera-frame", 1e3 * decoding
    longest, shortest = cost[max(cost)], cost[min(cost)]
    yield "all else: CPU ms per frame", 1e3 * (statistics.median(longest) - CAMERAS * decoding)
    ratios = [long / short for long, short in zip(longest, shortest, strict=True)]
    yield "cost per frame, longest over shortest archive", statistics.median(ratios)
    yield "the same, minimum of the rounds", min(ratios)
    yield "the same, maximum of the rounds", max(ratios)


def _cost(config: ScaleBenchmark, folder: str, captures: int) -> float:
    """CPU time per frame of a job on so many captures, in a plain loop."""
    job = _job(config, folder, captures, config.clip_frames, EngineConfig(local=True))
    started = time.process_time()
    frames = reconstruct_archive(job).frames
    return (time.process_time() - started) / frames


def _decoding_s(video: str) -> float:
    """CPU time per frame of decoding one video."""
    found = probe(video, "camera")
    started = time.process_time()
    for _ in read_frames(found, 0, found.num_frames):
        pass
    return (time.process_time() - started) / found.num_frames


def _ray(config: ScaleBenchmark, scratch: str) -> Iterator[tuple[str, float]]:
    """Wall-clock time of few and of many clips: the slope is the cost of a clip, the rest is the start-up."""
    few, many = config.ray_clips
    if not many:
        return
    slope: dict[str, float] = {}
    for name, engine in {"loop": EngineConfig(local=True), "Ray": EngineConfig(workers=config.workers)}.items():
        seconds, stage = {}, {}
        for clips in (few, many):
            job = _job(config, os.path.join(scratch, f"{name}{clips}"), clips, config.clip_frames, engine)
            started = time.perf_counter()
            reconstruct_archive(job)
            seconds[clips] = time.perf_counter() - started
            stage[clips] = RunFolder(job.output).performance()["keypoints"]
        slope[name] = (seconds[many] - seconds[few]) / (many - few)
        slope[f"{name}, 2D"] = (stage[many] - stage[few]) / (many - few)
        yield f"{name}: s per clip, all stages", slope[name]
        yield f"{name}: worker s per clip, decoding and 2D", slope[f"{name}, 2D"]
        yield f"{name}: s of start-up", seconds[few] - few * slope[name]
    yield "Ray over the loop's share per worker, all stages", slope["Ray"] * config.workers / slope["loop"] - 1
    yield "Ray over the loop, worker s, decoding and 2D", slope["Ray, 2D"] / slope["loop, 2D"] - 1


def _memory(config: ScaleBenchmark, scratch: str) -> Iterator[tuple[str, float]]:
    """Peak memory of processes that run the stages after 2D detection on one capture, in a plain loop."""
    peaks = {}
    for minutes in config.memory_minutes:
        peaks[minutes] = memory_costs(os.path.join(scratch, f"memory{minutes:g}"), minutes, config.clip_frames)
        for what, peak in zip(("all stages", "stages over it"), peaks[minutes], strict=True):
            yield f"capture of {minutes:g} min, {what}: peak MiB", peak
    if len(peaks) > 1:
        yield "peak, longest over shortest capture", max(peaks[max(peaks)]) / max(peaks[min(peaks)])


def _planning(config: ScaleBenchmark, scratch: str) -> Iterator[tuple[str, float]]:
    """The driver's time and memory by the length of a finished archive."""
    for clips in config.plan_clips:
        yield from planning_costs(os.path.join(scratch, f"plan{clips}"), clips)


def _print_model(config: ScaleBenchmark, figures: dict[str, float]) -> None:
    clip = figures.get("Ray: s per clip, all stages", 0.0) * config.workers - figures.get(
        "loop: s per clip, all stages", 0
    )
    model = Throughput(
        decode_s=figures["decoding: CPU ms per camera-frame"] / 1e3,
        detect_s=1 / config.detect_camera_frames_per_s,
        rest_s=figures["all else: CPU ms per frame"] / 1e3,
        ray_s_per_clip=max(0.0, clip),
        start_s=figures.get("Ray: s of start-up", 0.0),
        cameras=CAMERAS,
        clip_frames=config.clip_frames,
        bytes_per_camera_frame=config.bytes_per_camera_frame,
    )
    print("\nA model, not a measurement. It assumes:")
    for line in model.assumptions():
        print(f"  {line}")
    fast = replace(model, detect_s=1 / 1000)
    print(f"{'nodes':>6} {'frames/s':>10} {'bound by':>9}   with a detector of 1000 camera-frames/s per worker")
    for nodes in (1, 2, 4, 8, 16, 64, 256):
        (rate, part), (fast_rate, fast_part) = model.frames_per_s(nodes), fast.frames_per_s(nodes)
        print(f"{nodes:6} {rate:10.0f} {part:>9} {fast_rate:12.0f} {fast_part:>9}")
