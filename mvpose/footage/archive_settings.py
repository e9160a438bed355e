"""Settings that describe an archive. Imports little, because every command reads them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from mvpose.geometry import Unit

UpAxis = Literal["x", "-x", "y", "-y", "z", "-z"]


class ImageFit(StrEnum):
    """Relation of the video's image to the calibrated image."""

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
    """Settings for what an archive's files do not specify. A capture.toml takes precedence."""

    calibration: str = ""
    """File name of the calibration to use if a capture has several. With a `/`: location (absolute, or relative to the
    archive) of one calibration for all captures."""
    calibration_reader: str = ""
    """`package.module:function` that reads another calibration format: from bytes to FileCameras."""
    footage: str = ""
    """Footage folder to use if a capture has several (for example `videos` and `images`)."""
    unit: Unit | None = None
    """Override the calibration's unit."""
    up: UpAxis | None = None
    """Override the calibration's up axis (in its world frame)."""
    fps: float | None = None
    """Override the frame rate of all footage (frames per second). Required for image folders."""
    image_fit: ImageFit = ImageFit.AUTO
    """How images were transformed if their size differs from the calibration's."""
    one_camera: bool = False
    """Also list captures of one camera, which `reconstruct --monocular` lifts."""
    outside_archive: bool = False
    """Allow a capture.toml to name locations outside the archive."""
