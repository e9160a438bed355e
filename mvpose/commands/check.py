"""`mvpose check`: a few hundred frames of every capture looked at before compute is spent on all of them."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import tyro

from mvpose.archive.catalogue import Catalogue, CatalogueConfig, find_captures
from mvpose.archive.commits import write_whole
from mvpose.config import nearest
from mvpose.errors import ConfigError, MvposeError
from mvpose.models.detector import Detector, DetectorConfig, People, load_detector
from mvpose.pipeline.detection import detected
from mvpose.pipeline.stages import chunks_of_views, stack_people
from mvpose.reconstruction.findings import Check as Subject
from mvpose.reconstruction.findings import Finding, Preflight, Status
from mvpose.reconstruction.preflight import PreflightConfig, footage_findings, preflight, sampled_runs
from mvpose.records import Capture, Clip, Keypoints2D

EXIT_CODES = {Status.PASS: 0, Status.WARN: 3, Status.FAIL: 4}
# Pairs of cameras told in full; a rig of 31 has 465, and one camera that is off spoils 30 of them.
PAIRS_TOLD = 5


@dataclass(frozen=True, kw_only=True)
class Check:
    """Look at some frames of every capture: names, synchronisation, cameras, scale and floor."""

    archive: tyro.conf.Positional[str] = ""
    """Folder or s3:// URI with the captures."""
    captures: tuple[str, ...] = ()
    """Only these; without it all."""
    output: str | None = None
    """JSON file for all findings with their figures."""
    verbose: bool = False
    """Tell what passes too."""
    catalogue: CatalogueConfig = field(default_factory=CatalogueConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    preflight: PreflightConfig = field(default_factory=PreflightConfig)


def run(command: Check) -> int:
    """Print what is found. Exit code: 0 everything passes, 3 there are warnings, 4 something fails."""
    if not command.archive:
        raise ConfigError("say which archive: mvpose check ARCHIVE")
    catalogue = find_captures(command.archive, command.catalogue)
    found = {}
    for capture_id, result in checked_captures(catalogue, command):
        found[capture_id] = result
        print("\n".join(_told(capture_id, result, command.verbose)), flush=True)
    if command.output:
        write_whole(command.output, json.dumps({c: _record(r) for c, r in found.items()}, indent=1).encode())
        print(f"findings: {command.output}")
    return EXIT_CODES[Preflight(tuple(f for r in found.values() for f in r.findings)).status]


def checked_captures(catalogue: Catalogue, command: Check) -> Iterator[tuple[str, Preflight]]:
    """The captures one by one; those that cannot be used, or read, fail."""
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
    """2D joints of the frames of these runs, in their order."""
    people: list[list[People]] = [[] for _ in capture.videos]
    total = sum(map(len, runs))
    for frames in runs:
        clip = Clip(capture.capture_id, frames.start, frames.stop)
        for chunk in chunks_of_views(capture.videos, clip, detector.chunk_frames):
            for view, found in zip(people, detected(detector, chunk), strict=True):
                view.extend(found)
            if sys.stderr.isatty():
                progress = f"\r\033[K{capture.capture_id}: {len(people[0])}/{total} frames looked at"
                print(progress, end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    return stack_people(people, detector.skeleton)


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
    return Preflight((Finding(check=Subject.FOOTAGE, status=Status.FAIL, reason=reason),))


def _record(result: Preflight) -> dict[str, Any]:
    """For JSON, which has no NaN and no infinity: a figure that could not be measured is null."""
    findings = [asdict(finding) for finding in result.findings]
    for finding in findings:
        finding["figures"] = {n: v if math.isfinite(v) else None for n, v in finding["figures"].items()}
    return {"status": result.status, "findings": findings}


def _told(capture_id: str, result: Preflight, verbose: bool) -> Iterator[str]:
    """The verdict, then what is wrong, worst first; of pairs of cameras only the worst."""
    told = [f for f in result.findings if verbose or f.status != Status.PASS]
    told.sort(key=lambda f: -list(Status).index(f.status))
    yield f"{capture_id}: {result.status}, {len(result.findings)} checks"
    pairs = [f for f in told if f.check == Subject.EPIPOLAR]
    pairs.sort(key=lambda f: -np.nan_to_num(f.figures["residual_share"], nan=np.inf))
    left_out = set() if verbose else set(map(id, pairs[PAIRS_TOLD:]))
    for finding in told:
        if id(finding) not in left_out:
            cameras = f" {', '.join(finding.cameras)}" if finding.cameras else ""
            yield f"  {finding.status}  {finding.check}{cameras}: {finding.reason}"
    if left_out:
        yield f"  ... and {len(left_out)} more pairs of cameras"
