"""Which files of an archive make a capture, found by convention or named in a `capture.toml`.

A folder is a capture if footage stands in it: one folder of `FOOTAGE_FOLDERS` with videos in it, or with a folder of
pictures for each camera, or with a folder of videos for each trial or each camera (each trial a capture then).

    Pose2Sim    calibration/*.toml|*.qca.txt  videos/cam01.mp4 ...     (Vicon: *.xcp)
    Anipose     calibration/calibration.toml  videos-raw/vid1-camA.avi ...       (several trials in one folder)
    Panoptic    calibration_<sequence>.json   hdVideos/hd_00_00.mp4 ...  or  hdImgs/00_00/*.jpg
    (in mmpose) camera_parameters.json        00_03/*.jpg ...                    (folders of pictures beside it)
    FreeMoCap   *_camera_calibration.toml     synchronized_videos/*.mp4
    caliscope   camera_array.toml             recordings/walk/cam_0.mp4 ...
    EasyMocap   intri.yml extri.yml           videos/01.mp4 ...  or  images/01/*.jpg
    OpenCap     Videos/Cam0/cameraIntrinsicsExtrinsics.pickle  Videos/Cam0/InputMedia/walk/walk_sync.mp4 ...

Calibrations are looked for in the capture's folder and in its folders named `calib...`; where there is none, in the
folders above it, up to the archive: a calibration may serve all trials below it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

from mvpose.archive.capture_toml import CAPTURE_TOML, CaptureSettings, VideoEntry, read_capture_toml
from mvpose.archive.locations import Entry, inputs, is_text, name
from mvpose.archive.safe_names import safe_path
from mvpose.archive.wall_times import WALL_TIMES_FOLDER, is_wall_times
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
    r".*calib.*\.(toml|json|ya?ml)|camera_parameters\.json|camera_array.*\.toml|(in|ex)tri\.ya?ml|.*\.(qca\.txt|xcp)",
    re.IGNORECASE,
)
_NO_CALIBRATION = re.compile(r"config.*\.toml|capture\.toml", re.IGNORECASE)
_OPENCAP_CALIBRATION = "cameraIntrinsicsExtrinsics.pickle"
_MMPOSE_CALIBRATION = "camera_parameters.json"
_SECOND_OF_PAIR = re.compile(r"extri(\.ya?ml)$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class CaptureFiles:
    """A capture before anything of it is opened."""

    capture_id: str
    calibrations: tuple[str, ...]
    """URIs to choose from."""
    footage: dict[str, dict[str, VideoEntry]]
    """By folder of footage, of which one is meant, and by the name that stands for the camera and the trial: the path
    below that folder, without suffix. Those of a capture.toml are by camera, and their folder is empty."""
    settings: CaptureSettings
    stamps: Mapping[str, str]
    """What the listing told of the content of video files and tables of wall times, by URI; folders of pictures are not
    listed yet."""
    notes: tuple[str, ...] = ()


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


def capture_around(archive: str, folder: str) -> str | None:
    """The folder of an archive that is a capture and is, or holds, another one; both absolute. None where none is."""
    if not f"{folder}/".startswith(f"{archive}/"):
        return None
    uri = archive
    for part in (*folder.removeprefix(archive).strip("/").split("/"), ""):
        try:
            listing = inputs(uri)
            if any(name(e.uri) == CAPTURE_TOML for e in listing) or _footage(listing).folders:
                return uri
        except (OSError, ConfigError):
            return None
        uri = f"{uri}/{part}"
    return None


def _scanned(
    archive: str, folder: _Folder, outside_archive: bool
) -> tuple[list[CaptureFiles | Unusable | str], list[_Folder]] | Unusable | OSError:
    """The capture that a folder is, or what is said of the folders in it and those to look into."""
    capture_id = safe_path(folder.path or (name(archive) or "capture",))
    try:
        listing = inputs(folder.uri)
    except OSError as error:
        return error
    names = {name(e.uri) for e in listing if not e.is_folder}
    if "run.json" in names:  # the output of a job, which may stand inside an archive
        return [], []
    try:
        calibrations = calibrations_in(listing) or folder.inherited
        settings = CaptureSettings()
        if CAPTURE_TOML in names:
            settings = read_capture_toml(archive, folder.path, outside_archive)
            capture_id = safe_path(tuple(settings.id.split("/"))) if settings.id else capture_id
        found = _Footage({"": settings.videos}) if settings.videos else _footage(listing)
        if CAPTURE_TOML in names and not found.folders:
            raise ConfigError(
                f"{folder.uri}/{CAPTURE_TOML} names no videos, and none stand in {', '.join(VIDEO_FOLDERS)}."
            )
    except OSError as error:
        return Unusable(
            capture_id, ConfigError(f"{error.filename or folder.uri} cannot be read: {error.strerror or error}.")
        )
    except ConfigError as error:
        return Unusable(capture_id, error)
    if not found.folders:
        return list(_left_out(folder, listing)), list(_folders_below(folder, listing, calibrations))
    capture = CaptureFiles(
        capture_id=capture_id,
        calibrations=(settings.calibration,) if settings.calibration else (*found.calibrations, *calibrations),
        footage=found.folders,
        settings=settings,
        stamps=found.stamps,
        notes=tuple(found.notes),
    )
    return [capture], []


def _folders_below(folder: _Folder, listing: Sequence[Entry], calibrations: tuple[str, ...]) -> Iterator[_Folder]:
    for entry in listing:
        own = name(entry.uri)
        if entry.is_folder and is_text(own) and not own.lower().startswith("calib"):
            yield _Folder(entry.uri, (*folder.path, own), calibrations)


def _left_out(folder: _Folder, listing: Sequence[Entry]) -> Iterator[Unusable | str]:
    """What is said of folders that are not looked into, and of links that lead to none."""
    for entry in listing:
        path = (*folder.path, name(entry.uri))
        if entry.dead_link:
            yield f"{'/'.join(path).encode(errors='backslashreplace').decode()} is left out: it is {entry.dead_link}"
        elif entry.is_folder and not is_text(path[-1]):
            yield Unusable(safe_path(path), _not_text(entry.uri))


def _not_text(uri: str) -> ConfigError:
    return ConfigError(f"{uri} has a name that is not UTF-8, which no table can hold. Rename it.")


def _of_kind(pattern: re.Pattern[str], listing: Sequence[Entry]) -> list[Entry]:
    """Files of this kind of name. ConfigError where one is not UTF-8."""
    found = [e for e in listing if not e.is_folder and pattern.fullmatch(name(e.uri))]
    for entry in found:
        if not is_text(name(entry.uri)):
            raise _not_text(entry.uri)
    return found


def calibrations_in(listing: Sequence[Entry]) -> tuple[str, ...]:
    """Calibration files of a folder: any in its `calib...` folders, and those with a telling name in itself."""
    files = [e.uri for e in _of_kind(_CALIBRATION_ANYWHERE, listing)]
    for entry in listing:
        if entry.is_folder and name(entry.uri).lower().startswith("calib"):
            files += [e.uri for e in _of_kind(_CALIBRATION, inputs(entry.uri))]
    files = [f for f in files if not _NO_CALIBRATION.fullmatch(name(f))]
    # EasyMocap's pair is one calibration, and stands as its first file.
    return tuple(f for f in files if (first := _SECOND_OF_PAIR.sub(r"intri\1", f)) == f or first not in files)


@dataclass
class _Footage:
    """What the folders of footage in a folder hold, as they are looked through."""

    folders: dict[str, dict[str, VideoEntry]] = field(default_factory=dict)
    stamps: dict[str, str] = field(default_factory=dict)
    calibrations: list[str] = field(default_factory=list)
    """Those that stand in the folders of cameras."""
    notes: list[str] = field(default_factory=list)


def _footage(listing: Sequence[Entry]) -> _Footage:
    found = _Footage(stamps=_wall_times(listing))
    for entry in listing:
        kind = name(entry.uri).lower()
        if kind not in FOOTAGE_FOLDERS:
            continue
        if entry.dead_link:
            raise ConfigError(f"{entry.uri} is {entry.dead_link}.")
        if entry.is_folder:
            inside = inputs(entry.uri)
            videos = _pictures(kind, inside) if kind in PICTURE_FOLDERS else _videos(inside, found)
            if videos:
                found.folders[name(entry.uri)] = videos
    if not found.folders and any(name(e.uri) == _MMPOSE_CALIBRATION for e in listing):
        found.folders = {"": cameras} if (cameras := _pictures("", listing)) else {}
    return found


def _pictures(kind: str, inside: Sequence[Entry]) -> dict[str, VideoEntry]:
    """A folder a camera; these are not listed here, since they may hold 10^5 pictures each."""
    fps = PANOPTIC_HD_FPS if kind == "hdimgs" else None
    return {name(e.uri): VideoEntry(uri=e.uri, fps=fps) for e in _folders(inside)}


def _folders(listing: Sequence[Entry]) -> list[Entry]:
    """ConfigError where one's name is not UTF-8, or it is a link that leads to none."""
    for entry in listing:
        if entry.is_folder and not is_text(name(entry.uri)):
            raise _not_text(entry.uri)
        if entry.dead_link and "." not in name(entry.uri):
            raise ConfigError(f"{entry.uri} is {entry.dead_link}.")
    return [entry for entry in listing if entry.is_folder]


