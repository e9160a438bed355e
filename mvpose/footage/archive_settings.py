"""What a user states about an archive. Light, because every command line reads it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from mvpose.geometry import Unit

UpAxis = Literal["x", "-x", "y", "-y", "z", "-z"]


class ImageFit(StrEnum):
    """What was done to the calibrated image to make the video's."""

    AUTO = "auto"
    SCALE = "scale"
    LETTERBOX = "letterbox"
    CROP = "crop"
    TURN_0 = "turn_0"
    TURN_90 = "turn_90"
    TURN_180 = "turn_180"
    TURN_270 = "turn_270"


@dataclass(frozen=True, kw_only=True)
class CatalogueConfig:
    """What an archive's own files leave open; a capture.toml goes before it."""

    calibration: str = ""
    """File name of the calibration to use where a capture has several; with a `/` in it, the location (absolute, or
    below the archive) of the one for all captures."""
    footage: str = ""
    """Name of the folder of footage to use where a capture has several (`videos` beside `images`)."""
    unit: Unit | None = None
    """Unit of the calibrations, over what they state."""
    up: UpAxis | None = None
    """Axis of the calibrations' world that points up, over what they state."""
    fps: float | None = None
    """Frames per second of all footage, over what the videos state; needed for folders of images."""
    image_fit: ImageFit = ImageFit.AUTO
    """What was done to images whose size is not their calibration's."""
    outside_archive: bool = False
    """Whether a capture.toml may name locations outside the archive."""
