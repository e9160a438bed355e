"""`mvpose reconstruct`: run the batch job, print the outcome, and record it in MLflow."""

from __future__ import annotations

import math
from collections import Counter
from typing import cast

from mvpose import tracking
from mvpose.capture import Capture
from mvpose.commands.run_flags import Reconstruct
from mvpose.config import flatten
from mvpose.errors import ConfigError, MvposeError
from mvpose.footage.catalogue_table import listed, read_captures
from mvpose.models.detection.detector import TopDownDetector, load_detector
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.pipeline.engine import Engine
from mvpose.pipeline.feeding import measured_feeding
from mvpose.pipeline.job import Work, counts, kinds_of, placed, plan_job, reconstruct_archive, require_own_output
from mvpose.pipeline.open_work import uncommitted
from mvpose.quality.judgement import Grade, Verdict
from mvpose.records import Clip, Kind
from mvpose.run.capture_tables import FigureTable
from mvpose.run.run_folder import RunFolder, Summary
from mvpose.run.withdrawal import lost_results
from mvpose.storage.locations import join

# Assumptions of the estimate: camera-frames per second and core of the default detector and fusion (measured in float32
# on 1080p H.264 of 4 cameras with 1.5 people; in bfloat16 40), and bytes per camera and frame of all tables.
ASSUMED_CAMERA_FRAMES_PER_SECOND = 25.0
ASSUMED_BYTES_PER_CAMERA_FRAME = 350.0
MAX_LINES = 20
TOLERATED = 3
"""Exit code of a run that is complete within `max_failed_share`."""


def run(command: Reconstruct) -> int:
    """Exit code: 0 complete, 3 (0 with `exit_zero`) complete with an accepted share of failures, 4 with more.

    A dry run of a job that would be refused prints the settings, then raises the same error.
    """
    if not command.archive or not command.output:
        raise ConfigError("missing archive or output: mvpose reconstruct ARCHIVE --output OUT")
    command = placed(command)
    return run_job(command, f"Reconstructing {command.archive}", f"detector on {command.detector.device}")


def run_job(command: Reconstruct, doing: str, by: str) -> int:
    """Plan or run a job and print the outcome; the exit code is that of `run`."""
    if command.dry_run:
        work = plan_job(command)
        print(_described(command, work))
        if not command.replan:
            work.run.matches(work.settings)
        return 0
    engine = Engine(command.engine)
    print(f"{doing} {engine.describe()}, {by}.")
    require_own_output(command)
    before = RunFolder(command.output).performance()
    unrecordable = tracking.unrecordable(command.tracking) if command.tracking.enabled else None
    if unrecordable:
        print(f"note: {unrecordable}")
    summary = reconstruct_archive(command)
    worked = RunFolder(command.output).performance() != before
    try:
        recorded = None if unrecordable else _record(command, summary, worked=worked)
    except (
        MvposeError,
        OSError,
        ValueError,
        KeyError,
    ) as error:  # the job is done: tracking must not change its exit code
        recorded = f"this run is not recorded in MLflow: {error}"
    print(outcome_text(command, summary, recorded, worked))
    code = summary.exit_code(command.max_failed_share)
    return 0 if code == TOLERATED and command.exit_zero else code


def _record(command: Reconstruct, summary: Summary, *, worked: bool) -> str | None:
    """Record this output in MLflow and describe its run. A start that computed nothing new is not recorded again."""
    if not command.tracking.enabled:
        return None
    name, store = command.output.rstrip("/").rsplit("/", 1)[-1], command.tracking
    known = tracking.output_record(command.output)
    if known is None:
        run_id = tracking.start_run(store, name, flatten(command))
        known, worked = tracking.remember(command.output, store, run_id), True
    elif worked and known.is_elsewhere(store):
        print(
            f"note: earlier records are at {known.uri}; new ones go to {tracking.tracking_uri(store)}, as configured."
        )
        tracking.start_run(store, name, flatten(command), run_id=known.run_id)
    if worked:
        figures = recorded_figures(summary)
        figures |= {f"seconds/{name}": value for name, value in RunFolder(command.output).performance().items()}
        figures |= {"clips": summary.clips, "failures": len(summary.failures), "frames": summary.frames}
        figures |= {f"captures_{grade}": count for grade, count in verdict_counts(summary).items()}
        tracking.log_figures(store, known.run_id, figures)
        tracking.log_tags(store, known.run_id, {f"verdict.{c}": str(v) for c, v in summary.worst_first()[:MAX_LINES]})
        tracking.end_run(store, known.run_id, succeeded=summary.exit_code(command.max_failed_share) != 4)
    return tracking.described(store, known.run_id)


def verdict_counts(summary: Summary) -> dict[Grade, int]:
    """Number of captures by grade, best first."""
    return {grade: sum(v.grade == grade for v in summary.verdicts.values()) for grade in Grade}


def recorded_figures(summary: Summary) -> dict[str, float]:
    """Figures of every capture, or medians if there are many captures: a capture has about two hundred figures."""
    if isinstance(summary.figures, FigureTable) and len(summary.figures) > MAX_LINES:
        return {f"median/{name}": value for name, value in summary.figures.medians().items()}
    return {f"{c}/{name}": value for c, named in summary.figures.items() for name, value in named.items()}


