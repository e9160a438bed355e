"""`mvpose view`: overlays, plots and a page per finished run, and an index of all captures, worst first."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import quote

import numpy as np

from mvpose import tracking
from mvpose.capture import CapturePlan
from mvpose.commands.run_flags import View
from mvpose.config import digest
from mvpose.errors import ConfigError, FailureReason, ResultsError
from mvpose.quality.judgement import NOT_JUDGED
from mvpose.report.index_page import INDEX, IndexRow, index_page
from mvpose.report.page import anchor
from mvpose.report.run_report import PAGE, write_report
from mvpose.report.subject import Beside, CaptureReport, folder_name
from mvpose.run.run_folder import RunFolder, Summary
from mvpose.storage.commits import write_whole
from mvpose.storage.locations import absolute, is_remote, join, read_text
from mvpose.storage.output_folder import claim_output
from mvpose.tracking import tracking_uri

STAMP = "made_of.json"
"""Digest of a page's inputs; the file also marks the folder as ours."""


def run(command: View) -> int:
    """Print the locations of pages and images. They are remade only if the run has changed."""
    if not command.run:
        raise ConfigError("no run given: mvpose view RUN")
    several = len(command.run) > 1
    if several and not command.output:
        raise ConfigError("several runs need a folder for their index: mvpose view RUN RUN --output FOLDER")
    if command.output:
        claim_output(command.output, "mvpose view", STAMP)
    rows: list[IndexRow] = []
    for uri in command.run:
        own = join(uri, "view_filtered" if command.filtered else "view")
        output = own if several or not command.output else command.output
        folder = RunFolder(uri)
        files = _pages(command, folder, output)
        for name, file in files.items():
            print(f"{name}: {file}")
        rows += _index_rows(folder, output, files, command.output or output)
    target = join(command.output or output, INDEX)
    write_whole(
        target, index_page(", ".join(command.run[:3]) + (" ..." if len(command.run) > 3 else ""), rows).encode()
    )
    print(f"{INDEX}: {target}")
    return 0


def _pages(command: View, folder: RunFolder, output: str) -> dict[str, str]:
    """The files of a run's page by name, remade if the run has changed."""
    summary = folder.summary()
    beside = [command.beside, RunFolder(command.beside).summary()] if command.beside else []
    made_of = digest(summary, folder.settings().values, command.report, command.filtered, beside)
    claim_output(output, "mvpose view", STAMP)
    stamp = join(output, STAMP)
    if json.loads(read_text(stamp)).get("made_of") != made_of:
        files = _make(command, folder, summary, output)
        write_whole(stamp, json.dumps({"made_of": made_of, "files": files}, indent=1).encode())
    return json.loads(read_text(stamp))["files"]


def _make(command: View, folder: RunFolder, summary: Summary, output: str) -> dict[str, str]:
    captures = [c for plan in folder.plans() if (c := _capture(folder, plan, summary, command.filtered))]
    if command.beside:
        captures = list(_with_others(captures, RunFolder(command.beside), command.filtered))
    counts = {"captures": summary.captures, "clips": summary.clips, "frames": summary.frames}
    title = f"{folder.uri} (filtered)" if command.filtered else folder.uri
    files = write_report(captures, summary.failures, counts, output, command.report, title=title)
    store = command.tracking
    if store.enabled and not is_remote(output) and (known := tracking.output_record(folder.uri)):
        if known.is_elsewhere(store):
            print(f"Pages not recorded: the run is tracked at {known.uri}, but settings name {tracking_uri(store)}.")
        else:
            tracking.log_files(store, known.run_id, output, "view_filtered" if command.filtered else "view")
    return files


def _with_others(captures: list[CaptureReport], other: RunFolder, filtered: bool) -> Iterator[CaptureReport]:
    """The captures with their counterparts of another run, where it has the same frames."""
    plans, summary = {plan.capture.capture_id: plan for plan in other.plans()}, other.summary()
    for own in captures:
        plan = plans.get(own.capture.capture_id)
        there = _capture(other, plan, summary, filtered) if plan else None
        alike = there is not None and np.array_equal(there.frames, own.frames)
        yield replace(own, beside=Beside(other.uri, there)) if there and alike else own


def _capture(folder: RunFolder, plan: CapturePlan, summary: Summary, filtered: bool) -> CaptureReport | None:
    """A capture with its raw or filtered poses; None if it has none, or could not be filtered."""
    poses = folder.poses(plan)
    if poses is None:
        return None
    # Figures of single cameras, joints and bones are in the plots; listed here they would bury the others.
    own = {name: value for name, value in summary.figures.get(plan.capture.capture_id, {}).items() if "/" not in name}
    if filtered:
        try:
            after = folder.filtered(plan)
        except ResultsError as error:
            print(f"{plan.capture.capture_id}: skipped: {error}")
            return None
        poses = after.poses
        known = np.isfinite(poses.xyz[..., 0])
        own = {f"raw_{name}": value for name, value in own.items()}
        own["filled_share"] = float(after.filled.sum() / max(1, known.sum()))
    return CaptureReport(
        capture=replace(plan.capture, rig=folder.rig(plan)),
        poses=poses,
        frames=np.arange(len(poses.xyz)),
        keypoints=folder.keypoints(plan),
        figures=own,
        verdict=summary.verdicts.get(plan.capture.capture_id, NOT_JUDGED),
    )


def _index_rows(folder: RunFolder, view: str, files: dict[str, str], index: str) -> Iterator[IndexRow]:
    """One row per capture, including those that could not be planned."""
    summary = folder.summary()
    frames = {plan.capture.capture_id: plan.capture.num_frames for plan in folder.plans()}
    unplanned = {f.clip.capture_id: 0 for f in summary.failures}
    page = _link(join(view, PAGE), index)
    for capture_id, count in (unplanned | frames).items():
        failures = [f for f in summary.failures if f.clip.capture_id == capture_id]
        failed = sum(f.clip.stop - f.clip.start for f in failures if f.reason != FailureReason.BAD_DATA)
        in_full = any(name.startswith(f"{folder_name(capture_id)}/") for name in files)
        yield IndexRow(
            run=folder.uri,
            capture_id=capture_id,
            figures=summary.figures.get(capture_id, {}),
            failed_share=failed / count if count else 1.0,
            reasons=tuple(f"{n} x {reason}" for reason, n in Counter(str(f.reason) for f in failures).items()),
            verdict=summary.verdicts.get(capture_id, NOT_JUDGED),
            link=f"{page}#{anchor(capture_id)}" if in_full else page,
        )


def _link(page: str, index: str) -> str:
    """Link from the index to a page: relative if both are on local disk, so that the folder can be moved."""
    if is_remote(page) or is_remote(index):
        return page
    return quote(os.path.relpath(absolute(page), absolute(index)))
