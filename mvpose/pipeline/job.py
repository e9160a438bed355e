"""The batch job: an archive of captures to tables of 3D poses, read top to bottom in `reconstruct_archive`."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from typing import Any

from mvpose.archive.catalogue import NOTHING_KNOWN, Catalogue, CatalogueConfig, find_captures, rig_digest
from mvpose.archive.catalogue_table import known_videos
from mvpose.archive.locations import absolute, exists, join
from mvpose.archive.run_folder import RunFolder, Settings, Summary, plan_digest
from mvpose.archive.store import ClipStore
from mvpose.config import digest, flatten
from mvpose.errors import ConfigError
from mvpose.models.detector import DetectorConfig, detector_digest
from mvpose.pipeline.chosen_model import ChosenModel, choose_model, place_model
from mvpose.pipeline.engine import Engine, EngineConfig
from mvpose.pipeline.network_stage import NetworkStage
from mvpose.pipeline.plan import plan_capture
from mvpose.pipeline.progress import with_progress
from mvpose.pipeline.stages import (
    DetectStage,
    FilterStage,
    IdentityStage,
    PlanSource,
    PoseStage,
    QualityStage,
    RigStage,
    TrackStage,
)
from mvpose.pipeline.worker import Stage, StageSpec
from mvpose.reconstruction.adjust import AdjustmentConfig
from mvpose.reconstruction.filters import FilterConfig
from mvpose.reconstruction.reconstruct import ReconstructionConfig
from mvpose.records import Capture, CapturePlan, Kind, Task, Video
from mvpose.tracking import TrackingConfig


@dataclass(frozen=True, kw_only=True)
class ReconstructJob:
    """Everything that a reconstruction job can be told."""

    archive: str
    """Folder or s3:// URI with the captures."""
    output: str
    """Run folder or s3:// URI: the results, and what is needed to go on after an interruption."""
    clip_frames: int = 300
    """Longest clip, the unit of work and of retry. 300 frames keep the cost of seeking at a few per cent."""
    adjust_extrinsics: bool = False
    """Adjust the cameras' poses to the 2D joints of each capture before the 3D stage; what moved is reported."""
    filtered: bool = True
    """Make filtered poses beside the raw ones, which stay as they are: gaps filled and smoothed as `filtering` says."""
    max_failed_share: float = 0.1
    """Largest share of failed clips that still counts as success with failures (exit code 3, else 4)."""
    replan: bool = False
    """Go on in an output that was begun with other settings or footage; results that still fit are kept."""
    retry_failed: bool = False
    """Do the clips again that failed (a storage was away, a worker out of memory), and what was made without them."""
    catalogue: CatalogueConfig = field(default_factory=CatalogueConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    model: str = ""
    """A multi-view network that looks again at whom the detector found: its folder, or models:/NAME@ALIAS of the
    registry, which is resolved to a version when the job is planned."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Where the registry is, and where the run is recorded."""
    reconstruction: ReconstructionConfig = field(default_factory=ReconstructionConfig)
    adjustment: AdjustmentConfig = field(default_factory=AdjustmentConfig)
    filtering: FilterConfig = field(default_factory=FilterConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)


LISTERS = 16
"""Listings at a time: they wait for the storage."""
LEAST_TIMEOUT_S = 600.0
TIMEOUT_S_PER_CAMERA_FRAME = 2.5
"""25 times what the default detector takes on one core (10 camera-frames a second on 1080p, measured)."""


@dataclass(frozen=True)
class Work:
    """What is planned, and the part of it that is still to do."""

    run: RunFolder
    settings: Settings
    catalogue: Catalogue
    plans: tuple[CapturePlan, ...]
    model: ChosenModel | None = None

    @cached_property
    def open(self) -> tuple[CapturePlan, ...]:
        """Captures that are not complete: filtered poses or quality, the last things made, are not committed."""
        unmade: set[str] = set()
        for kind in (Kind.FILTERED, Kind.QUALITY):
            tasks = [task for plan in self.plans for task in plan.tasks(kind)]
            unmade |= {task.clip.capture_id for task in uncommitted(ClipStore(self.run.uri, kind), tasks)}
        return tuple(plan for plan in self.plans if plan.capture.capture_id in unmade)


def plan_job(job: ReconstructJob) -> Work:
    """Find the captures and lay out the work; writes nothing."""
    archive, output = absolute(job.archive), absolute(job.output)
    if f"{archive}/".startswith(f"{output}/"):
        raise ConfigError(
            f"the output {job.output} holds the archive {job.archive}: results go into a folder of their own."
        )
    catalogue = find_captures(job.archive, job.catalogue, _known(job))
    model = choose_model(job.model, job.tracking) if job.model else None
    detector = detector_digest(job.detector)
    reconstruction = digest(job.reconstruction, job.adjustment if job.adjust_extrinsics else None)
    plans = tuple(
        plan_capture(
            capture,
            clip_frames=job.clip_frames,
            detection=detector if model is None else _looked_at_again(detector, model, capture, job.reconstruction),
            reconstruction=reconstruction,
            filtering=digest(job.filtering) if job.filtered else None,
        )
        for capture in catalogue.captures
    )
    run = RunFolder(job.output)
    settings = Settings(values=result_settings(job, model), plan_digest=plan_digest(plans, catalogue.problems))
    return Work(run, settings, catalogue, plans, model)


def _looked_at_again(detector: str, model: ChosenModel, capture: Capture, config: ReconstructionConfig) -> str:
    """Digest of what a network's 2D joints depend on besides the footage: it looks through the calibrated cameras."""
    return digest(detector, model.weights_sha256, rig_digest(capture.rig), config)


def _known(job: ReconstructJob) -> Mapping[str, Video]:
    """The videos that an earlier start of the job has opened; with `replan` all are opened again."""
    uri = join(job.output, "catalogue.parquet")
    return NOTHING_KNOWN if job.replan or not exists(uri) else known_videos(uri)


def reconstruct_archive(job: ReconstructJob) -> Summary:
    """Run the job to its end, or go on where an earlier start of it stopped.

    Raises ConfigError if the output belongs to a job with other settings, ResultsError if it cannot be written. A clip
    that cannot be reconstructed is a row of `failures/` and stops nothing.
    """
    # Workers may stand in other folders than this process: what they are told is absolute.
    job = replace(job, output=absolute(job.output))
    work = plan_job(job)
    settings = work.settings
    if not job.replan and work.run.matches(settings) and work.run.finished() and not job.retry_failed:
        return work.run.summary()
    work.run.begin(settings, work.catalogue, work.plans, replan=job.replan)
    if job.retry_failed and work.run.withdraw_failures(work.plans):
        work = plan_job(job)
    engine = Engine(job.engine)
    try:
        source = PlanSource(job.output, settings.plan_digest)
        seconds = dict(_run_stages(job, work, source, engine))
    finally:
        engine.close()
    return work.run.finalize(work.catalogue, work.plans, seconds)


def result_settings(job: ReconstructJob, model: ChosenModel | None) -> dict[str, object]:
    """The settings that results depend on, flat; where and how fast the work runs is not among them."""
    parts = {"catalogue": job.catalogue, "reconstruction": job.reconstruction}
    if job.adjust_extrinsics:
        parts["adjustment"] = job.adjustment
    if job.filtered:
        parts["filtering"] = job.filtering
    settings: dict[str, object] = {
        "clip_frames": job.clip_frames, "adjust_extrinsics": job.adjust_extrinsics, "filtered": job.filtered
    }  # fmt: skip
    for name, part in parts.items():
        settings |= flatten(part, f"{name}.")
    named = {"model": model.uri, "model_sha256": model.weights_sha256} if model else {}
    return settings | {"detector": detector_digest(job.detector)} | named


def _run_stages(job: ReconstructJob, work: Work, source: PlanSource, engine: Engine) -> Iterator[tuple[str, float]]:
    """Each stage over what it still has to do; yields the seconds that each took."""
    invocation = uuid.uuid4().hex[:12]
    for kind, make, arguments in _stages(job, source, work.model):
        started = time.perf_counter()
        spec = StageSpec(
            kind=kind,
            make=make,
            arguments=arguments,
            run_uri=job.output,
            invocation=invocation,
            max_attempts=job.engine.max_attempts,
            clip_timeout_s=_clip_timeout_s(job, work.plans),
            clip_frames=job.clip_frames,
            keeps_weights=kind == Kind.KEYPOINTS,
        )
        todo = uncommitted(ClipStore(job.output, kind), [t for plan in work.open for t in plan.tasks(kind)])
        frames = sum(t.clip.stop - t.clip.start for t in todo)
        for _ in with_progress(engine.run(spec, todo), kind, len(todo), frames):
            pass
        yield kind, time.perf_counter() - started


def _clip_timeout_s(job: ReconstructJob, plans: Sequence[CapturePlan]) -> float:
    cameras = max((len(plan.capture.videos) for plan in plans), default=1)
    return job.engine.clip_timeout_s or LEAST_TIMEOUT_S + TIMEOUT_S_PER_CAMERA_FRAME * cameras * job.clip_frames


def _stages(
    job: ReconstructJob, source: PlanSource, model: ChosenModel | None
) -> Iterator[tuple[Kind, Callable[..., Stage], dict[str, Any]]]:
    """(what it makes, how a worker makes the stage, with what), in order."""
    if model is None:
        yield Kind.KEYPOINTS, DetectStage, {"source": source, "detector": job.detector}
    else:
        place = place_model(model, job.tracking, job.output)
        network = {"model": place, "weights_sha256": model.weights_sha256, "config": job.reconstruction}
        yield Kind.KEYPOINTS, NetworkStage, {"source": source, "detector": job.detector, **network}
    if job.adjust_extrinsics:
        yield Kind.RIGS, RigStage, {"source": source, "adjustment": job.adjustment}
    reconstruction: dict[str, Any] = {"source": source, "config": job.reconstruction}
    yield Kind.TRACKS, TrackStage, reconstruction | {"adjusted": job.adjust_extrinsics}
    yield Kind.IDENTITIES, IdentityStage, reconstruction
    yield Kind.POSES, PoseStage, {"source": source}
    if job.filtered:
        yield Kind.FILTERED, FilterStage, {"source": source, "config": job.filtering}
    yield Kind.QUALITY, QualityStage, reconstruction | {"adjusted": job.adjust_extrinsics}


def uncommitted(store: ClipStore, tasks: Sequence[Task]) -> list[Task]:
    """The tasks that have no commit, by one listing a capture; tasks of a capture stand together."""

    def undone(own: list[Task]) -> list[Task]:
        done = store.commits_of(own[0].clip.capture_id)
        return [task for task in own if task.name not in done]

    captures = [list(own) for _, own in groupby(tasks, key=lambda task: task.clip.capture_id)]
    with ThreadPoolExecutor(LISTERS) as pool:
        return [task for left in pool.map(undone, captures) for task in left]
