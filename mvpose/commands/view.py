"""`mvpose view`: overlays, plots and one page of a finished run."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

import numpy as np
import tyro

from mvpose import tracking
from mvpose.archive.commits import write_whole
from mvpose.archive.locations import exists, is_remote, join, read_text
from mvpose.archive.run_folder import RunFolder, Summary
from mvpose.config import digest
from mvpose.errors import ConfigError
from mvpose.records import CapturePlan
from mvpose.report.run_report import ReportConfig, write_report
from mvpose.report.subject import CaptureReport
from mvpose.tracking import TrackingConfig


@dataclass(frozen=True, kw_only=True)
class View:
    """Make overlays, plots and a summary page of a finished run."""

    run: tyro.conf.Positional[str] = ""
    """Output of `mvpose reconstruct`."""
    output: str | None = None
    """Where the pictures go; without it the folder `view` of the run."""
    report: ReportConfig = field(default_factory=ReportConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)


def run(command: View) -> int:
    """Print where the page and the pictures are; they are made anew only when the run has changed."""
    if not command.run:
        raise ConfigError("say which run: mvpose view RUN")
    folder = RunFolder(command.run)
    output = command.output or join(command.run, "view")
    summary = folder.summary()
    made_of = digest(summary, folder.settings().values, command.report)
    stamp = join(output, "made_of.json")
    if not exists(stamp) or json.loads(read_text(stamp))["made_of"] != made_of:
        files = _make(command, folder, summary, output)
        write_whole(stamp, json.dumps({"made_of": made_of, "files": files}, indent=1).encode())
    for name, uri in json.loads(read_text(stamp))["files"].items():
        print(f"{name}: {uri}")
    return 0


def _make(command: View, folder: RunFolder, summary: Summary, output: str) -> dict[str, str]:
    captures = [c for plan in folder.plans() if (c := _capture(folder, plan, summary.figures))]
    told = {"captures": summary.captures, "clips": summary.clips, "frames": summary.frames}
    files = write_report(captures, summary.failures, told, output, command.report, title=command.run)
    record = join(command.run, "tracking.json")
    if command.tracking.enabled and exists(record) and not is_remote(output):
        known = json.loads(read_text(record))
        tracking.log_files(replace(command.tracking, uri=known["uri"]), known["run_id"], output, "view")
    return files


def _capture(folder: RunFolder, plan: CapturePlan, figures) -> CaptureReport | None:
    """A capture as it was reconstructed; None if no clip of it was."""
    poses = folder.poses(plan)
    if poses is None:
        return None
    return CaptureReport(
        capture=replace(plan.capture, rig=folder.rig(plan)),
        poses=poses,
        frames=np.arange(len(poses.xyz)),
        keypoints=folder.keypoints(plan),
        # Those of single cameras, joints and bones are on the plots; in a row of their own they bury the others.
        figures={name: value for name, value in figures.get(plan.capture.capture_id, {}).items() if "/" not in name},
    )
