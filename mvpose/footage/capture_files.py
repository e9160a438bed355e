"""Find the files of each capture in an archive, by folder convention or from a `capture.toml`.

A folder is a capture if it contains footage: one of `FOOTAGE_FOLDERS` with videos, with one folder of images per
camera, or with one folder of videos per trial or per camera (each trial is then a separate capture).

    Pose2Sim    calibration/*.toml|*.qca.txt  videos/cam01.mp4 ...     (Vicon: *.xcp)
    Anipose     calibration/calibration.toml  videos-raw/vid1-camA.avi ...       (several trials in one folder)
    Panoptic    calibration_<sequence>.json   hdVideos/hd_00_00.mp4 ...  or  hdImgs/00_00/*.jpg
    (in mmpose) camera_parameters.json        00_03/*.jpg ...                    (image folders next to it)
    FreeMoCap   *_camera_calibration.toml     synchronized_videos/*.mp4
    caliscope   camera_array.toml             recordings/walk/cam_0.mp4 ...
    EasyMocap   intri.yml extri.yml           videos/01.mp4 ...  or  images/01/*.jpg
    OpenCap     Videos/Cam0/cameraIntrinsicsExtrinsics.pickle  Videos/Cam0/InputMedia/walk/walk_sync.mp4 ...

All other folders of a capture are searched for further captures.

Calibrations are searched for in the capture's folder and in its `calib...` folders. If there are none, the search
continues in the parent folders up to the archive, so one calibration can serve all trials below it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace

from mvpose.errors import ConfigError
from mvpose.footage.capture_toml import (
    CAPTURE_TOML,
    CaptureSettings,
    VideoEntry,
    is_capture_toml,
    read_capture_toml,
)
from mvpose.footage.video.wall_times import WALL_TIMES_FOLDER, is_wall_times
from mvpose.storage.locations import Entry, inputs, is_text, name, safe_path

MAX_DEPTH = 8
FOLDERS_AT_ONCE = 64
NAMED = 4
"""Number of files listed in a note; the rest are only counted."""
VIDEO_FOLDERS = ("videos", "videos-raw", "synchronized_videos", "recordings", "hdvideos")
IMAGE_FOLDERS = ("images", "hdimgs")
FOOTAGE_FOLDERS = (*VIDEO_FOLDERS, *IMAGE_FOLDERS)
PANOPTIC_HD_FPS = 29.97
"""Panoptic's HD images are numbered at this rate; the files do not state it."""

