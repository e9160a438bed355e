"""The batch job from an archive of captures to tables of 3D poses; start reading at `reconstruct_archive`."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, TypeVar

from mvpose.accelerator import require_no_gpus
from mvpose.config import flatten
from mvpose.errors import ConfigError
from mvpose.exchange.keypoints.captures import imported_captures
from mvpose.footage.capture_files import capture_around
from mvpose.footage.catalogue import NOTHING_KNOWN, look_through
from mvpose.footage.catalogue_table import Found, known_videos
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.models.network_settings import BOTTOM_UP, TokenMethod
from mvpose.models.shipped import FUSION, read_shipped
from mvpose.pipeline.engine import Engine
from mvpose.pipeline.job_settings import AUTO, NO_MODEL, ReconstructJob
from mvpose.pipeline.open_work import OpenWork
from mvpose.pipeline.plan import PlanSettings, plan_capture
from mvpose.pipeline.plan_source import PlanSource
from mvpose.pipeline.progress import Progress
from mvpose.pipeline.stages import (
    FilterStage,
    IdentityStage,
    ImportStage,
    PoseStage,
    QualityStage,
    RigStage,
    SavedLifter,
    TrackStage,
)
from mvpose.pipeline.worker import JobStages, Stage, StageSpec
from mvpose.reconstruction.identities import SPARE_PEOPLE
from mvpose.records import Kind, Video
from mvpose.run.plan_scratch import Planned, lay_out
from mvpose.run.run_end import end_run
from mvpose.run.run_folder import RunFolder, Settings, Summary
from mvpose.run.withdrawal import lost_results, withdraw_failures, withdraw_lost
from mvpose.storage.locations import absolute, exists, join
from mvpose.tracking.chosen_model import (
    ChosenModel,
    OneViewModel,
    choose_model,
    choose_one_view_model,
    chosen_method,
    place_model,
)

MIN_TIMEOUT_S = 600.0
TIMEOUT_S_PER_CAMERA_FRAME = 2.5
"""60 times what the default detector takes on one core in float32 (25 camera-frames per second on 1080p, measured)."""


@dataclass(frozen=True)
class Work:
    """The planned work, before anything is written to the output."""

    run: RunFolder
    settings: Settings
    planned: Planned
    model: ChosenModel | None = None
    monocular: OneViewModel | None = None
    bottom_up: ChosenModel | None = None
    """The network that is the detector, if it is one."""


def require_own_output(job: ReconstructJob) -> None:
    """ConfigError if the output holds the archive or other files, or is in the folder of a capture."""
    archive, output = absolute(job.archive), absolute(job.output)
    if f"{archive}/".startswith(f"{output}/"):
        raise ConfigError(
            f"the output {job.output} contains the archive {job.archive}: results go into a folder of their own."
        )
    if capture := capture_around(archive, output):
        raise ConfigError(
            f"the output {job.output} is in the folder of a capture, {capture}: results go into a folder of their own."
        )
    RunFolder(job.output).require_own()


Job = TypeVar("Job", bound=ReconstructJob)


def placed(job: Job) -> Job:
    """The job with the device of its networks resolved; ConfigError if settings contradict each other."""
    if job.imported:
        require_no_gpus(job.engine.gpus, "an import of 2D joints")
        return job
    from mvpose.models.detection.runtime import with_precision

    detector = replace(job.detector, device=job.engine.device({"--detector.device": job.detector.device}))
    return replace(job, detector=detector if detector.bottom_up else with_precision(detector))


def plan_job(job: ReconstructJob) -> Work:
    """Find the captures and plan the work; writes nothing to the output. ConfigError as for `require_own_output`."""
    require_own_output(job)
    bottom_up = choose_model(job.detector.detector, job.tracking) if _finds_bottom_up(job) else None
    model, note = _model(job)
    monocular = _monocular(job)
    chosen = plan_settings(job, model, monocular)
    planned = lay_out(chain(note, _found(job)), lambda capture: plan_capture(capture, chosen))
    values = result_settings(job, model, monocular)
    if bottom_up:
        values |= {"detector.network": bottom_up.uri, "detector.network_sha256": bottom_up.weights_sha256}
    settings = Settings(values=values, plan_digest=planned.totals.digest)
    return Work(RunFolder(job.output), settings, planned, model, monocular, bottom_up)


def _finds_bottom_up(job: ReconstructJob) -> bool:
    return job.imported is None and job.detector.bottom_up


def _model(job: ReconstructJob) -> tuple[ChosenModel | None, tuple[str, ...]]:
    """The network of the job, and a note if it has none although that was not asked for."""
    own, note = job.detector, ()
    if _finds_bottom_up(job):
        note = (f"people and their joints are found bottom-up by the network in {own.detector}",)
    if job.model == NO_MODEL:
        return None, note
    if job.model != AUTO:
        return _chosen(job), note
    fused = read_shipped(FUSION).detector
    if job.imported:
        return None, ("imported 2D joints are triangulated without canonical fusion, which needs images",)
    if own.detector != DetectorConfig.detector or own.joint_card != fused:
        alone = f"triangulated without canonical fusion: the shipped model fuses tokens of {fused} alone"
        return None, (*note, alone)
    return choose_model(FUSION, job.tracking), ()


def _chosen(job: ReconstructJob) -> ChosenModel:
    """The network of `model`; ConfigError if it is none that corrects what the detector has found."""
    chosen = choose_model(job.model, job.tracking)
    method = chosen_method(chosen, job.tracking)
    if method == BOTTOM_UP:
        raise ConfigError(f"--model {job.model} finds people and joints bottom-up: name it as --detector.detector.")
    if method == TokenMethod.method and _finds_bottom_up(job):
        raise ConfigError(
            f"--model {job.model} fuses the tokens of a top-down detector, which --detector.detector "
            f"{job.detector.detector} does not have: leave out one of them."
        )
    return chosen


def _monocular(job: ReconstructJob) -> OneViewModel | None:
    """The network of captures of one camera; ConfigError if it needs images, and the job has none."""
    if not job.monocular:
        return None
    chosen = choose_one_view_model(job.monocular, job.tracking)
    if job.imported and chosen.takes_images:
        raise ConfigError(f"--monocular {job.monocular} takes images, but 2D joints are imported: name a lifter.")
    return chosen


def plan_settings(
    job: ReconstructJob, model: ChosenModel | None, monocular: OneViewModel | None = None
) -> PlanSettings:
    """The settings that go into fingerprints."""
    return PlanSettings(
        clip_frames=job.clip_frames,
        detector=job.imported.digest if job.imported else _detector_digest(job),
        look=None if job.imported or job.detector.detector != DetectorConfig.detector else job.detector.look,
        network=model.weights_sha256 if model else "",
        reconstruction=job.reconstruction,
        people=job.max_people,
        adjustment=job.adjustment if job.adjust_extrinsics else None,
        monocular=monocular.weights_sha256 if monocular else "",
        monocular_images=monocular is not None and monocular.takes_images,
        filtering=job.filtering if job.filtered else None,
    )


def _detector(job: ReconstructJob) -> DetectorConfig:
    """The detector's settings: boxes for the people requested, and for some more."""
    limit, people = job.detector.max_boxes, job.max_people
    return job.detector if people is None else replace(job.detector, max_boxes=min(limit, people + SPARE_PEOPLE))


