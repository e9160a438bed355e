"""Memory of the whole job on Ray, from video files to filtered poses, by the length of the footage.

The detector is a stand-in without cost: it works on single clips, and with the default one an hour of four cameras
would take half a day here.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

from mvpose.benchmarks.scale_footage import FPS, STAND_IN, write_archive
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.pipeline.engine import EngineConfig
from mvpose.pipeline.job import ReconstructJob, reconstruct_archive
from mvpose.run.run_folder import RunFolder
from mvpose.tracking.circumstances import machine, peak_mib

MIB = ("MiB of the driver", "MiB of the largest worker", "MiB of all processes")
ROUND_S = 10
"""Seconds of encoded footage; longer footage repeats them."""
SAMPLE_S = 2.0
"""Peaks of single processes are the kernel's own and exact; sampling twice per second took 0.2 cores."""


@dataclass(frozen=True, kw_only=True)
class MemoryBenchmark:
    """Memory of the whole job on Ray, from video files to filtered poses, by the length of the footage."""

    minutes: tuple[float, ...] = (1.0, 60.0)
    """Lengths of one capture of four cameras, at 30 frames per second."""
    width: int = 1920
    height: int = 1080
    clip_frames: int = 300
    workers: int = 2
    scratch: str | None = None
    """Folder for footage and results, which are deleted afterwards (default: the system's temporary folder)."""
    json: str | None = None
    """Output file for the figures."""


def run(config: MemoryBenchmark) -> dict[str, object]:
    """Print each length's peaks, and the ratio of the longest to the shortest; returns figures by name."""
    figures: dict[str, object] = {"machine": machine("cpu")}
    peaks: dict[float, dict[str, float]] = {}
    for minutes in config.minutes:
        with tempfile.TemporaryDirectory(dir=config.scratch) as folder:
            peaks[minutes] = dict(_peaks(config, os.path.join(folder, "job"), minutes))
        for what, value in peaks[minutes].items():
            figures[f"{minutes:g} min, {what}"] = value
            print(f"{f'{minutes:g} min, {what}':48} {value:10.1f}", flush=True)
    longest, shortest = peaks[max(peaks)], peaks[min(peaks)]
    for what in MIB if len(peaks) > 1 else ():
        figures[f"longest over shortest, {what}"] = longest[what] / shortest[what]
        print(f"{f'longest over shortest, {what}':48} {longest[what] / shortest[what]:10.3f}")
    if config.json:
        with open(config.json, "w") as file:
            json.dump(figures, file, indent=1)
    return figures


def _peaks(config: MemoryBenchmark, folder: str, minutes: float) -> Iterator[tuple[str, float]]:
    repeats = max(1, round(minutes * 60 / ROUND_S))
    size = (config.width, config.height)
    job = ReconstructJob(
        archive=write_archive(folder, 1, round(ROUND_S * FPS), size, repeats=repeats),
        output=os.path.join(folder, "run"),
        clip_frames=config.clip_frames,
        detector=DetectorConfig(detector=STAND_IN),
        engine=EngineConfig(workers=config.workers),
    )
    started = time.perf_counter()
    process = multiprocessing.get_context("spawn").Process(target=reconstruct_archive, args=(job,))
    process.start()
    peaks = dict.fromkeys(MIB, 0.0)
    while process.is_alive():
        for what, now in zip(MIB, _memory(psutil.Process(process.pid)), strict=True):
            peaks[what] = max(peaks[what], now)
        process.join(SAMPLE_S)
    if process.exitcode:
        raise RuntimeError(f"the job of {minutes:g} minutes exited with code {process.exitcode}")
    yield "frames", float(RunFolder(job.output).summary().frames)
    yield "s", time.perf_counter() - started
    yield from peaks.items()


def _memory(driver: psutil.Process) -> tuple[float, float, float]:
    """MiB: peaks of the driver and of any live worker, and the present total of all, with shared pages counted once."""
    workers, together = [0.0], 0.0
    driver_mib = 0.0
    for process in [driver, *driver.children(recursive=True)]:
        try:
            together += process.memory_full_info().pss / 2**20
            if process.pid == driver.pid:
                driver_mib = peak_mib(process.pid)
            elif process.name().startswith("ray::"):
                workers.append(peak_mib(process.pid))
        except (psutil.NoSuchProcess, ProcessLookupError, FileNotFoundError, ValueError):
            continue  # it has exited since it was listed
    return driver_mib, max(workers), together
