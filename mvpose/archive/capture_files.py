"""Which files of an archive make a capture, found by convention or named in a `capture.toml`.

A folder is a capture if footage stands in it: one folder of `FOOTAGE_FOLDERS` with videos in it, or with a folder of
pictures for each camera, or with a folder of videos for each trial (each a capture then).

    Pose2Sim    calibration/*.toml|*.qca.txt  videos/cam01.mp4 ...     (Vicon: *.xcp)
    Anipose     calibration/calibration.toml  videos-raw/vid1-camA.avi ...       (several trials in one folder)
    Panoptic    calibration_<sequence>.json   hdVideos/hd_00_00.mp4 ...  or  hdImgs/00_00/*.jpg
    FreeMoCap   *_camera_calibration.toml     synchronized_videos/*.mp4
    EasyMocap   intri.yml extri.yml           videos/01.mp4 ...  or  images/01/*.jpg

Calibrations are looked for in the capture's folder and in its folders named `calib...`; where there is none, in the
folders above it, up to the archive: a calibration may serve all trials below it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from mvpose.archive.capture_toml import CAPTURE_TOML, CaptureSettings, VideoEntry, read_capture_toml
from mvpose.archive.locations import Entry, entries, name, parent
from mvpose.archive.safe_names import safe_path
from mvpose.archive.wall_times import WALL_TIME_FILES
from mvpose.errors import ConfigError

MAX_DEPTH = 8
FOLDERS_AT_ONCE = 64
VIDEO_FOLDERS = ("videos", "videos-raw", "synchronized_videos", "recordings", "hdvideos")
PICTURE_FOLDERS = ("images", "hdimgs")
FOOTAGE_FOLDERS = (*VIDEO_FOLDERS, *PICTURE_FOLDERS)
PANOPTIC_HD_FPS = 29.97
"""Panoptic's HD pictures are numbered at this rate; the files do not state it."""

