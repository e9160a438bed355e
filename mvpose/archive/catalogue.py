"""The captures of an archive: found, calibrated, matched camera by camera, and probed.

One bad capture is a `Problem` and never stops the others; what was decided for a good one is a note.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace

from mvpose.archive.calibration import Calibration, Unit, UpAxis, load_calibration
from mvpose.archive.camera_names import match_cameras, trials
from mvpose.archive.capture_files import FOOTAGE_FOLDERS, CaptureFiles, find_capture_files
from mvpose.archive.capture_toml import CAPTURE_TOML, VideoEntry
from mvpose.archive.catalogue_table import THREADS, Catalogue, Problem, read_catalogue, write_catalogue
from mvpose.archive.identity import footage_identity, rig_digest
from mvpose.archive.locations import absolute, join, name
from mvpose.archive.picture_fit import PictureFit, fit_rig
from mvpose.archive.safe_names import safe_path
from mvpose.archive.video import probe
from mvpose.errors import CalibrationError, ConfigError, MvposeError, TooFewViewsError, VideoTooShortError
from mvpose.records import Capture, Video

__all__ = [
    "Catalogue",
    "CatalogueConfig",
    "Problem",
    "find_captures",
    "footage_identity",
    "read_catalogue",
    "rig_digest",
    "write_catalogue",
]

FPS_TOLERANCE = 0.005
"""Rates that differ by less are one rate told differently (29.97 and 30, 59.94 and 60)."""
NAMED = 8
"""Cameras named in a note before it says how many more there are."""


@dataclass(frozen=True, kw_only=True)
class CatalogueConfig:
    """What an archive's own files leave open; a capture.toml goes before it."""

    calibration: str = ""
    """File name of the calibration to use where a capture has several; with a `/` in it, the location (absolute, or
    below the archive) of the one for all captures."""
    unit: Unit | None = None
    """Unit of the calibrations, over what they state."""
    up: UpAxis | None = None
    """Axis of the calibrations' world that points up, over what they state."""
    fps: float | None = None
    """Frames per second of all footage, over what the videos state; needed for folders of pictures."""
    picture_fit: PictureFit = PictureFit.AUTO
    """What was done to pictures whose size is not their calibration's."""
    outside_archive: bool = False
    """Whether a capture.toml may name locations outside the archive."""


@dataclass(frozen=True, eq=False)
class _Matched:
    """A capture of which everything is known but the videos' content."""

    capture_id: str
    calibration: Calibration
    videos: dict[str, VideoEntry]
    """By camera of the calibration, in its order; rate and picture fit as they hold for this capture."""
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Unmatched:
    """A capture that came to nothing before a video was opened."""

    capture_id: str
    error: MvposeError


def find_captures(archive: str, config: CatalogueConfig) -> Catalogue:
    """All captures below an archive (a folder or s3:// URI), in the order of their ids, with absolute locations.

    ConfigError if the archive cannot be listed, or holds nothing that looks like a capture.
    """
    if not archive.strip():
        raise ConfigError("the archive has no name: give a folder or an s3:// URI.")
    archive = absolute(archive)
    with ThreadPoolExecutor(THREADS) as pool:
        files, unusable, notes = find_capture_files(archive, config.outside_archive, pool)
        problems = [Problem(u.capture_id, u.error.reason, str(u.error)) for u in unusable]
        if not files and not problems:
            raise ConfigError(
                f"no capture was found in {archive}: a capture is a folder with one of {', '.join(FOOTAGE_FOLDERS)} in "
                f"it and a calibration, or with a {CAPTURE_TOML}. Give the folder above the captures."
            )
        load = functools.cache(load_calibration)
        matched = [
            m for trials in pool.map(lambda each: _matched_trials(each, archive, config, load), files) for m in trials
        ]
        captures = []
        for each, made in zip(matched, _probed(matched, pool), strict=True):
            if isinstance(made, MvposeError):
                problems.append(Problem(each.capture_id, made.reason, str(made)))
            else:
                captures.append(made[0])
                notes += [f"{each.capture_id}: {note}" for note in made[1]]
    return _without_twins(captures, problems, notes)


