"""Cost of planning, resuming and ending a job, on a finished run of any length without decoding a video."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping

from mvpose.benchmarks.scale_footage import FPS, STAND_IN, write_archive
from mvpose.footage.catalogue import CatalogueConfig, look_through
from mvpose.footage.catalogue_table import written
from mvpose.footage.rig_table import figures_to_table
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.pipeline.engine import EngineConfig
from mvpose.pipeline.job import ReconstructJob, plan_job, reconstruct_archive
from mvpose.records import CaptureTasks, ClockKind, FrameClock, Kind, Video
from mvpose.run.store import ClipStore, parquet_bytes
from mvpose.storage.locations import join, name, read_bytes, stamp
from mvpose.tracking.circumstances import peak_mib

SIZE = (160, 90)
CLOCK = FrameClock(ClockKind.TIME, ((0, 0, 1),))
CLIPS_EACH = 50
"""Clips per capture: four minutes in ten-second clips are 25, an hour is 360."""
FIGURES = 200
"""Figures of merit per capture: those of 4 cameras, 26 joints and their bones."""


class Claimed(Mapping[str, Video]):
    """States for every video that it was opened before and has so many frames."""

    def __init__(self, frames: int) -> None:
        self.frames = frames

    def __getitem__(self, uri: str) -> Video:
        return Video(name(uri).partition(".")[0], uri, FPS, self.frames, SIZE, 0, stamp(uri), FPS, CLOCK)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def planning_costs(folder: str, clips: int) -> Iterator[tuple[str, float]]:
    """Seconds and peak memory of a fresh process that plans, ends, or resumes a job of so many clips."""
    job = started_job(folder, clips // CLIPS_EACH)
    finish(job)
    for what, work in (("plan", plan_job), ("end", reconstruct_archive), ("resume", reconstruct_archive)):
        # "end": everything is committed, but there is no summary.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            seconds, peak = pool.apply(_cost, (work, job))
        yield f"{what} of {clips} clips: s", seconds
        yield f"{what} of {clips} clips: peak MiB", peak


def _cost(work: Callable[[ReconstructJob], object], job: ReconstructJob) -> tuple[float, float]:
    started = time.perf_counter()
    work(job)
    return time.perf_counter() - started, peak_mib()


def started_job(folder: str, captures: int) -> ReconstructJob:
    """A job whose output has a catalogue of videos with two frames each that are stated to have 50 clips."""
    archive, output = write_archive(folder, captures, 2, SIZE), join(folder, "run")
    job = ReconstructJob(
        archive=archive, output=output, detector=DetectorConfig(detector=STAND_IN), engine=EngineConfig(local=True)
    )
    os.makedirs(output)
    found = look_through(archive, CatalogueConfig(), Claimed(CLIPS_EACH * job.clip_frames))
    for _ in written(join(output, "catalogue.parquet"), found):
        pass
    return job


def finish(job: ReconstructJob) -> None:
    """Commit every task of the job with one-row data files; only the figures of merit are realistic."""
    work = plan_job(job)
    work.run.begin(work.settings, work.planned, replan=True)
    for plan in work.planned.tasks():
        for kind in Kind:
            if kind != Kind.RIGS:
                _commit_all(ClipStore(job.output, kind), plan)


def _commit_all(store: ClipStore, plan: CaptureTasks) -> None:
    """Commit the first task of a kind as a worker would, and copy it for the others to skip their fsync."""
    own = {f"joint/{i}/used_mean_px": 0.1 * i for i in range(FIGURES if store.kind == Kind.QUALITY else 1)}
    table = figures_to_table(plan.capture_id, own)
    first, *others = plan.tasks(Kind(store.kind))
    commit = store.commit_table(first.clip, first.fingerprint, table, {"step": 1.0})
    record, data = json.loads(read_bytes(store.commit_uri(first.clip, first.fingerprint))), parquet_bytes(table)
    for task in others:
        file = f"{store.kind}/{task.clip.clip_id}.{commit.sha256[:12]}.parquet"
        own = record | {"start": task.clip.start, "stop": task.clip.stop, "file": file}
        with open(join(store.run_uri, file), "wb") as made:
            made.write(data)
        with open(store.commit_uri(task.clip, task.fingerprint), "wb") as made:
            made.write(json.dumps(own).encode())
