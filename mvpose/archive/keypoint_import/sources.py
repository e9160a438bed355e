"""Which files below a source are the 2D joints of a capture, by convention.

openpose      cam01_json/*.json  cam02_json/*.json ...                in the source, or in a folder of it a trial
pose2sim      calibration/  [trial/]pose-associated|pose-sync|pose/cam01_json/*.json ...  [trial/]videos/
deeplabcut    vid1-camADLC_resnet50_....h5|csv  vid1-camBDLC_... ...  several trials in one folder as in an archive
sleap         labels.v001.000_vid1-camA.analysis.h5 ...              the same; what is before is SLEAP's own
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from mvpose.archive.capture_files import (
    MAX_DEPTH,
    VIDEO_FOLDERS,
    CaptureFiles,
    Unusable,
    calibrations_in,
    videos_in,
)
from mvpose.archive.capture_toml import CaptureSettings, VideoEntry
from mvpose.archive.keypoint_import.config import KeypointImport
from mvpose.archive.keypoint_import.openpose import holds_frames
from mvpose.archive.locations import Entry, inputs, is_folder, join, name
from mvpose.archive.safe_names import safe_path
from mvpose.errors import ConfigError

POSE2SIM_FOLDERS = ("pose-associated", "pose-sync", "pose")
_SUFFIXES = {"deeplabcut": (".h5", ".csv"), "sleap": (".h5",)}
_TOOLS_NAME = re.compile(r"(DLC_|DeepCut_).*|\.analysis", re.DOTALL)
_NUMBER_OF_SLEAP = re.compile(r".*\.\d{3,}_(?=.*\.analysis$)", re.DOTALL)
"""The project and the number of a video in it, which rises from camera to camera."""


@dataclass(frozen=True, eq=False)
class JointFiles:
    """2D joints of the trials of a folder, and the footage that they were found in."""

    joints: CaptureFiles
    footage: CaptureFiles
    shifted: bool
    """Whether the frames of the joints are no longer those of the footage, since the cameras were synchronised."""


def joint_files(source: str, config: KeypointImport) -> Iterator[JointFiles | Unusable]:
    """The captures below a source; ConfigError where it cannot be listed."""
    try:
        yield from _below(source, (), (config.calibration,) if config.calibration else (), config)
    except OSError as error:
        raise ConfigError(f"{source} cannot be listed: {error.strerror or error}") from error


def _below(
    folder: str, path: tuple[str, ...], inherited: tuple[str, ...], config: KeypointImport
) -> Iterator[JointFiles | Unusable]:
    listing = inputs(folder)
    if any(name(entry.uri) == "run.json" for entry in listing):  # the output of a job
        return
    calibrations = inherited if config.calibration else calibrations_in(listing) or inherited
    capture_id = safe_path(path or (name(folder) or "capture",))
    try:
        views, shifted = _views(folder, listing, config)
    except ConfigError as error:
        yield Unusable(capture_id, error)
        return
    if views:
        joints = CaptureFiles(
            capture_id=capture_id, calibrations=calibrations, footage={"": views}, settings=CaptureSettings(), stamps={}
        )
        videos = _footage(listing, path, config)
        yield JointFiles(joints, replace(joints, footage={"": videos} if videos else {}), shifted)
    elif len(path) < MAX_DEPTH:
        for entry in listing:
            if entry.is_folder and not name(entry.uri).lower().startswith("calib"):
                yield from _below(entry.uri, (*path, name(entry.uri)), calibrations, config)


def _views(folder: str, listing: Sequence[Entry], config: KeypointImport) -> tuple[dict[str, VideoEntry], bool]:
    """The joints of each camera by the name that stands for it, and whether their frames are no longer the videos'."""
    if config.format in _SUFFIXES:
        return _tables(listing, _SUFFIXES[config.format]), False
    if config.format == "openpose":
        if holds_frames(listing):
            raise ConfigError(
                f"{folder} holds JSON files itself: give the folder above, with a folder for each camera."
            )
        return _folders(listing), False
    there = {name(entry.uri): entry.uri for entry in listing if entry.is_folder}
    for kind in POSE2SIM_FOLDERS:
        if kind in there and (views := _folders(inputs(there[kind]))):
            return views, "pose-sync" in there
    return {}, False


def _folders(listing: Sequence[Entry]) -> dict[str, VideoEntry]:
    folders = [entry.uri for entry in listing if entry.is_folder]
    return _once((name(uri).removesuffix("_json"), uri) for uri in folders if holds_frames(inputs(uri)))


def _tables(listing: Sequence[Entry], suffixes: Sequence[str]) -> dict[str, VideoEntry]:
    """Of one table as h5 and as csv, which DeepLabCut writes side by side, the h5."""
    by_stem: dict[str, str] = {}
    for suffix in suffixes:
        for entry in listing:
            if not entry.is_folder and entry.uri.lower().endswith(suffix):
                by_stem.setdefault(name(entry.uri)[: -len(suffix)], entry.uri)
    return _once((_TOOLS_NAME.sub("", _NUMBER_OF_SLEAP.sub("", stem)), uri) for stem, uri in by_stem.items())


def _once(named: Iterator[tuple[str, str]]) -> dict[str, VideoEntry]:
    found: dict[str, VideoEntry] = {}
    for camera, uri in named:
        if camera in found:
            raise ConfigError(f"{name(found[camera].uri)} and {name(uri)} are both of {camera}: keep one of them here.")
        found[camera] = VideoEntry(uri=uri)
    return found


def _footage(listing: Sequence[Entry], path: tuple[str, ...], config: KeypointImport) -> dict[str, VideoEntry]:
    """The videos of a capture: in the folder that is named, which has the folders of trials, else beside the joints."""
    if config.videos:
        folder = join(config.videos, *path)
        if not is_folder(folder):
            raise ConfigError(f"there is no folder {folder} with footage.")
        return videos_in(inputs(folder), {})
    if config.format in _SUFFIXES:
        beside = [entry for entry in listing if not _TOOLS_NAME.search(name(entry.uri))]
        if videos := videos_in(beside, {}):
            return videos
    folders = [entry.uri for entry in listing if entry.is_folder and name(entry.uri).lower() in VIDEO_FOLDERS]
    return videos_in(inputs(folders[0]), {}) if folders else {}