_VIDEO = re.compile(
    r".*\.(mp4|m4v|mov|3gp|3g2|avi|divx|mkv|webm|mpe?g|m2v|vob|mts|m2ts|ts|wmv|asf|flv|f4v|[hx]?26[45]|hevc)",
    re.IGNORECASE,
)
_UNREAD_VIDEO = re.compile(r".*\.(mxf|dv|ogv|y4m|mjpe?g|mjpg|insv|360|r3d|braw|cine)", re.IGNORECASE)
"""Videos of kinds that are not read. Those that a camera writes beside each of its own (GoPro's LRV) are not listed."""
_LIKE_VIDEO = re.compile(f"{_VIDEO.pattern}|{_UNREAD_VIDEO.pattern}", re.IGNORECASE)
_IMAGE = re.compile(r".*\.(jpe?g|png)", re.IGNORECASE)
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
    """The files of a capture, none of them opened yet."""

    capture_id: str
    calibrations: tuple[str, ...]
    """Candidate URIs."""
    footage: dict[str, dict[str, VideoEntry]]
    """By footage folder, of which one is used, then by the name that identifies camera and trial: the path below that
    folder without suffix. Entries from a capture.toml are keyed by camera, under the folder name ''."""
    settings: CaptureSettings
    stamps: Mapping[str, str]
    """Content stamps of video files and wall-time tables from the listing, by URI. Image folders are not listed at this
    point."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unusable:
    """A folder that is meant to be a capture but cannot be used."""

    capture_id: str
    error: ConfigError


@dataclass(frozen=True)
class _Folder:
    uri: str
    path: tuple[str, ...]
    """Folder names from the archive down to this one; empty for the archive itself."""
    inherited: tuple[str, ...]
    """Calibrations of the nearest parent folder that has any."""
    in_capture: bool = False
    """Whether a parent folder is a capture: tools leave videos of their own in it."""


def capture_files(archive: str, outside_archive: bool, pool: Executor) -> Iterator[CaptureFiles | Unusable | str]:
    """Yield the captures below an archive, the unusable ones, and notes, as they are found.

    The search is depth first, with one listing per folder and several folders at a time. Only the folders still to be
    visited are held in memory. Raises ConfigError if the archive cannot be listed as a folder.
    """
    waiting = [_Folder(archive, (), ())]
    while waiting:
        some = [waiting.pop() for _ in range(min(FOLDERS_AT_ONCE, len(waiting)))]
        below: list[_Folder] = []
        for folder, scan in zip(some, pool.map(lambda f: _scanned(archive, f, outside_archive), some), strict=True):
            if isinstance(scan, OSError):
                if not folder.path:
                    raise ConfigError(f"the archive {archive} cannot be listed: {scan.strerror or scan}.") from scan
                yield f"{'/'.join(folder.path)} was skipped because it cannot be listed: {scan.strerror or scan}"
            elif isinstance(scan, Unusable):
                yield scan
            else:
                yield from scan[0]
                if len(folder.path) + 1 < MAX_DEPTH:
                    below += scan[1]
                elif scan[1]:
                    yield f"{'/'.join(folder.path)}: folders below it were not searched, only {MAX_DEPTH} levels are"
        waiting += reversed(below)


def capture_around(archive: str, folder: str) -> str | None:
    """The capture folder of an archive that is, or contains, `folder`; None if there is none. Both paths absolute."""
    if not f"{folder}/".startswith(f"{archive}/"):
        return None
    uri = archive
    for part in (*folder.removeprefix(archive).strip("/").split("/"), ""):
        try:
            listing = inputs(uri)
            if any(is_capture_toml(name(e.uri)) for e in listing) or _footage(listing).folders:
                return uri
        except (OSError, ConfigError):
            return None
        uri = f"{uri}/{part}"
    return None


def _scanned(
    archive: str, folder: _Folder, outside_archive: bool
) -> tuple[list[CaptureFiles | Unusable | str], list[_Folder]] | Unusable | OSError:
    """The capture in a folder, or notes on its subfolders and the subfolders to visit next."""
    capture_id = safe_path(folder.path or (name(archive) or "capture",))
    try:
        listing = inputs(folder.uri)
    except OSError as error:
        return error
    names = {name(e.uri) for e in listing if not e.is_folder}
    if "run.json" in names:  # a run folder, which may be stored inside an archive
        return [], []
    if folder.path and _is_for_calibrations(folder.path[-1]):  # no calibration was found in it
        own = _shown_path(folder.path)
        note = f"{own} is taken for a folder of calibrations by its name, but has none; folders in it are not searched"
        return [note] if any(entry.is_folder for entry in listing) else [], []
    try:
        calibrations = calibrations_in(listing) or folder.inherited
        settings = CaptureSettings()
        if own_toml := [each for each in names if is_capture_toml(each)]:
            settings = read_capture_toml(archive, folder.path, outside_archive, own_toml)
            capture_id = safe_path(tuple(settings.id.split("/"))) if settings.id else capture_id
        found = _Footage({"": settings.videos}) if settings.videos else _footage(listing)
        found.notes += [
            f"{other} is not read: settings of a capture are in {CAPTURE_TOML}"
            for other in sorted(names)
            if other.lower().startswith(CAPTURE_TOML) and other not in own_toml
        ]
        if own_toml and not found.folders:
            raise ConfigError(
                f"{folder.uri}/{CAPTURE_TOML} names no videos, and there are none in {', '.join(VIDEO_FOLDERS)}."
            )
    except OSError as error:
        return Unusable(
            capture_id, ConfigError(f"{error.filename or folder.uri} cannot be read: {error.strerror or error}.")
        )
    except ConfigError as error:
        return Unusable(capture_id, error)
    if not found.folders:
        return list(_left_out(folder, listing, found)), list(_folders_below(folder, listing, calibrations))
    if settings.calibration:
        calibrations = (settings.calibration,)
    below = _folders_below(replace(folder, in_capture=True), _without_footage(listing, found), calibrations)
    capture = CaptureFiles(
        capture_id=capture_id,
        calibrations=calibrations if settings.calibration else (*found.calibrations, *calibrations),
        footage=found.folders,
        settings=settings,
        stamps=found.stamps,
        notes=tuple(found.notes),
    )
    return [capture], list(below)


def _without_footage(listing: Sequence[Entry], found: _Footage) -> list[Entry]:
    """What is beside the footage of a capture: other captures may be below it."""
    used = [f"{video.uri}/" for videos in found.folders.values() for video in videos.values()]
    beside = [entry for entry in listing if name(entry.uri).lower() not in FOOTAGE_FOLDERS]
    return [entry for entry in beside if not any(uri.startswith(f"{entry.uri}/") for uri in used)]


def _folders_below(folder: _Folder, listing: Sequence[Entry], calibrations: tuple[str, ...]) -> Iterator[_Folder]:
    for entry in listing:
        own = name(entry.uri)
        if entry.is_folder and is_text(own) and not (_is_for_calibrations(own) and calibrations):
            yield _Folder(entry.uri, (*folder.path, own), calibrations, folder.in_capture)


def _is_for_calibrations(folder_name: str) -> bool:
    return folder_name.lower().startswith("calib")


def _left_out(folder: _Folder, listing: Sequence[Entry], found: _Footage) -> Iterator[Unusable | str]:
    """Report footage of no capture, folders that are not visited, and links that lead nowhere."""
    own = _shown_path(folder.path) or "the archive itself"
    yield from (f"{own}: {note}" for note in found.notes)
    if not folder.in_capture and (loose := _names(_LIKE_VIDEO, listing)):
        yield (
            f"{own}: {loose} in no capture: put the videos of a capture into a folder `videos` next to its "
            f"calibration, or name them in a {CAPTURE_TOML}"
        )
    for entry in listing:
        path = (*folder.path, name(entry.uri))
        if entry.dead_link:
            yield f"{_shown_path(path)} was skipped: it is {entry.dead_link}"
        elif entry.is_folder and not is_text(path[-1]):
            yield Unusable(safe_path(path), _not_text(entry.uri))


def _unread(folder: str, inside: Sequence[Entry], found: _Footage) -> None:
    """Note files of a folder of videos that are not read."""
    if unread := _names(_UNREAD_VIDEO, inside):
        found.notes.append(f"{folder}: {unread} not read: convert, for example with `ffmpeg -i IN -crf 16 OUT.mp4`")


def _names(pattern: re.Pattern[str], listing: Sequence[Entry]) -> str:
    """The first files whose names match and how many do, with a verb; empty if none does."""
    names = [_shown_path([name(e.uri)]) for e in listing if not e.is_folder and pattern.fullmatch(name(e.uri))]
    if len(names) < 2:
        return f"{names[0]} is" if names else ""
    return f"{len(names)} files ({', '.join(names[:NAMED])}{', ...' if len(names) > NAMED else ''}) are"


def _shown_path(path: Sequence[str]) -> str:
    return "/".join(path).encode(errors="backslashreplace").decode()


def _not_text(uri: str) -> ConfigError:
    return ConfigError(f"{uri} has a name that is not UTF-8 and cannot be stored in a table. Rename it.")


def _of_kind(pattern: re.Pattern[str], listing: Sequence[Entry]) -> list[Entry]:
    """Files whose names match the pattern. Raises ConfigError if a name is not UTF-8."""
    found = [e for e in listing if not e.is_folder and pattern.fullmatch(name(e.uri))]
    for entry in found:
        if not is_text(name(entry.uri)):
            raise _not_text(entry.uri)
    return found


def calibrations_in(listing: Sequence[Entry]) -> tuple[str, ...]:
    """Calibration files of a folder: all files in its `calib...` folders, and its own files with a known name."""
    files = [e.uri for e in _of_kind(_CALIBRATION_ANYWHERE, listing)]
    for entry in listing:
        if entry.is_folder and _is_for_calibrations(name(entry.uri)):
            files += [e.uri for e in _of_kind(_CALIBRATION, inputs(entry.uri))]
    files = [f for f in files if not _NO_CALIBRATION.fullmatch(name(f))]
    # EasyMocap's pair of files is one calibration and is listed as its first file.
    return tuple(f for f in files if (first := _SECOND_OF_PAIR.sub(r"intri\1", f)) == f or first not in files)


@dataclass
class _Footage:
    """Accumulates the content of the footage folders in one folder."""

    folders: dict[str, dict[str, VideoEntry]] = field(default_factory=dict)
    stamps: dict[str, str] = field(default_factory=dict)
    calibrations: list[str] = field(default_factory=list)
    """Calibrations found inside camera folders."""
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
            own = name(entry.uri)
            if videos := _images(own, inside, found) if kind in IMAGE_FOLDERS else _videos(own, inside, found):
                found.folders[own] = videos
            elif kind in VIDEO_FOLDERS and not found.notes:
                found.notes.append(f"{own}: it has no videos, and no folders with images")
    if not found.folders and any(name(e.uri) == _MMPOSE_CALIBRATION for e in listing):
        found.folders = {"": cameras} if (cameras := _images("", listing, found)) else {}
    return found


def _images(folder: str, inside: Sequence[Entry], found: _Footage) -> dict[str, VideoEntry]:
    """One image folder per camera. Their content is not listed here: each may hold 10^5 images."""
    fps = PANOPTIC_HD_FPS if folder.lower() == "hdimgs" else None
    if folder and (loose := _names(_IMAGE, inside)):
        found.notes.append(f"{folder}: {loose} in no folder of a camera, and not read")
    return {name(e.uri): VideoEntry(uri=e.uri, fps=fps) for e in _folders(inside)}


def _folders(listing: Sequence[Entry]) -> list[Entry]:
    """Subfolders. Raises ConfigError if a name is not UTF-8 or a link leads nowhere."""
    for entry in listing:
        if entry.is_folder and not is_text(name(entry.uri)):
            raise _not_text(entry.uri)
        if entry.dead_link and "." not in name(entry.uri):
            raise ConfigError(f"{entry.uri} is {entry.dead_link}.")
    return [entry for entry in listing if entry.is_folder]


def _videos(videos_folder: str, inside: Sequence[Entry], found: _Footage) -> dict[str, VideoEntry]:
    """Videos by their path below the folder: its own videos, or else those of its subfolders."""
    _unread(videos_folder, inside, found)
    if own := videos_in(inside, found.stamps):
        folders = [_shown_path([name(e.uri)]) for e in inside if e.is_folder and name(e.uri) != WALL_TIMES_FOLDER]
        if folders:
            beside = ", ".join(folders[:NAMED]) + ", ..." * (len(folders) > NAMED)
            found.notes.append(
                f"{videos_folder}: its folders ({beside}) are not searched, since videos are beside them"
            )
        return own
    videos: dict[str, VideoEntry] = {}
    phones: dict[str, dict[str, tuple[str, VideoEntry]]] = defaultdict(dict)
    for entry in _folders(inside):
        folder, content = name(entry.uri), inputs(entry.uri)
        calibration = next((e.uri for e in content if name(e.uri) == _OPENCAP_CALIBRATION), None)
        if calibration and not found.calibrations:  # one of them represents those of all cameras
            found.calibrations.append(calibration)
        _unread(f"{videos_folder}/{folder}", content, found)
        if own := videos_in(content, found.stamps):
            videos |= {f"{folder}/{stem}": video for stem, video in own.items()}
        elif any(not e.is_folder and _IMAGE.fullmatch(name(e.uri)) for e in content):
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
                f"{trial}: these OpenCap videos are not synchronised; run `mvpose check` to measure the offsets"
            )
        # Keep unsynchronised videos apart from synchronised ones.
        own = {f"{camera}/{trial}{'/raw' if kind < max(kinds) else ''}": v for camera, (kind, v) in of_camera.items()}
        videos |= own
    return videos


def _phone_video(trial: Entry, found: _Footage) -> tuple[str, VideoEntry] | None:
    """One OpenCap phone's video of a trial and its kind. The synchronised video is preferred."""
    own = videos_in(inputs(trial.uri), found.stamps)
    synchronised = {stem: video for stem, video in own.items() if stem.lower().endswith("_sync")}
    chosen = synchronised or own
    if len(chosen) > 1:
        raise ConfigError(f"{' and '.join(chosen)} in {trial.uri} are videos of the same trial. Keep only one.")
    return next((("sync" if synchronised else "raw", video) for video in chosen.values()), None)