def _videos(inside: Sequence[Entry], found: _Footage) -> dict[str, VideoEntry]:
    """Videos by their path below the folder: its own, or else those of its folders."""
    if own := videos_in(inside, found.stamps):
        return own
    videos: dict[str, VideoEntry] = {}
    phones: dict[str, dict[str, tuple[str, VideoEntry]]] = defaultdict(dict)
    for entry in _folders(inside):
        folder, content = name(entry.uri), inputs(entry.uri)
        calibration = next((e.uri for e in content if name(e.uri) == _OPENCAP_CALIBRATION), None)
        if calibration and not found.calibrations:  # one stands for those of all cameras
            found.calibrations.append(calibration)
        if own := videos_in(content, found.stamps):
            videos |= {f"{folder}/{stem}": video for stem, video in own.items()}
        elif any(not e.is_folder and _PICTURE.fullmatch(name(e.uri)) for e in content):
            videos[folder] = VideoEntry(uri=entry.uri)
        for media in content:
            if media.is_folder and name(media.uri) == "InputMedia":
                for trial in _folders(inputs(media.uri)):
                    if video := _phone_video(trial, found):
                        phones[name(trial.uri)][folder] = video
    for trial, of_camera in phones.items():
        kinds = {kind for kind, _ in of_camera.values()}
        if kinds == {"raw"}:
            found.notes.append(
                f"{trial}: OpenCap did not synchronise these videos; `mvpose check` measures by how much"
            )
        # What is not synchronised is kept apart from what is.
        own = {f"{camera}/{trial}{'/raw' if kind < max(kinds) else ''}": v for camera, (kind, v) in of_camera.items()}
        videos |= own
    return videos