def _detector_digest(job: ReconstructJob) -> str:
    from mvpose.models.detection.detector import detector_digest

    return detector_digest(_detector(job))


def _found(job: ReconstructJob) -> Iterator[Found]:
    if job.imported:
        return imported_captures(job.archive, job.imported, one_camera=bool(job.monocular))
    return look_through(job.archive, replace(job.catalogue, one_camera=bool(job.monocular)), _known(job))


def _known(job: ReconstructJob) -> Mapping[str, Video]:
    """The videos opened by an earlier start of the job; with `replan` all are reopened."""
    uri = join(job.output, "catalogue.parquet")
    return NOTHING_KNOWN if job.replan or not exists(uri) else known_videos(uri)


def reconstruct_archive(job: ReconstructJob) -> Summary:
    """Run the job, or resume where an earlier start stopped.

    Raises ConfigError as for `placed`, or if the output belongs to a job with other settings; ResultsError if it cannot
    be written. A clip that cannot be reconstructed becomes a row of `failures/`, and the job continues.
    """
    # Workers may have another working directory than this process, so their paths are absolute.
    job = placed(replace(job, output=absolute(job.output)))
    work = plan_job(job)
    known = not job.replan and work.run.matches(work.settings)
    work.run.begin(work.settings, work.planned, replan=job.replan)
    lost = lost_results(work.run, kinds_of(job), work.planned) if known or job.replan else {}
    if known and not lost and not job.retry_failed and (ended := work.run.ended()):
        return ended
    if lost:
        withdraw_lost(work.run, kinds_of(job), work.planned)
    if job.retry_failed:
        withdraw_failures(work.run, work.planned.tasks())
    engine = Engine(job.engine, job.output)
    try:
        seconds = _run_stages(job, work, engine)
    finally:
        engine.close()
    summary = end_run(work.run, work.planned, seconds)
    if lost:  # of this start alone, hence not in the stored summary
        note = f"finished results were missing from the output and have been computed again: {counts(lost)}"
        return replace(summary, notes=(note, *summary.notes))
    return summary