def _without_twins(captures: list[Capture], problems: list[Problem], notes: list[str]) -> Catalogue:
    kept: dict[str, Capture] = {}
    for capture in captures:
        if capture.capture_id in kept:
            detail = f"another capture has the id {capture.capture_id} too: set another `id` in its {CAPTURE_TOML}."
            problems.append(Problem(capture.capture_id, ConfigError.reason, detail))
        kept.setdefault(capture.capture_id, capture)
    return Catalogue(
        [kept[capture_id] for capture_id in sorted(kept)], sorted(problems, key=lambda p: p.capture_id), notes
    )


def _matched_trials(
    files: CaptureFiles, archive: str, config: CatalogueConfig, load: Callable[..., Calibration]
) -> list[_Matched | _Unmatched]:
    """Footage and calibration brought together; several captures where a folder holds several trials."""
    settings = files.settings
    try:
        uri = _chosen_calibration(files, archive, config)
        calibration = load(uri, settings.unit or config.unit, settings.up or config.up)
    except MvposeError as error:
        return [_Unmatched(files.capture_id, error)]
    videos = {footage: _settled(video, files, config) for footage, video in files.videos.items()}
    notes = tuple(f"calibration {name(uri)}: {note}" for note in calibration.notes)
    groups = trials(calibration.rig.names, tuple(videos))
    outside = [footage for footage in videos if all(footage not in names for names in groups.values())]
    if outside:
        notes = (*notes, f"footage without a calibration, left out: {_some(outside)}")
    found: list[_Matched | _Unmatched] = []
    for trial, names in groups.items():
        capture_id = f"{files.capture_id}/{safe_path((trial,))}" if trial else files.capture_id
        try:
            found.append(_matched(capture_id, calibration, {footage: videos[footage] for footage in names}, notes))
        except MvposeError as error:
            found.append(_Unmatched(capture_id, error))
    return found


def _settled(video: VideoEntry, files: CaptureFiles, config: CatalogueConfig) -> VideoEntry:
    settings = files.settings
    # What a capture.toml says of one video goes first; the rate that a convention knows goes last.
    fps = (video.fps if settings.videos else None) or settings.fps or config.fps or video.fps
    return replace(video, fps=fps, picture_fit=video.picture_fit or settings.picture_fit or config.picture_fit)


def _matched(
    capture_id: str, calibration: Calibration, videos: dict[str, VideoEntry], notes: tuple[str, ...]
) -> _Matched:
    matching = match_cameras(calibration.rig.names, tuple(videos))
    without_footage, without_camera = _some(matching.cameras_alone), _some(matching.footage_alone)
    if len(matching.footage) < 2:
        only = ", ".join(f"{camera} ({footage})" for camera, footage in matching.footage.items())
        raise TooFewViewsError(
            f"only one camera has both footage and a calibration: {only}. Footage without a camera: "
            f"{without_camera or 'none'}; cameras without footage: {without_footage or 'none'}."
        )
    if without_footage:
        notes = (*notes, f"calibrated cameras without footage: {without_footage}")
    if without_camera:
        notes = (*notes, f"footage without a calibration, left out: {without_camera}")
    renamed = [f"{camera} is {footage}" for camera, footage in matching.footage.items() if camera != footage]
    if renamed:
        notes = (*notes, f"cameras matched by what their names share: {_some(renamed)}")
    of_camera = {camera: videos[footage] for camera, footage in matching.footage.items()}
    return _Matched(capture_id, calibration, of_camera, notes)


