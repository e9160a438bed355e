"""The captures of an archive: found, calibrated, matched camera by camera, and probed.

A capture that cannot be used becomes a `Problem` and never stops the others. Decisions made for a usable capture are
reported as notes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from types import MappingProxyType

from mvpose.capture import Capture
from mvpose.config import import_named
from mvpose.errors import ConfigError, MvposeError, VideoTooShortError
from mvpose.footage.calibration import load_calibration
from mvpose.footage.capture_files import FOOTAGE_FOLDERS, CaptureFiles, Unusable, capture_files
from mvpose.footage.capture_matching import CatalogueConfig, Matched, Unmatched, matched_trials
from mvpose.footage.capture_toml import CAPTURE_TOML, VideoEntry
from mvpose.footage.catalogue_table import (
    CAPTURES_AT_ONCE,
    THREADS,
    Catalogue,
    Found,
    Problem,
    read_catalogue,
    write_catalogue,
)
from mvpose.footage.image_fit import ImageFit, fit_rig
from mvpose.footage.rig_table import footage_identity, rig_digest
from mvpose.footage.video.frame_pairing import paired
from mvpose.footage.video.frames import probe
from mvpose.footage.video.video_container import unreadable
from mvpose.footage.video.wall_times import with_wall_times
from mvpose.records import ClockKind, Video
from mvpose.storage.locations import absolute, is_text, stamp

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
"""Rates closer than this are the same rate stated differently (29.97 and 30, 59.94 and 60)."""
CALIBRATIONS_KEPT = 256
NOTHING_KNOWN: Mapping[str, Video] = MappingProxyType({})


def find_captures(archive: str, config: CatalogueConfig, known: Mapping[str, Video] = NOTHING_KNOWN) -> Catalogue:
    """All captures below an archive (a folder or s3:// URI), sorted by id; otherwise like `look_through`."""
    captures: list[Capture] = []
    problems: list[Problem] = []
    notes: list[str] = []
    for found in look_through(archive, config, known):
        if isinstance(found, Capture):
            captures.append(found)
        elif isinstance(found, Problem):
            problems.append(found)
        else:
            notes.append(found)
    return Catalogue(sorted(captures, key=lambda c: c.capture_id), sorted(problems, key=lambda p: p.capture_id), notes)


def look_through(archive: str, config: CatalogueConfig, known: Mapping[str, Video] = NOTHING_KNOWN) -> Iterator[Found]:
    """Yield the content of an archive as it is found, with absolute locations; a few hundred captures in memory.

    A video in `known` with the same location and stamp is not opened again. Raises ConfigError if the archive cannot
    be listed or contains nothing that looks like a capture.
    """
    if not archive.strip():
        raise ConfigError("no archive was given: name a folder or an s3:// URI.")
    archive = absolute(archive)
    if not is_text(archive):
        raise ConfigError(f"the archive {archive} has a name that is not UTF-8. Rename it.")
    reader = import_named(config.calibration_reader, "calibration reader") if config.calibration_reader else None
    load = functools.lru_cache(CALIBRATIONS_KEPT)(functools.partial(load_calibration, reader=reader))
    ids: set[str] = set()
    any_found, note = False, ""
    with ThreadPoolExecutor(THREADS) as pool:
        upcoming = capture_files(archive, config.outside_archive, pool)
        while some := list(islice(upcoming, CAPTURES_AT_ONCE)):
            any_found |= any(not isinstance(each, str) for each in some)
            note = note or next((f" ({each})" for each in some if isinstance(each, str)), "")
            files = [each for each in some if isinstance(each, CaptureFiles)]
            yield from (each for each in some if isinstance(each, str))
            yield from (_problem(each.capture_id, each.error) for each in some if isinstance(each, Unusable))
            groups = pool.map(lambda each: matched_trials(each, archive, config, load), files)
            for found in _completed([m for trials in groups for m in trials], known, pool):
                yield _without_twin(found, ids)
    if not any_found:
        raise ConfigError(
            f"no capture was found in {archive}{note}. A capture is a folder that contains a calibration and one of "
            f"{', '.join(FOOTAGE_FOLDERS)}, or a {CAPTURE_TOML}. Give the folder that contains the captures."
        )


def _completed(matched: Sequence[Matched | Unmatched], known: Mapping[str, Video], pool: Executor) -> Iterator[Found]:
    for each, made in zip(matched, _probed(matched, known, pool), strict=True):
        if isinstance(made, MvposeError):
            yield _problem(each.capture_id, made)
        else:
            yield made[0]
            yield from (f"{each.capture_id}: {note}" for note in made[1])


def _problem(capture_id: str, error: MvposeError) -> Problem:
    return Problem(capture_id, error.reason, str(error))


def _without_twin(found: Found, ids: set[str]) -> Found:
    if not isinstance(found, Capture):
        return found
    if found.capture_id in ids:
        detail = f"another capture has the same id {found.capture_id}: set a different `id` in its {CAPTURE_TOML}."
        return Problem(found.capture_id, ConfigError.reason, detail)
    ids.add(found.capture_id)
    return found


def _probed(
    matched: Sequence[Matched | Unmatched], known: Mapping[str, Video], pool: Executor
) -> Iterator[tuple[Capture, tuple[str, ...]] | MvposeError]:
    """The captures in order, each with its notes, or the error that makes it unusable."""
    jobs = [
        [pool.submit(_probe, camera, video, m.stamps, known) for camera, video in m.videos.items()]
        if isinstance(m, Matched)
        else []
        for m in matched
    ]
    probed = [[job.result() for job in group] for group in jobs]
    yield from pool.map(_assembled, matched, probed)


def _probe(
    camera: str, video: VideoEntry, stamps: Mapping[str, str], known: Mapping[str, Video]
) -> Video | MvposeError:
    """The video; it is opened only if its present content is unknown."""
    try:
        content = stamps.get(video.uri) or stamp(video.uri)
        before = known.get(video.uri)
        own_clock = before and before.clock and before.clock.kind is not ClockKind.WALL
        if before and own_clock and before.stamp == content and (fps := video.fps or before.stated_fps):
            return replace(before, camera=camera, fps=fps, first_frame=video.first_frame, shown=())
        return replace(probe(video.uri, camera, video.fps), first_frame=video.first_frame, stamp=content)
    except OSError as error:
        return unreadable(video.uri, error)
    except MvposeError as error:
        return error


def _assembled(
    matched: Matched | Unmatched, probed: Sequence[Video | MvposeError]
) -> tuple[Capture, tuple[str, ...]] | MvposeError:
    if isinstance(matched, Unmatched):
        return matched.error
    videos = tuple(video for video in probed if isinstance(video, Video))
    if len(videos) < len(probed):
        return next(video for video in probed if isinstance(video, MvposeError))
    calibration, names = matched.calibration, tuple(matched.videos)
    turns = dict(zip(calibration.rig.names, calibration.turns, strict=True))
    fits = tuple(video.image_fit or ImageFit.AUTO for video in matched.videos.values())
    try:
        if matched.wall_times:
            stated = any(video.fps for video in matched.videos.values())
            videos = with_wall_times(videos, matched.wall_times, keep_rate=stated)
        notes = _check_clock(videos)
        pairs = paired(videos, matched.pairing)
        rig, fitted = fit_rig(calibration.rig.select(names), videos, fits, tuple(turns[camera] for camera in names))
    except MvposeError as error:
        return error
    capture = Capture(matched.capture_id, rig, pairs.videos, pairs.breaks, calibration.assumed_unit)
    return capture, (*matched.notes, *notes, *pairs.notes, *_lengths(capture), *fitted)


def _check_clock(videos: tuple[Video, ...]) -> tuple[str, ...]:
    """Notes on frame rates. Raises an error if they differ too much to pair frames, or if a view has no frame."""
    notes = []
    rates = [video.fps for video in videos]
    rates_text = ", ".join(f"{video.camera} {video.fps:g}" for video in videos)
    varying = any(video.clock and video.clock.kind is ClockKind.VARYING for video in videos)
    if max(rates) - min(rates) > FPS_TOLERANCE * max(rates) and not varying:
        raise ConfigError(
            f"the videos have different frame rates ({rates_text}) and cannot be paired frame by frame. Convert them "
            f"to one rate, or set `fps` in a {CAPTURE_TOML} if their headers are wrong."
        )
    if len(set(rates)) > 1 and not varying:
        notes.append(f"frame rates differ slightly ({rates_text}); the rate of {videos[0].camera} is used for all")
    short = ", ".join(f"{v.camera} ({v.num_frames})" for v in videos if v.num_frames <= v.first_frame)
    if short:
        raise VideoTooShortError(f"`first_frame` leaves no frames in {short}.")
    return tuple(notes)


def _lengths(capture: Capture) -> tuple[str, ...]:
    if len({video.stop for video in capture.videos}) == 1:
        return ()
    lengths = ", ".join(f"{video.camera} {video.stop}" for video in capture.videos)
    return (f"lengths differ ({lengths}); only the {capture.num_frames} frames common to all are used",)
