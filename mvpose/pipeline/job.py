"""The batch job: an archive of captures to tables of 3D poses, read top to bottom in `reconstruct_archive`."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from mvpose.archive.capture_files import capture_around
from mvpose.archive.catalogue import NOTHING_KNOWN, CatalogueConfig, look_through
from mvpose.archive.catalogue_table import Found, known_videos
from mvpose.archive.keypoint_import import KeypointImport, imported_captures
from mvpose.archive.locations import absolute, exists, join
from mvpose.archive.planned import Planned, lay_out
from mvpose.archive.run_end import end_run, withdraw_failures
from mvpose.archive.run_folder import RunFolder, Settings
from mvpose.archive.run_summary import Summary
from mvpose.archive.store import ClipStore
from mvpose.config import flatten
from mvpose.errors import ConfigError
from mvpose.models.detector import DetectorConfig, detector_digest
from mvpose.pipeline.chosen_model import ChosenModel, choose_model, place_model
from mvpose.pipeline.engine import Engine, EngineConfig
from mvpose.pipeline.import_stage import ImportStage
from mvpose.pipeline.network_stage import NetworkStage
from mvpose.pipeline.plan import PlanSettings, plan_capture
from mvpose.pipeline.plan_source import PlanSource
from mvpose.pipeline.progress import Progress
from mvpose.pipeline.stages import (
    DetectStage,
    FilterStage,
    IdentityStage,
    PoseStage,
    QualityStage,
    RigStage,
    TrackStage,
)
from mvpose.pipeline.waves import OpenWork, uncommitted, waves
from mvpose.pipeline.worker import Stage, StageSpec
from mvpose.reconstruction.adjust import AdjustmentConfig
from mvpose.reconstruction.filters import FilterConfig
from mvpose.reconstruction.reconstruct import ReconstructionConfig
from mvpose.records import Kind, Task, Video
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
    imported: KeypointImport | None = None
    """2D joints of another tool, in place of footage and detector: `archive` is where they are."""
    model: str = ""
    """A multi-view network that looks again at whom the detector found: its folder, or models:/NAME@ALIAS of the
    registry, which is resolved to a version when the job is planned."""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Where the registry is, and where the run is recorded."""
    reconstruction: ReconstructionConfig = field(default_factory=ReconstructionConfig)
    adjustment: AdjustmentConfig = field(default_factory=AdjustmentConfig)
    filtering: FilterConfig = field(default_factory=FilterConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)


LEAST_TIMEOUT_S = 600.0
TIMEOUT_S_PER_CAMERA_FRAME = 2.5
"""25 times what the default detector takes on one core (10 camera-frames a second on 1080p, measured)."""


@dataclass(frozen=True)
class Work:
    """What is planned, before anything of it is written to the output."""

    run: RunFolder
    settings: Settings
    planned: Planned
    model: ChosenModel | None = None


def require_own_output(job: ReconstructJob) -> None:
    """ConfigError where the output is not the job's own: it holds the archive or other files, or is in a capture."""
    archive, output = absolute(job.archive), absolute(job.output)
    if f"{archive}/".startswith(f"{output}/"):
        raise ConfigError(
            f"the output {job.output} holds the archive {job.archive}: results go into a folder of their own."
        )
    if capture := capture_around(archive, output):
        raise ConfigError(
            f"the output {job.output} is in the folder of a capture, {capture}: results go into a folder of their own."
        )
    RunFolder(job.output).require_own()


def plan_job(job: ReconstructJob) -> Work:
    """Find the captures and lay out the work; writes nothing to the output. ConfigError as `require_own_output`."""
    require_own_output(job)
    model = choose_model(job.model, job.tracking) if job.model else None
    chosen = plan_settings(job, model)
    planned = lay_out(_found(job), lambda capture: plan_capture(capture, chosen))
    settings = Settings(values=result_settings(job, model), plan_digest=planned.totals.digest)
    return Work(RunFolder(job.output), settings, planned, model)