def _chosen_calibration(files: CaptureFiles, archive: str, config: CatalogueConfig) -> str:
    if files.settings.calibration:
        return files.settings.calibration
    if "/" in config.calibration:
        absolute = "://" in config.calibration or config.calibration.startswith("/")
        return config.calibration if absolute else join(archive, config.calibration)
    found = files.calibrations
    if not found:
        raise CalibrationError(
            "there is footage but no calibration, neither in this folder (a folder `calibration`, or a file with "
            f"`calib` in its name) nor above it. Put one there, or name it in a {CAPTURE_TOML}."
        )
    named = [uri for uri in found if name(uri) == config.calibration]
    if len(found) == 1 or len(named) == 1:
        return (named or found)[0]
    asked = f"; {config.calibration} is not one of them" if config.calibration and not named else ""
    raise CalibrationError(
        f"there are several calibrations: {', '.join(name(uri) for uri in found)}{asked}. Say which one: --catalogue."
        f'calibration NAME for all captures, or `calibration = "..."` in a {CAPTURE_TOML} here.'
    )


def _probed(
    matched: Sequence[_Matched | _Unmatched], pool: Executor
) -> Iterator[tuple[Capture, tuple[str, ...]] | MvposeError]:
    """The captures, in order, each with its notes or with what is wrong with it."""
    jobs = [
        [pool.submit(_probe, camera, video) for camera, video in m.videos.items()] if isinstance(m, _Matched) else []
        for m in matched
    ]
    probed = [[job.result() for job in group] for group in jobs]
    yield from pool.map(_assembled, matched, probed)


def _probe(camera: str, video: VideoEntry) -> Video | MvposeError:
    try:
        return replace(probe(video.uri, camera, video.fps), first_frame=video.first_frame)
    except MvposeError as error:
        return error


def _assembled(
    matched: _Matched | _Unmatched, probed: Sequence[Video | MvposeError]
) -> tuple[Capture, tuple[str, ...]] | MvposeError:
    if isinstance(matched, _Unmatched):
        return matched.error
    videos = tuple(video for video in probed if isinstance(video, Video))
    if len(videos) < len(probed):
        return next(video for video in probed if isinstance(video, MvposeError))
    calibration, names = matched.calibration, tuple(matched.videos)
    turns = dict(zip(calibration.rig.names, calibration.turns, strict=True))
    fits = tuple(video.picture_fit or PictureFit.AUTO for video in matched.videos.values())
    try:
        clock = _check_clock(videos)
        rig, fitted = fit_rig(calibration.rig.select(names), videos, fits, tuple(turns[camera] for camera in names))
    except MvposeError as error:
        return error
    return Capture(matched.capture_id, rig, videos), (*matched.notes, *clock, *fitted)


def _check_clock(videos: tuple[Video, ...]) -> tuple[str, ...]:
    """Notes on rates and lengths; errors where frame k of one camera cannot be frame k of another."""
    notes = []
    rates = [video.fps for video in videos]
    told = ", ".join(f"{video.camera} {video.fps:g}" for video in videos)
    if max(rates) - min(rates) > FPS_TOLERANCE * max(rates):
        raise ConfigError(
            f"the videos have different frame rates ({told}), so that they cannot be paired frame by frame. Convert "
            f"them to one rate, or set `fps` in a {CAPTURE_TOML} if their headers are wrong."
        )
    if len(set(rates)) > 1:
        notes.append(f"frame rates differ a little ({told}); frames are paired one by one at {rates[0]:g}")
    left = {video.camera: video.num_frames - video.first_frame for video in videos}
    if min(left.values()) < 1:
        short = ", ".join(f"{video.camera} ({video.num_frames})" for video in videos if left[video.camera] < 1)
        raise VideoTooShortError(f"no frame is left after `first_frame` in {short}.")
    if len(set(left.values())) > 1:
        lengths = ", ".join(f"{camera} {frames}" for camera, frames in left.items())
        notes.append(f"lengths differ ({lengths}); the {min(left.values())} frames that all have are used")
    return tuple(notes)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