def kinds_of(job: ReconstructJob) -> list[Kind]:
    """The kinds of results that the job makes, in order."""
    return [kind for kind in Kind if kind != Kind.RIGS or job.adjust_extrinsics]


def counts(lost: Mapping[str, int]) -> str:
    """Numbers of results by kind, as text."""
    return ", ".join(f"{count} {what}" for what, count in lost.items())


def result_settings(
    job: ReconstructJob, model: ChosenModel | None, monocular: OneViewModel | None = None
) -> dict[str, object]:
    """The settings that results depend on, flattened; where and how fast the work runs is excluded."""
    parts: dict[str, object] = {"reconstruction": job.reconstruction}
    if not job.imported:
        parts["catalogue"] = job.catalogue
    if job.adjust_extrinsics:
        parts["adjustment"] = job.adjustment
    if job.filtered:
        parts["filtering"] = job.filtering
    settings: dict[str, object] = {
        "people": job.people,
        "clip_frames": job.clip_frames,
        "adjust_extrinsics": job.adjust_extrinsics,
        "filtered": job.filtered,
    }
    for name, part in parts.items():
        settings |= flatten(part, f"{name}.")
    settings.pop("catalogue.one_camera", None)  # `monocular` sets it
    named: dict[str, object] = {"model": model.uri, "model_sha256": model.weights_sha256} if model else {}
    named |= {"monocular": monocular.uri, "monocular_sha256": monocular.weights_sha256} if monocular else {}
    named |= {"strict": True} if job.strict else {}
    if job.imported:
        return settings | job.imported.settings | named
    settings["detector"] = _detector_digest(job)
    if job.detector.detector == DetectorConfig.detector:
        settings["detector.precision"] = job.detector.precision
    return settings | named


def _run_stages(job: ReconstructJob, work: Work, engine: Engine) -> dict[str, float]:
    """Run all stages over what is not done; returns the seconds of all workers by stage, and the elapsed ones."""
    stages = job_stages(job, work)
    first, last = stages.of_clips[0].kind, stages.of_captures[-1].kind
    kinds = [Kind(spec.kind) for spec in stages.of_clips]
    started = time.perf_counter()
    todo = OpenWork.of(job.output, work.planned.tasks(), kinds)
    progress = Progress(first=first, last=last, clips=todo.clips, frames=todo.frames, captures=len(todo.clips_left))
    seconds = dict.fromkeys((spec.kind for spec in (*stages.of_clips, *stages.of_captures)), 0.0)
    with closing(engine.run(stages, todo)) as receipts:
        for receipt in progress.counted(receipts):
            seconds[receipt["stage"]] += receipt["wall"]
    return seconds | {"elapsed": time.perf_counter() - started}


def job_stages(job: ReconstructJob, work: Work) -> JobStages:
    """The stages of a job: with calibrated cameras, a clip is tracked where it was detected."""
    of_clips = {Kind.KEYPOINTS} if job.adjust_extrinsics else {Kind.KEYPOINTS, Kind.TRACKS}
    specs = list(stage_specs(job, work))
    return JobStages(
        of_clips=tuple(spec for spec in specs if spec.kind in of_clips),
        of_captures=tuple(spec for spec in specs if spec.kind not in of_clips),
        plan_of=PlanSource(job.output, work.settings.plan_digest).plan_of,
    )


