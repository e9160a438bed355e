"""`mvpose record`: write a run as Rerun recordings, one per capture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mvpose.capture import CapturePlan
from mvpose.commands.run_flags import Record
from mvpose.config import nearest
from mvpose.errors import ConfigError, ResultsError, VideoError
from mvpose.report.rerun_recording import write_recording
from mvpose.report.subject import CaptureReport
from mvpose.run.run_folder import RunFolder
from mvpose.storage.locations import join
from mvpose.storage.output_folder import claim_output


def run(command: Record) -> int:
    """Exit code 0, or 3 if a capture failed, has no poses or its footage cannot be read; the others are recorded."""
    if not command.run:
        raise ConfigError("no run given: mvpose record RUN")
    folder = RunFolder(command.run)
    plans = {plan.capture.capture_id: plan for plan in folder.plans()}
    unknown = [capture_id for capture_id in command.captures if capture_id not in plans]
    if unknown:
        raise ConfigError(f"{command.run} has no capture {unknown[0]!r} ({nearest(unknown[0], plans)}).")
    output = command.output or join(command.run, "recordings_filtered" if command.filtered else "recordings")
    claim_output(output, "mvpose record", "made_by.json")
    unplanned = [] if command.captures else folder.summary().unplanned
    failed = bool(unplanned)
    for failure in unplanned:
        print(f"{failure.clip.capture_id}: no result: {failure.detail}")
    for capture_id in command.captures or plans:
        uri = join(output, f"{capture_id}.rrd")
        try:
            subject = _subject(folder, plans[capture_id], command.filtered)
            frames = write_recording(subject, uri, command.recording)
        except (ResultsError, VideoError) as error:
            failed = True
            print(f"{capture_id}: no recording: {error}")
        else:
            print(f"{capture_id}: {frames} frames in {uri}")
    return 3 if failed else 0


def _subject(folder: RunFolder, plan: CapturePlan, filtered: bool) -> CaptureReport:
    """A capture's raw or filtered poses for the recording; ResultsError if it has none, or no such table."""
    poses = folder.filtered(plan).poses if filtered else folder.poses(plan)
    if poses is None:
        raise ResultsError("none of its clips has poses")
    return CaptureReport(
        capture=replace(plan.capture, rig=folder.rig(plan)),
        poses=poses,
        frames=np.arange(len(poses.xyz)),
        keypoints=folder.keypoints(plan),
    )
