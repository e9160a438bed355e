"""Memory of the stages after 2D detection, on a capture of any length with given 2D joints.

Decoding and 2D detection work on single clips at any capture length, and are not run; the videos have two frames.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from mvpose import scenes
from mvpose.benchmarks.run_bookkeeping import SIZE, Claimed
from mvpose.benchmarks.scale_footage import FPS, STAND_IN, write_archive
from mvpose.footage.catalogue import CatalogueConfig, look_through
from mvpose.footage.catalogue_table import read_capture, written
from mvpose.geometry.camera import CameraRig
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.pipeline.engine import EngineConfig
from mvpose.pipeline.job import ReconstructJob, plan_job, reconstruct_archive
from mvpose.records import Kind
from mvpose.run.pose_tables import TableInfo, keypoints_to_table
from mvpose.run.store import ClipStore
from mvpose.scenes import Scene
from mvpose.storage.locations import join
from mvpose.tracking.circumstances import peak_mib

T = TypeVar("T")

PEOPLE = 2
MISSING = 0.1
"""Share of missing 2D joints, to create gaps."""


def memory_costs(folder: str, minutes: float, clip_frames: int) -> tuple[float, float]:
    """Peak MiB of fresh processes in a plain loop: over all stages, and over the stages on whole captures."""
    job = walkers_job(folder, round(minutes * 60 * FPS), clip_frames)
    _in_a_fresh_process(commit_keypoints, job)
    all_stages = _in_a_fresh_process(_peak_mib, job)
    os.unlink(os.path.join(job.output, "summary.json"))
    for kind in Kind:
        if kind.of_whole_captures:
            shutil.rmtree(os.path.join(job.output, "commits", kind))
    return all_stages, _in_a_fresh_process(_peak_mib, job)


def walkers_job(folder: str, frames: int, clip_frames: int) -> ReconstructJob:
    """A job on one capture of four cameras whose output states that the videos have so many frames."""
    job = ReconstructJob(
        archive=write_archive(folder, 1, 2, SIZE),
        output=join(folder, "run"),
        clip_frames=clip_frames,
        adjust_extrinsics=True,
        detector=DetectorConfig(detector=STAND_IN),
        people=PEOPLE,
        engine=EngineConfig(local=True),
    )
    os.makedirs(job.output)
    found = look_through(job.archive, CatalogueConfig(), Claimed(frames))
    for _ in written(join(job.output, "catalogue.parquet"), found):
        pass
    return job


def commit_keypoints(job: ReconstructJob) -> None:
    """Commit 2D joints of people who walk in circles, for every clip of the job's capture."""
    work = plan_job(job)
    (capture,) = work.planned.tasks()
    tasks, store = capture.tasks(Kind.KEYPOINTS), ClipStore(job.output, Kind.KEYPOINTS)
    rig = read_capture(join(job.output, "catalogue.parquet"), capture.capture_id).rig
    walk = _walk(tasks[-1].clip.stop)
    for task in tasks:
        clip = task.clip
        keypoints = _scene(walk[clip.start : clip.stop], rig, clip.start).keypoints(noise_px=0.1)
        gone = np.random.default_rng(clip.start).random(keypoints.confidence.shape) < MISSING
        keypoints = replace(
            keypoints,
            xy=np.where(gone[..., None], np.nan, keypoints.xy).astype(np.float32),
            confidence=np.where(gone, 0.0, keypoints.confidence).astype(np.float32),
        )
        info = TableInfo(
            capture_id=clip.capture_id, start=clip.start, stop=clip.stop, fps=FPS, cameras=rig.names,
            skeleton=keypoints.skeleton, fingerprint=task.fingerprint,
        )  # fmt: skip
        store.commit_table(clip, task.fingerprint, keypoints_to_table(keypoints, info), {})


def _walk(frames: int) -> Float[np.ndarray, "T P J 3"]:
    """Two circles, 1.2 m apart."""
    walkers = [scenes.ring4(seed=seed, num_frames=frames).joints for seed in range(PEOPLE)]
    apart = np.array([1.2, 0.0, 0.0])
    return np.concatenate([walker + (p - 0.5) * apart for p, walker in enumerate(walkers)], axis=1)


def _scene(joints: Float[np.ndarray, "T P J 3"], rig: CameraRig, seed: int) -> Scene:
    seen = np.ones((len(rig), *joints.shape[:3]), bool)
    return replace(scenes.ring4(num_frames=1), joints=joints, rig=rig, seen=seen, detected=seen[..., 0], seed=seed)


def _peak_mib(job: ReconstructJob) -> float:
    reconstruct_archive(job)
    return peak_mib()


def _in_a_fresh_process(work: Callable[[ReconstructJob], T], job: ReconstructJob) -> T:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, (job,))