_VIDEO = re.compile(r".*\.(mp4|m4v|mov|avi|mkv|webm|mpe?g|mts|m2ts|ts|wmv)", re.IGNORECASE)
_PICTURE = re.compile(r".*\.(jpe?g|png)", re.IGNORECASE)
_CALIBRATION = re.compile(r".+\.(toml|json|ya?ml|qca\.txt|xcp)", re.IGNORECASE)
_CALIBRATION_ANYWHERE = re.compile(
    r".*calib.*\.(toml|json|ya?ml)|camera_array.*\.toml|(in|ex)tri\.ya?ml|.*\.(qca\.txt|xcp)", re.IGNORECASE
)
_NO_CALIBRATION = re.compile(r"config.*\.toml|capture\.toml", re.IGNORECASE)
_SECOND_OF_PAIR = re.compile(r"extri(\.ya?ml)$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class CaptureFiles:
    """A capture before anything of it is opened."""

    capture_id: str
    calibrations: tuple[str, ...]
    """URIs to choose from."""
    videos: dict[str, VideoEntry]
    """By the name that stands for the camera: a key of capture.toml, or a file's or folder's name without suffix."""
    settings: CaptureSettings
    stamps: Mapping[str, str]
    """What the listing told of the content of video files, by URI; folders of pictures are not listed yet."""
    wall_times: str
    """The table of wall times beside the videos; empty where there is none."""


@dataclass(frozen=True)
class Unusable:
    """A folder that was meant to be a capture and cannot be one."""

    capture_id: str
    error: ConfigError


@dataclass(frozen=True)
class _Folder:
    uri: str
    path: tuple[str, ...]
    """Names from the archive down to it; empty for the archive."""
    inherited: tuple[str, ...]
    """Calibrations of the nearest folder above that has any."""


def capture_files(archive: str, outside_archive: bool, pool: Executor) -> Iterator[CaptureFiles | Unusable | str]:
    """All captures below an archive, what was meant to be one, and notes, as they are found.

    Depth first, with one listing a folder and some folders at a time: what is held is the folders that are known and
    not looked into yet. ConfigError if the archive is not a folder that can be listed.
    """
    waiting = [_Folder(archive, (), ())]
    while waiting:
        some = [waiting.pop() for _ in range(min(FOLDERS_AT_ONCE, len(waiting)))]
        below: list[_Folder] = []
        for folder, scan in zip(some, pool.map(lambda f: _scanned(archive, f, outside_archive), some), strict=True):
            if isinstance(scan, OSError):
                if not folder.path:
                    raise ConfigError(f"the archive {archive} cannot be listed: {scan.strerror or scan}.") from scan
                yield f"{'/'.join(folder.path)} cannot be listed and is left out: {scan.strerror or scan}"
            elif isinstance(scan, Unusable):
                yield scan
            else:
                yield from scan[0]
                below += scan[1] if len(folder.path) + 1 < MAX_DEPTH else []
        waiting += reversed(below)


def _scanned(
    archive: str, folder: _Folder, outside_archive: bool
) -> tuple[list[CaptureFiles], list[_Folder]] | Unusable | OSError:
    """The captures that a folder is, or the folders to look into if it is none."""
    capture_id = safe_path(folder.path or (name(archive) or "capture",))
    stamps: dict[str, str] = {}
    try:
        listing = entries(folder.uri)
        calibrations = _calibrations(listing) or folder.inherited
        names = {name(e.uri) for e in listing if not e.is_folder}
        if "run.json" in names:  # the output of a job, which may stand inside an archive
            return [], []
        if CAPTURE_TOML in names:
            settings = read_capture_toml(archive, folder.path, outside_archive)
            found = {"": settings.videos} if settings.videos else _footage(listing, stamps)
            calibrations = (settings.calibration,) if settings.calibration else calibrations
            capture_id = safe_path(tuple(settings.id.split("/"))) if settings.id else capture_id
        else:
            settings, found = CaptureSettings(), _footage(listing, stamps)
        if CAPTURE_TOML in names and not found:
            raise ConfigError(
                f"{folder.uri}/{CAPTURE_TOML} names no videos, and none stand in {', '.join(VIDEO_FOLDERS)}."
            )
    except OSError as error:
        return error
    except ConfigError as error:
        return Unusable(capture_id, error)
    captures = [
        CaptureFiles(
            capture_id=f"{capture_id}/{safe_path((trial,))}" if trial else capture_id,
            calibrations=calibrations,
            videos=videos,
            settings=settings,
            stamps={v.uri: stamps[v.uri] for v in videos.values() if v.uri in stamps},
            wall_times=_wall_times(videos, stamps),
        )
        for trial, videos in found.items()
    ]
    return captures, [] if captures else list(_folders_below(folder, listing, calibrations))


def _folders_below(folder: _Folder, listing: Sequence[Entry], calibrations: tuple[str, ...]) -> Iterator[_Folder]:
    for entry in listing:
        own = name(entry.uri)
        if entry.is_folder and not own.startswith(".") and not own.lower().startswith("calib"):
            yield _Folder(entry.uri, (*folder.path, own), calibrations)


def _calibrations(listing: Sequence[Entry]) -> tuple[str, ...]:
    """Calibration files of a folder: any in its `calib...` folders, and those with a telling name in itself."""
    files = [e.uri for e in listing if not e.is_folder and _CALIBRATION_ANYWHERE.fullmatch(name(e.uri))]
    for entry in listing:
        if entry.is_folder and name(entry.uri).lower().startswith("calib"):
            inside = entries(entry.uri)
            files += [e.uri for e in inside if not e.is_folder and _CALIBRATION.fullmatch(name(e.uri))]
    files = [f for f in files if not _NO_CALIBRATION.fullmatch(name(f))]
    # EasyMocap's pair is one calibration, and stands as its first file.
    return tuple(f for f in files if (first := _SECOND_OF_PAIR.sub(r"intri\1", f)) == f or first not in files)


def _footage(listing: Sequence[Entry], stamps: dict[str, str]) -> dict[str, dict[str, VideoEntry]]:
    """Videos of each trial of a capture's folder, by name; the one trial of a plain folder is named ""."""
    by_name = {name(e.uri).lower(): e.uri for e in listing if e.is_folder}
    for kind in FOOTAGE_FOLDERS:
        if kind in by_name:
            inside = entries(by_name[kind])
            found = _pictures(kind, inside) if kind in PICTURE_FOLDERS else _videos_or_trials(inside, stamps)
            if found:
                return found
    return {}


def _pictures(kind: str, inside: Sequence[Entry]) -> dict[str, dict[str, VideoEntry]]:
    """A folder a camera; these are not listed here, since they may hold 10^5 pictures each."""
    fps = PANOPTIC_HD_FPS if kind == "hdimgs" else None
    cameras = {name(e.uri): VideoEntry(uri=e.uri, fps=fps) for e in inside if e.is_folder}
    return {"": cameras} if cameras else {}


def _videos_or_trials(inside: Sequence[Entry], stamps: dict[str, str]) -> dict[str, dict[str, VideoEntry]]:
    videos = _videos(inside, stamps)
    if videos:
        return {"": videos}
    trials: dict[str, dict[str, VideoEntry]] = {}
    for entry in inside:
        if entry.is_folder and not name(entry.uri).startswith("."):
            content = entries(entry.uri)
            if any(not e.is_folder and _PICTURE.fullmatch(name(e.uri)) for e in content):
                trials.setdefault("", {})[name(entry.uri)] = VideoEntry(uri=entry.uri)
            elif videos := _videos(content, stamps):
                trials[name(entry.uri)] = videos
    return trials


def _wall_times(videos: Mapping[str, VideoEntry], stamps: Mapping[str, str]) -> str:
    folders = {parent(video.uri) for video in videos.values()}
    return next((uri for uri in stamps if name(uri) in WALL_TIME_FILES and {parent(uri)} == folders), "")


def _videos(listing: Sequence[Entry], stamps: dict[str, str]) -> dict[str, VideoEntry]:
    files = [
        e for e in listing
        if not e.is_folder and _VIDEO.fullmatch(name(e.uri)) and not name(e.uri).startswith(".")
    ]  # fmt: skip
    stamps |= {e.uri: e.stamp for e in [*files, *(e for e in listing if name(e.uri) in WALL_TIME_FILES)]}
    return {name(e.uri).rpartition(".")[0]: VideoEntry(uri=e.uri) for e in files}
