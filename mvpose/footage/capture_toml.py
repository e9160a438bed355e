"""`capture.toml`: describes a capture explicitly, or settles what the folder convention leaves open.

All keys are optional; the right column is the default or a remark.

    id = "walk_3"                          the folder's path
    calibration = "../Calib_scene.toml"    the one found by convention
    footage = "videos"                     the footage folder to use, if there are several
    unit = "mm"                            m, cm, mm or in; default: as stated, or guessed from the calibration's size
    up = "-y"                              up axis of the calibration's world: x, -x, y, -y, z, -z
    fps = 50.0                             frames per second; overrides the videos; required for image folders
    pairing = "clock"                      how frames are paired, if that is ambiguous: see frame_pairing.py
    image_fit = "auto"                     for videos whose size differs from the calibration's: see image_fit.py

    [videos]                               camera = location; by default those found by convention
    cam01 = "videos/cam01.mp4"
    cam02 = { uri = "videos/b.mp4", first_frame = 12, image_fit = "crop" }

`first_frame` is the video frame that becomes frame 0 of the capture, regardless of frame numbers or timestamps.
Locations are relative to the file's folder and must stay inside the archive unless the job sets `outside_archive`.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mvpose.config import MAX_TOML_BYTES, parse_toml, structure
from mvpose.errors import ConfigError
from mvpose.footage.calibration import Unit, UpAxis
from mvpose.footage.image_fit import ImageFit
from mvpose.footage.video.frame_pairing import Pairing
from mvpose.storage.locations import join, read_text

CAPTURE_TOML = "capture.toml"


@dataclass(frozen=True, kw_only=True)
class VideoEntry:
    """A video or an image folder."""

    uri: str
    first_frame: int = 0
    image_fit: ImageFit | None = None
    fps: float | None = None


@dataclass(frozen=True, kw_only=True)
class CaptureSettings:
    """The content of a `capture.toml`; empty or None where it sets nothing."""

    id: str = ""
    calibration: str = ""
    footage: str = ""
    unit: Unit | None = None
    up: UpAxis | None = None
    fps: float | None = None
    pairing: Pairing | None = None
    image_fit: ImageFit | None = None
    videos: dict[str, VideoEntry] = field(default_factory=dict)


def is_capture_toml(file_name: str) -> bool:
    """Whether a file has the name, in any letter case, as some file systems do not tell cases apart."""
    return file_name.lower() == CAPTURE_TOML


def read_capture_toml(
    archive: str, path: Sequence[str], outside_archive: bool, names: Sequence[str] = (CAPTURE_TOML,)
) -> CaptureSettings:
    """Settings of the folder at `path` below the archive, with locations made absolute. `names` are those of its file.

    Raises ConfigError, naming the file, if there are two, for unknown keys, wrong values and locations outside the
    archive.
    """
    if len(names) > 1:
        raise ConfigError(f"{join(archive, *path)} has {' and '.join(sorted(names))}. Keep only one.")
    uri = join(archive, *path, *names)
    try:
        values = parse_toml(read_text(uri, MAX_TOML_BYTES))
    except OSError as error:
        raise ConfigError(f"{uri} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise ConfigError(f"{uri} is not valid TOML: {error}.") from error
    videos = values.get("videos", {})
    if isinstance(videos, dict):
        values["videos"] = {camera: {"uri": v} if isinstance(v, str) else v for camera, v in videos.items()}
        firsts = {camera: v.get("first_frame", 0) for camera, v in videos.items() if isinstance(v, dict)}
        for camera, first in firsts.items():
            if type(first) is not int:  # 1.5 would become 1 on the way into the field
                raise ConfigError(f"{uri}: first_frame of {camera} is {first!r}; it must be an integer.")
    settings = structure(values, CaptureSettings, uri)
    _check(settings, uri)

    def located(location: str) -> str:
        return _located(archive, path, location, outside_archive, uri)

    return replace(
        settings,
        calibration=located(settings.calibration) if settings.calibration else "",
        videos={camera: replace(v, uri=located(v.uri)) for camera, v in settings.videos.items()},
    )


def _check(settings: CaptureSettings, uri: str) -> None:
    rates = [fps for fps in (settings.fps, *(v.fps for v in settings.videos.values())) if fps is not None]
    if not all(0.0 < fps < 1e6 for fps in rates):
        raise ConfigError(f"{uri}: fps must be a positive number.")
    early = [camera for camera, video in settings.videos.items() if video.first_frame < 0]
    if early:
        raise ConfigError(
            f"{uri}: first_frame of {', '.join(early)} is negative. Increase first_frame of all videos by that amount."
        )


def _located(archive: str, path: Sequence[str], location: str, outside_archive: bool, uri: str) -> str:
    if any(ord(character) < 32 for character in location):
        raise ConfigError(f"{uri}: the location {location!r} contains a control character.")
    if "://" in location or location.startswith("/"):
        if outside_archive:
            return location
    else:
        inside = posixpath.normpath(posixpath.join(*path, location))
        if inside.split("/")[0] != "..":
            return join(archive, inside)
    raise ConfigError(
        f"{uri}: {location} is outside the archive. To allow this, set `outside_archive` of the job and give an "
        "absolute path or s3:// URI."
    )
