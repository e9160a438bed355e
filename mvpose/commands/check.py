"""`mvpose check`: inspect a few hundred frames of every capture before the full job."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from mvpose.capture import Capture
from mvpose.commands.run_flags import Check
from mvpose.config import nearest
from mvpose.errors import ConfigError, MvposeError
from mvpose.footage.catalogue import Catalogue, find_captures
from mvpose.models.detection.detector import Detector, load_detector, scale_of
from mvpose.models.detection.people import People
from mvpose.pipeline.detect_stage import stack_people
from mvpose.pipeline.detections import detections
from mvpose.quality.findings import CheckKind, Finding, Preflight, Status
from mvpose.quality.preflight import PreflightConfig, footage_findings, preflight, sampled_runs
from mvpose.records import Clip, Keypoints2D
from mvpose.storage.commits import write_whole

EXIT_CODES = {Status.PASS: 0, Status.WARN: 3, Status.FAIL: 4}
# Maximum number of camera pairs listed. A rig of 31 has 465 pairs, and one bad camera affects 30 of them.
MAX_PAIRS_LISTED = 5


def run(command: Check) -> int:
    """Print the findings. Exit code: 0 all checks pass, 3 some warn, 4 some fail."""
    if not command.archive:
        raise ConfigError("no archive given: mvpose check ARCHIVE")
    catalogue = find_captures(command.archive, command.catalogue)
    found = {}
    for capture_id, result in checked_captures(catalogue, command):
        found[capture_id] = result
        print("\n".join(_text(capture_id, result, command.verbose)), flush=True)
    if command.output:
        write_whole(command.output, json.dumps({c: _record(r) for c, r in found.items()}, indent=1).encode())
        print(f"findings: {command.output}")
    return EXIT_CODES[Preflight(tuple(f for r in found.values() for f in r.findings)).status]


def checked_captures(catalogue: Catalogue, command: Check) -> Iterator[tuple[str, Preflight]]:
    """Check the captures one by one; unusable or unreadable ones fail."""
    known = {c.capture_id for c in catalogue.captures} | {p.capture_id for p in catalogue.problems}
    wanted = set(command.captures or known)
    if wanted - known:
        unknown = min(wanted - known)
        raise ConfigError(f"{command.archive} has no capture {unknown!r} ({nearest(unknown, known)}).")
    for problem in catalogue.problems:
        if problem.capture_id in wanted:
            yield problem.capture_id, _failed(f"cannot be used, {problem.reason}: {problem.detail}")
    detector = load_detector(command.detector)
    for capture in catalogue.captures:
        if capture.capture_id in wanted:
            yield capture.capture_id, _checked(capture, _notes(catalogue, capture), detector, command.preflight)


def sampled_keypoints(capture: Capture, runs: Sequence[range], detector: Detector) -> Keypoints2D:
    """Detect the 2D joints in these runs of frames, in order."""
    people: list[list[People]] = [[] for _ in capture.videos]
    total = sum(map(len, runs))
    for frames in runs:
        clip = Clip(capture.capture_id, frames.start, frames.stop)
        for _, found in detections(detector, capture.videos, clip, capture.fps):
            for view, own in zip(people, found, strict=True):
                view.extend(own)
            if sys.stderr.isatty():
                progress = f"\r\033[K{capture.capture_id}: {len(people[0])}/{total} frames checked"
                print(progress, end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    return stack_people(people, detector.skeleton, scale_of(detector))


def _checked(capture: Capture, notes: Sequence[str], detector: Detector, config: PreflightConfig) -> Preflight:
    runs = sampled_runs(capture.num_frames, config)
    try:
        keypoints = sampled_keypoints(capture, runs, detector)
    except MvposeError as error:
        return _failed(str(error))
    frames = capture.positions(np.concatenate([np.arange(r.start, r.stop) for r in runs]))
    found = preflight(keypoints, frames, capture.rig, capture.fps, config)
    return Preflight((*footage_findings(capture.videos, notes), *found.findings))


def _notes(catalogue: Catalogue, capture: Capture) -> list[str]:
    prefix = f"{capture.capture_id}: "
    return [note.removeprefix(prefix) for note in catalogue.notes if note.startswith(prefix)]


def _failed(reason: str) -> Preflight:
    return Preflight((Finding(check=CheckKind.FOOTAGE, status=Status.FAIL, reason=reason),))


def _record(result: Preflight) -> dict[str, Any]:
    """The findings for JSON, which has no NaN or infinity: a figure that could not be measured is null."""
    findings = [asdict(finding) for finding in result.findings]
    for finding in findings:
        finding["figures"] = {n: v if math.isfinite(v) else None for n, v in finding["figures"].items()}
    return {"status": result.status, "findings": findings}


def _text(capture_id: str, result: Preflight, verbose: bool) -> Iterator[str]:
    """The verdict, then the problems, worst first; only the worst camera pairs are listed."""
    listed = [f for f in result.findings if verbose or f.status != Status.PASS]
    listed.sort(key=lambda f: -list(Status).index(f.status))
    yield f"{capture_id}: {result.status}, {len(result.findings)} checks"
    pairs = [f for f in listed if f.check == CheckKind.EPIPOLAR]
    pairs.sort(key=lambda f: -np.nan_to_num(f.figures["residual_share"], nan=np.inf))
    left_out = set() if verbose else set(map(id, pairs[MAX_PAIRS_LISTED:]))
    for finding in listed:
        if id(finding) not in left_out:
            cameras = f" {', '.join(finding.cameras)}" if finding.cameras else ""
            yield f"  {finding.status}  {finding.check}{cameras}: {finding.reason}"
    if left_out:
        yield f"  ... and {len(left_out)} more camera pairs"