def _phone_video(trial: Entry, found: _Footage) -> tuple[str, VideoEntry] | None:
    """A trial's video of one of OpenCap's phones, with its kind: the synchronised one, where it is there."""
    own = videos_in(inputs(trial.uri), found.stamps)
    synchronised = {stem: video for stem, video in own.items() if stem.lower().endswith("_sync")}
    chosen = synchronised or own
    if len(chosen) > 1:
        raise ConfigError(f"{' and '.join(chosen)} in {trial.uri} are videos of one trial. Keep the one that is meant.")
    return next((("sync" if synchronised else "raw", video) for video in chosen.values()), None)


def _wall_times(listing: Sequence[Entry]) -> dict[str, str]:
    """Stamps of the tables of times in a folder, and in the folder for them in it."""
    found = {e.uri: e.stamp for e in listing if is_wall_times(name(e.uri))}
    for entry in listing:
        if entry.is_folder and name(entry.uri) == WALL_TIMES_FOLDER:
            found |= {e.uri: e.stamp for e in inputs(entry.uri) if is_wall_times(name(e.uri))}
    return found


def videos_in(listing: Sequence[Entry], stamps: dict[str, str]) -> dict[str, VideoEntry]:
    """Video files by name without suffix. ConfigError where two differ in the suffix alone, or in upper case."""
    by_stem: dict[str, list[Entry]] = defaultdict(list)
    for entry in _of_kind(_VIDEO, listing):
        by_stem[name(entry.uri).rpartition(".")[0].casefold()].append(entry)
    for same in by_stem.values():
        if len(same) > 1:
            raise ConfigError(
                f"{' and '.join(name(e.uri) for e in same)} are two files of one camera. Keep the one that is meant in "
                f"this folder, or name it in a {CAPTURE_TOML}."
            )
    stamps |= {e.uri: e.stamp for (e,) in by_stem.values()} | _wall_times(listing)
    return {name(e.uri).rpartition(".")[0]: VideoEntry(uri=e.uri) for (e,) in by_stem.values()}