def _clip_timeout_s(job: ReconstructJob, cameras: int) -> float:
    return job.engine.clip_timeout_s or MIN_TIMEOUT_S + TIMEOUT_S_PER_CAMERA_FRAME * cameras * job.clip_frames


def stage_specs(job: ReconstructJob, work: Work) -> Iterator[StageSpec]:
    """Specifications of the stages, in order."""
    invocation = uuid.uuid4().hex[:12]
    timeout_s = _clip_timeout_s(job, work.planned.max_cameras)
    source = PlanSource(job.output, work.settings.plan_digest)
    for kind, make, arguments in _makers(job, source, work):
        yield StageSpec(
            kind=kind,
            make=make,
            arguments=arguments,
            run_uri=job.output,
            invocation=invocation,
            max_attempts=job.engine.max_attempts,
            clip_timeout_s=timeout_s,
            clip_frames=job.clip_frames,
            cameras_of=None if job.engine.clip_timeout_s else source.num_cameras,
        )


def _placed(job: ReconstructJob, chosen: ChosenModel) -> dict[str, str]:
    """A network, copied into the run, as arguments of its stage."""
    place = place_model(chosen, job.tracking, join(job.output, "models"))
    return {"model": place, "weights_sha256": chosen.weights_sha256}


def _of_images(job: ReconstructJob, source: PlanSource, work: Work) -> tuple[Callable[..., Stage], dict[str, Any]]:
    """Factory of the stage from footage to 2D joints, and its arguments. Imports load no decoder and no network."""
    from mvpose.pipeline.detect_stage import DetectStage
    from mvpose.pipeline.fusion_stage import network_stage
    from mvpose.pipeline.monocular_stage import MonocularStage
    from mvpose.pipeline.network_stage import OneOrMoreCameras

    detector = _detector(job)
    if work.bottom_up:  # by its own digest, which is also of settings that are not in the weights
        place = join(job.output, "models", str(work.settings.values["detector"])[:16])
        detector = replace(detector, detector=place_model(work.bottom_up, job.tracking, place))
    images = {"source": source, "detector": detector}
    several, alone = partial(DetectStage, **images), partial(DetectStage, **images)
    if work.model:
        several = partial(network_stage, **images, **_placed(job, work.model), config=job.reconstruction)
    if work.monocular and work.monocular.takes_images:
        alone = partial(MonocularStage, **images, **_placed(job, work.monocular))
    if work.monocular is None or several.func is alone.func:
        return several.func, several.keywords
    return OneOrMoreCameras, {"source": source, "several": several, "alone": alone}


def _makers(
    job: ReconstructJob, source: PlanSource, work: Work
) -> Iterator[tuple[Kind, Callable[..., Stage], dict[str, Any]]]:
    """(result kind, stage factory, its arguments) of each stage, in order."""
    if job.imported:
        yield Kind.KEYPOINTS, ImportStage, {"source": source, "imported": job.imported}
    else:
        yield Kind.KEYPOINTS, *_of_images(job, source, work)
    if job.adjust_extrinsics:
        yield Kind.RIGS, RigStage, {"source": source, "adjustment": job.adjustment}
    reconstruction: dict[str, Any] = {"source": source, "config": job.reconstruction}
    people = reconstruction | {"max_people": job.max_people}
    chosen = work.monocular if work.monocular and not work.monocular.takes_images else None
    lifter = SavedLifter(**_placed(job, chosen)) if chosen else None
    yield Kind.TRACKS, TrackStage, people | {"adjusted": job.adjust_extrinsics, "lifter": lifter}
    yield Kind.IDENTITIES, IdentityStage, people
    yield Kind.POSES, PoseStage, {"source": source}
    if job.filtered:
        yield Kind.FILTERED, FilterStage, {"source": source, "config": job.filtering}
    yield Kind.QUALITY, QualityStage, reconstruction | {"adjusted": job.adjust_extrinsics}
