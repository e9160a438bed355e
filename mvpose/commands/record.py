"""`mvpose record`: a run as Rerun recordings, one a capture."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import tyro

from mvpose.archive.locations import join
from mvpose.archive.output_folder import claim_output
from mvpose.archive.run_folder import RunFolder
from mvpose.config import nearest
from mvpose.errors import ConfigError, ResultsError, VideoError
from mvpose.records import CapturePlan
from mvpose.report.recording import RecordingConfig, write_recording
from mvpose.report.subject import CaptureReport


@dataclass(frozen=True, kw_only=True)
class Record:
    """Write captures of a run as Rerun recordings (.rrd), to be opened with `rerun FILE`."""

    run: tyro.conf.Positional[str] = ""
    """Output of `mvpose reconstruct`."""
    output: str | None = None
    """Where the recordings go; without it the folder `recordings` (or `recordings_filtered`) of the run."""
    captures: tuple[str, ...] = ()
    """Only these; without it all of the run."""
    filtered: bool = False
    """Record the filtered poses, not the raw ones."""
    recording: RecordingConfig = field(default_factory=RecordingConfig)


def run(command: Record) -> int:
    """Exit code 0, or 3 if a capture has no poses or its footage cannot be read again; the others are recorded."""
    if not command.run:
        raise ConfigError("say which run: mvpose record RUN")
    folder = RunFolder(command.run)
    plans = {plan.capture.capture_id: plan for plan in folder.plans()}
    unknown = [capture_id for capture_id in command.captures if capture_id not in plans]
    if unknown:
        raise ConfigError(f"{command.run} has no capture {unknown[0]!r} ({nearest(unknown[0], plans)}).")
    output = command.output or join(command.run, "recordings_filtered" if command.filtered else "recordings")
    claim_output(output, "mvpose record", "made_by.json")
    failed = False
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
    """A capture as it was reconstructed, or filtered; ResultsError if no clip of it was, or there is no such table."""
    poses = folder.filtered(plan).poses if filtered else folder.poses(plan)
    if poses is None:
        raise ResultsError("no clip of it has poses")
    return CaptureReport(
        capture=replace(plan.capture, rig=folder.rig(plan)),
        poses=poses,
        frames=np.arange(len(poses.xyz)),
        keypoints=folder.keypoints(plan),
    )