def plan_settings(job: ReconstructJob, model: ChosenModel | None) -> PlanSettings:
    """The settings that go into fingerprints."""
    return PlanSettings(
        clip_frames=job.clip_frames,
        detector=job.imported.digest if job.imported else detector_digest(job.detector),
        network=model.weights_sha256 if model else "",
        reconstruction=job.reconstruction,
        adjustment=job.adjustment if job.adjust_extrinsics else None,
        filtering=job.filtering if job.filtered else None,
    )


def _found(job: ReconstructJob) -> Iterator[Found]:
    if job.imported:
        return imported_captures(job.archive, job.imported)
    return look_through(job.archive, job.catalogue, _known(job))


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
    if not job.replan and work.run.matches(work.settings) and not job.retry_failed and (ended := work.run.ended()):
        return ended
    work.run.begin(work.settings, work.planned, replan=job.replan)
    if job.retry_failed:
        withdraw_failures(work.run, work.planned.tasks())
    engine = Engine(job.engine)
    try:
        seconds = _run_waves(job, work, engine)
    finally:
        engine.close()
    return end_run(work.run, work.planned, seconds)


def result_settings(job: ReconstructJob, model: ChosenModel | None) -> dict[str, object]:
    """The settings that results depend on, flat; where and how fast the work runs is not among them."""
    parts: dict[str, object] = {"reconstruction": job.reconstruction}
    if not job.imported:
        parts["catalogue"] = job.catalogue
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
    return settings | (job.imported.settings if job.imported else {"detector": detector_digest(job.detector)}) | named


def _run_waves(job: ReconstructJob, work: Work, engine: Engine) -> dict[str, float]:
    """Wave after wave of whole captures through all stages; the seconds that each stage took."""
    stages = list(stage_specs(job, work))
    open_work = OpenWork.of(job.output, work.planned.tasks())
    progress = {spec.kind: Progress(label=spec.kind, **open_work.totals(Kind(spec.kind))) for spec in stages}
    seconds = dict.fromkeys(progress, 0.0)
    for wave in waves(open_work.captures(work.planned.tasks()), job.engine.wave_clips):
        for spec in stages:
            started = time.perf_counter()
            told, tasks = progress[spec.kind], [t for capture in wave for t in capture.tasks(Kind(spec.kind))]
            todo = uncommitted(ClipStore(job.output, spec.kind), tasks)
            told.without(len(tasks) - len(todo), _frames(tasks) - _frames(todo))
            later = told.clips - told.clips_done - len(todo)
            for _ in told.told(engine.run(spec, todo, later=later), len(todo)):
                pass
            seconds[spec.kind] += time.perf_counter() - started
    return seconds


def _frames(tasks: Sequence[Task]) -> int:
    return sum(task.clip.stop - task.clip.start for task in tasks)


def _clip_timeout_s(job: ReconstructJob, cameras: int) -> float:
    return job.engine.clip_timeout_s or LEAST_TIMEOUT_S + TIMEOUT_S_PER_CAMERA_FRAME * cameras * job.clip_frames


def _cameras_of(source: PlanSource, task: Task) -> int:
    return len(source.footage(task).videos)


def stage_specs(job: ReconstructJob, work: Work) -> Iterator[StageSpec]:
    """How workers make each stage, in order."""
    invocation = uuid.uuid4().hex[:12]
    timeout_s = _clip_timeout_s(job, work.planned.most_cameras)
    source = PlanSource(job.output, work.settings.plan_digest)
    for kind, make, arguments in _makers(job, source, work.model):
        yield StageSpec(
            kind=kind,
            make=make,
            arguments=arguments,
            run_uri=job.output,
            invocation=invocation,
            max_attempts=job.engine.max_attempts,
            clip_timeout_s=timeout_s,
            clip_frames=job.clip_frames,
            cameras_of=None if job.engine.clip_timeout_s else partial(_cameras_of, source),
            keeps_weights=kind == Kind.KEYPOINTS,
        )


def _makers(
    job: ReconstructJob, source: PlanSource, model: ChosenModel | None
) -> Iterator[tuple[Kind, Callable[..., Stage], dict[str, Any]]]:
    """(what it makes, how a worker makes the stage, with what), in order."""
    if job.imported:
        yield Kind.KEYPOINTS, ImportStage, {"source": source, "imported": job.imported}
    elif model is None:
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
