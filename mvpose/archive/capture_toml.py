"""`capture.toml`: a capture told explicitly, or what its folder's convention leaves open. Every key may be left out.

    id = "walk_3"                          the folder's path
    calibration = "../Calib_scene.toml"    the one found by convention
    footage = "videos"                     the folder of footage that is meant, where several hold some
    unit = "mm"                            m, cm, mm or in; what the calibration states, or its size tells
    up = "-y"                              axis of the calibration's world that points up: x, -x, y, -y, z, -z
    fps = 50.0                             frames per second, over what the videos state; needed for folders of pictures
    pairing = "clock"                      how frames are paired, where that is not certain: see frame_pairing.py
    picture_fit = "auto"                   for videos whose size is not the calibration's: see picture_fit.py

    [videos]                               camera = location; those found by convention
    cam01 = "videos/cam01.mp4"
    cam02 = { uri = "videos/b.mp4", first_frame = 12, picture_fit = "crop" }

`first_frame` is the video's frame that is frame 0 of the capture, whatever its number or time says. Locations are
relative to the file's folder and stay in the archive, unless the job allows others (`outside_archive`).
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mvpose.archive.calibration import Unit, UpAxis
from mvpose.archive.frame_pairing import Pairing
from mvpose.archive.locations import join, read_text
from mvpose.archive.picture_fit import PictureFit
from mvpose.config import MAX_TOML_BYTES, parse_toml, structure
from mvpose.errors import ConfigError

CAPTURE_TOML = "capture.toml"


@dataclass(frozen=True, kw_only=True)
class VideoEntry:
    """A video or folder of pictures."""

    uri: str
    first_frame: int = 0
    picture_fit: PictureFit | None = None
    fps: float | None = None


@dataclass(frozen=True, kw_only=True)
class CaptureSettings:
    """The content of a `capture.toml`; empty and None where nothing is said."""

    id: str = ""
    calibration: str = ""
    footage: str = ""
    unit: Unit | None = None
    up: UpAxis | None = None
    fps: float | None = None
    pairing: Pairing | None = None
    picture_fit: PictureFit | None = None
    videos: dict[str, VideoEntry] = field(default_factory=dict)


def read_capture_toml(archive: str, path: Sequence[str], outside_archive: bool) -> CaptureSettings:
    """The settings of the folder at `path` below the archive, locations made absolute.

    ConfigError, naming the file, for unknown keys, wrong values and locations outside the archive.
    """
    uri = join(archive, *path, CAPTURE_TOML)
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
                raise ConfigError(f"{uri}: first_frame of {camera} is {first!r}, and a whole number is needed.")
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
        raise ConfigError(f"{uri}: fps has to be a positive number of frames per second.")
    early = [camera for camera, video in settings.videos.items() if video.first_frame < 0]
    if early:
        raise ConfigError(
            f"{uri}: first_frame of {', '.join(early)} is negative: raise those of all videos by as much."
        )


def _located(archive: str, path: Sequence[str], location: str, outside_archive: bool, uri: str) -> str:
    if any(ord(character) < 32 for character in location):
        raise ConfigError(f"{uri}: the location {location!r} has a control character in it.")
    if "://" in location or location.startswith("/"):
        if outside_archive:
            return location
    else:
        inside = posixpath.normpath(posixpath.join(*path, location))
        if inside.split("/")[0] != "..":
            return join(archive, inside)
    raise ConfigError(
        f"{uri}: {location} lies outside the archive. If that is meant, set `outside_archive` of the job and give an "
        "absolute path or s3:// URI."
    )