def outcome_text(command: Reconstruct, summary: Summary, recorded: str | None, worked: bool) -> str:
    """Outcome of the job in at most a page of lines, however long the job was."""
    done = "" if worked else "Nothing to do. "
    where = f": poses in {join(command.output, 'poses')}" if summary.figures else ""
    lines = [f"note: {note}" for note in summary.notes[:MAX_LINES]]
    lines.append(f"{done}{summary.clips} clips of {summary.captures} captures, {summary.frames} frames{where}")
    for capture_id, verdict in summary.worst_first()[:MAX_LINES]:
        lines.append(f"  {capture_id}: {verdict}{_headlines(summary, capture_id, verdict)}")
    if len(summary.verdicts) > MAX_LINES:
        total = ", ".join(f"{count} {grade}" for grade, count in verdict_counts(summary).items())
        lines.append(f"  ... in total {total}: all in {RunFolder(command.output).verdicts_uri}")
    if summary.failures:
        reasons = Counter(f.reason for f in summary.failures)
        lines.append(f"{len(summary.failures)} without a result ({', '.join(f'{n} {r}' for r, n in reasons.items())}):")
        lines += [f"  {_named(f.clip)}: {f.detail}" for f in summary.failures[:MAX_LINES]]
        if len(summary.failures) > MAX_LINES:
            lines.append(f"  ... all in {join(command.output, 'failures')}")
    if recorded:
        lines.append(recorded)
    complete = summary.exit_code(command.max_failed_share) in (0, TOLERATED)
    lines.append(
        f"{'Complete' if complete else 'Too many failures'}: {summary.failed_share:.1%} of the clips failed "
        f"(tolerated: {command.max_failed_share:.1%})."
    )
    return "\n".join(lines)


def _headlines(summary: Summary, capture_id: str, verdict: Verdict) -> str:
    """The main figures; none of a bad capture, whose figures mislead: views that contradict are left out of them."""
    if verdict.grade == Grade.BAD:
        return ""
    figures = summary.figures.get(capture_id, {})
    if figures.get("people") == 0:
        return "; nobody found"
    known = {name: figures[name] for name in HEADLINES if math.isfinite(figures.get(name, math.nan))}
    own = ", ".join(HEADLINES[name].format(value) for name, value in known.items())
    return (f"; {own}" if verdict.reason else f": {own}") if own else ""


def _named(clip: Clip) -> str:
    """Name of a clip; a capture that could not be planned has no frames."""
    return f"{clip.capture_id} frames {clip.start} to {clip.stop - 1}" if clip.stop > clip.start else clip.capture_id


# The main figures of a capture; all of them are in figures.parquet and MLflow.
HEADLINES = {
    "people": "people: {:.0f}",
    "body_used_mean_px": "reprojection error {:.1f} px",
    "body_left_out_mean_px": "left-out camera {:.1f} px",
    "body_views_used": "{:.1f} views per joint",
    "body_reconstructed_share": "{:.1%} of body joints reconstructed",
    "present_share": "present in {:.1%} of the frames between first and last",
    "body_bone_spread_share": "bone lengths vary by {:.1%}",
}


def _described(command: Reconstruct, work: Work) -> str:
    """The resolved settings, the numbers of clips done and to do, and an estimate of time and size."""
    totals, done, camera_frames = work.planned.totals, work.planned.totals.clips, 0
    cameras = {c.capture_id: len(c.footage) for c in listed(work.planned.catalogue)}
    for task in uncommitted(command.output, Kind.POSES, work.planned.tasks()):
        done -= 1
        camera_frames += (task.clip.stop - task.clip.start) * cameras[task.clip.capture_id]
    workers = Engine(command.engine).local_workers()
    seconds = camera_frames / (ASSUMED_CAMERA_FRAMES_PER_SECOND * workers)
    lines = [f"{key} = {value}" for key, value in flatten(command).items()]
    lines += [f"problem: {p.capture_id}: {p.detail}" for p in work.planned.problems]
    lines += [f"note: {note}" for note in work.planned.notes]
    if lost := lost_results(work.run, kinds_of(command), work.planned):
        lines.append(f"note: finished results are missing from the output and will be computed again: {counts(lost)}")
    lines += [
        f"{totals.clips} clips of {totals.captures} captures: {done} done, {totals.clips - done} to do.",
        f"About {seconds / 60:.1f} minutes on {workers} workers at {ASSUMED_CAMERA_FRAMES_PER_SECOND:g} camera-frames "
        f"per second each, about {camera_frames * ASSUMED_BYTES_PER_CAMERA_FRAME / 2**20:.1f} MiB of tables.",
    ]
    if not command.imported:
        lines += _feeding(command, work.planned.catalogue)
    return "\n".join(lines)


def _feeding(command: Reconstruct, catalogue: str) -> list[str]:
    """What keeps a GPU busy, if one is asked for. ConfigError if the detector is to run here and cannot."""
    here = command.engine.address is None or command.engine.gpus == 0
    detector = load_detector(command.detector) if here else None
    capture = next((found for found in read_captures(catalogue) if isinstance(found, Capture)), None)
    ours = command.detector.detector == DetectorConfig.detector
    if command.engine.gpus == 0 or not ours or capture is None:
        return []
    return [str(measured_feeding(capture.videos, capture.fps, cast(TopDownDetector | None, detector)))]