def _wall_times(listing: Sequence[Entry]) -> dict[str, str]:
    """Stamps of the wall-time tables in a folder and in its wall-time subfolder."""
    found = {e.uri: e.stamp for e in listing if is_wall_times(name(e.uri))}
    for entry in listing:
        if entry.is_folder and name(entry.uri) == WALL_TIMES_FOLDER:
            found |= {e.uri: e.stamp for e in inputs(entry.uri) if is_wall_times(name(e.uri))}
    return found


def videos_in(listing: Sequence[Entry], stamps: dict[str, str]) -> dict[str, VideoEntry]:
    """Video files by name without suffix. Raises ConfigError if two differ only in suffix or letter case."""
    by_stem: dict[str, list[Entry]] = defaultdict(list)
    for entry in _of_kind(_VIDEO, listing):
        by_stem[name(entry.uri).rpartition(".")[0].casefold()].append(entry)
    for same in by_stem.values():
        if len(same) > 1:
            raise ConfigError(
                f"{' and '.join(name(e.uri) for e in same)} are two files of one camera. Keep only one of them in "
                f"this folder, or name the right one in a {CAPTURE_TOML}."
            )
    stamps |= {e.uri: e.stamp for (e,) in by_stem.values()} | _wall_times(listing)
    return {name(e.uri).rpartition(".")[0]: VideoEntry(uri=e.uri) for (e,) in by_stem.values()}
