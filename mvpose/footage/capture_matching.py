"""Match a capture's footage with its calibration, before any video is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from mvpose.errors import CalibrationError, ConfigError, MvposeError, TooFewViewsError
from mvpose.footage.archive_settings import CatalogueConfig
from mvpose.footage.calibration import Calibration
from mvpose.footage.camera_names import Matching, match_cameras
from mvpose.footage.capture_files import CaptureFiles
from mvpose.footage.capture_toml import CAPTURE_TOML, VideoEntry
from mvpose.footage.trial_folders import TrialError, Trials, all_trials
from mvpose.footage.video.frame_pairing import Pairing
from mvpose.footage.video.wall_times import wall_times_of
from mvpose.geometry.camera import CameraRig
from mvpose.storage.locations import name, parent, safe_path

MAX_COMPARED = 16
"""Maximum number of calibrations of one capture that are compared."""
SAME = 1e-5
"""Relative or absolute (pixels, metres) tolerance below which two calibrations are the same. Files rounded to six
digits are the same; a camera moved by 0.1 mm is different."""
NAMED = 8
"""Number of cameras listed in a note; the rest are only counted."""


@dataclass(frozen=True, eq=False)
class Matched:
    """A capture with everything resolved except the content of its videos."""

    capture_id: str
    calibration: Calibration
    videos: dict[str, VideoEntry]
    """By camera of the calibration, in its order, with this capture's frame rate and image fit filled in."""
    pairing: Pairing | None
    wall_times: str
    stamps: Mapping[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Unmatched:
    """A capture that failed before any video was opened."""

    capture_id: str
    error: MvposeError


def matched_trials(
    files: CaptureFiles, archive: str, config: CatalogueConfig, load: Callable[..., Calibration]
) -> list[Matched | Unmatched]:
    """Match footage with calibration; returns several captures if the folder holds several trials."""
    try:
        calibration, about_calibration = _calibration(files, archive, config, load)
        found, trials = _meant_footage(files, calibration.rig.names, config)
    except MvposeError as error:
        return [Unmatched(files.capture_id, error)]
    videos = {footage: _settled(video, files, config) for footage, video in found.items()}
    notes = (*about_calibration, *files.notes)
    placed = {f for m in trials.values() if isinstance(m, Matching) for f in (*m.footage.values(), *m.footage_alone)}
    placed |= {f for error in trials.values() if isinstance(error, TrialError) for f in error.footage}
    if outside := [footage for footage in videos if footage not in placed]:
        notes = (*notes, f"footage without a calibration, ignored: {some_of(outside)}")
    captures: list[Matched | Unmatched] = []
    for trial, matching in trials.items():
        capture_id = f"{files.capture_id}/{safe_path(trial.split('/'))}" if trial else files.capture_id
        try:
            if isinstance(matching, TrialError):
                raise matching
            captures.append(_matched(capture_id, calibration, matching, videos, files, notes, config.one_camera))
        except MvposeError as error:
            captures.append(Unmatched(capture_id, error))
    return captures


def _meant_footage(
    files: CaptureFiles, cameras: Sequence[str], config: CatalogueConfig
) -> tuple[dict[str, VideoEntry], Trials]:
    """The footage folder to use and its trials. Raises CalibrationError if several folders qualify."""
    if files.settings.videos:
        return files.settings.videos, {"": match_cameras(cameras, tuple(files.settings.videos))}
    wanted = files.settings.footage or config.footage
    named = {folder: videos for folder, videos in files.footage.items() if folder == wanted}
    if files.settings.footage and not named:
        raise ConfigError(f"{CAPTURE_TOML} names the folder `{wanted}`; footage is only in {', '.join(files.footage)}.")
    read: dict[str, Trials] = {}
    errors: list[CalibrationError] = []
    for folder, videos in (named or files.footage).items():
        try:
            read[folder] = all_trials(cameras, tuple(videos))
        except CalibrationError as error:
            errors.append(error)
    if not read:
        raise errors[0]
    if len(read) > 1:
        raise CalibrationError(
            f"{' and '.join(read)} both hold footage of these cameras. Choose one: set `footage = "
            f'"{next(iter(read))}"` in a {CAPTURE_TOML} here, or pass --catalogue.footage NAME for all captures.'
        )
    ((folder, trials),) = read.items()
    return files.footage[folder], trials


def _settled(video: VideoEntry, files: CaptureFiles, config: CatalogueConfig) -> VideoEntry:
    settings = files.settings
    # A capture.toml's entry for one video takes precedence; a rate implied by a folder convention comes last.
    fps = (video.fps if settings.videos else None) or settings.fps or config.fps or video.fps
    return replace(video, fps=fps, image_fit=video.image_fit or settings.image_fit or config.image_fit)


def _matched(
    capture_id: str,
    calibration: Calibration,
    matching: Matching,
    videos: dict[str, VideoEntry],
    files: CaptureFiles,
    notes: tuple[str, ...],
    one_camera: bool,
) -> Matched:
    without_footage, without_camera = some_of(matching.cameras_alone), some_of(matching.footage_alone)
    # A second video whose camera is not calibrated speaks for wrong names rather than for one camera.
    alone = one_camera and len(matching.footage) == 1 and not matching.footage_alone
    if len(matching.footage) < 2 and not alone:
        only = ", ".join(f"{camera} ({footage})" for camera, footage in matching.footage.items())
        raise TooFewViewsError(
            f"only one camera has both footage and a calibration: {only}. Footage without a camera: "
            f"{without_camera or 'none'}; cameras without footage: {without_footage or 'none'}. Depth needs two "
            "cameras that agree, or a network that lifts the poses of one: `reconstruct --monocular MODEL`."
        )
    if without_footage:
        notes = (*notes, f"calibrated cameras without footage: {without_footage}")
    if without_camera:
        notes = (*notes, f"footage without a calibration, ignored: {without_camera}")
    renamed = [
        f"{camera} is {footage}" for camera, footage in matching.footage.items() if camera not in footage.split("/")
    ]
    if renamed:
        notes = (*notes, f"cameras matched by part of their names: {some_of(renamed)}")
    of_camera = {camera: videos[footage] for camera, footage in matching.footage.items()}
    own = {video.uri: files.stamps[video.uri] for video in of_camera.values() if video.uri in files.stamps}
    folders = {parent(video.uri) for video in of_camera.values()}
    wall_times = wall_times_of(folders.pop(), files.stamps) if len(folders) == 1 else ""
    return Matched(capture_id, calibration, of_camera, files.settings.pairing, wall_times, own, notes)


def _calibration(
    files: CaptureFiles, archive: str, config: CatalogueConfig, load: Callable[..., Calibration]
) -> tuple[Calibration, tuple[str, ...]]:
    """The calibration to use, with notes. Duplicates count as one, since some tools write their calibration twice.

    Raises CalibrationError if several differ.
    """
    unit, up = files.settings.unit or config.unit, files.settings.up or config.up
    uris = _possible_calibrations(files, archive, config)
    read: dict[str, Calibration] = {}
    for uri in uris[:MAX_COMPARED]:
        try:
            read[uri] = load(uri, unit, up)
        except CalibrationError:
            if len(uris) == 1:
                raise
    uri = max(read, key=lambda uri: len(read[uri].rig), default="")
    others = [other for other in uris if other != uri]
    if not all(other in read and _states_the_same(read[uri].rig, read[other].rig) for other in others):
        wanted = f"; {config.calibration} is not one of them" if config.calibration else ""
        raise CalibrationError(
            f"there are several calibrations: {some_of([_below(archive, u) for u in uris])}{wanted}. Choose one: pass "
            f'--catalogue.calibration NAME for all captures, or set `calibration = "..."` in a {CAPTURE_TOML} here.'
        )
    notes = tuple(f"calibration {name(uri)}: {note}" for note in read[uri].notes)
    same = (f"{_below(archive, uri)} and {some_of([_below(archive, o) for o in others])} hold the same calibration",)
    return read[uri], (*notes, *(same if others else ()))


def _below(archive: str, uri: str) -> str:
    return uri.removeprefix(archive).lstrip("/")


def _states_the_same(rig: CameraRig, other: CameraRig) -> bool:
    """Whether the first rig contains all cameras of the second with equal parameters, up to rounding in files."""
    try:
        matching = match_cameras(rig.names, other.names)
    except CalibrationError:
        return False
    if matching.footage_alone:
        return False
    mine, theirs = rig.select(tuple(matching.footage)), other.select(tuple(matching.footage.values()))
    return mine.lens.models == theirs.lens.models and all(
        torch.allclose(a.double(), b.double(), rtol=SAME, atol=SAME)
        for a, b in (
            (mine.focal, theirs.focal),
            (mine.centre, theirs.centre),
            (mine.size, theirs.size),
            (mine.lens.coefficients, theirs.lens.coefficients),
            (mine.camera_from_world.rotation, theirs.camera_from_world.rotation),
            (mine.camera_from_world.translation, theirs.camera_from_world.translation),
        )
    )


def _possible_calibrations(files: CaptureFiles, archive: str, config: CatalogueConfig) -> Sequence[str]:
    if files.settings.calibration:
        return [files.settings.calibration]
    if "/" in config.calibration:
        absolute = "://" in config.calibration or config.calibration.startswith("/")
        return [config.calibration if absolute else f"{archive.rstrip('/')}/{config.calibration}"]
    found = files.calibrations
    if not found:
        raise CalibrationError(
            "there is footage but no calibration, neither in this folder (a folder `calibration`, or a file with "
            f"`calib` in its name) nor above it. Put one there, or name it in a {CAPTURE_TOML}."
        )
    named = [uri for uri in found if name(uri) == config.calibration]
    return named or found


def some_of(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
