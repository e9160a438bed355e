"""Settings of reports and recordings. Imports little, because every command reads them."""

from __future__ import annotations

from dataclasses import dataclass

from mvpose.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Settings of a report."""

    max_captures: int = 12
    """Captures shown in full, largest error first. The table lists every capture."""
    max_overlay_frames: int = 600
    """Length of an overlay video in frames, from the first frame with a result."""
    max_viewer_frames: int = 600
    """Frames in the page's 3D viewer. Longer captures are subsampled."""
    moments: int = 4
    """Frames on the overlay sheet, including the worst frame."""


@dataclass(frozen=True, kw_only=True)
class RecordingConfig:
    """Settings of a recording."""

    start: int = 0
    """First frame."""
    max_frames: int = 300
    """Maximum recorded frames. Four full HD cameras take 0.3 MB per frame at the default settings."""
    every: int = 1
    """Record every n-th frame."""
    images: bool = True
    """Record images. Without them the file is about 30 times smaller."""
    largest_side: int = 960
    """Maximum side of the recorded images in pixels. Larger images are downscaled."""
    jpeg_quality: int = 75

    def __post_init__(self) -> None:
        for name, minimum in (("start", 0), ("max_frames", 1), ("every", 1), ("largest_side", 16), ("jpeg_quality", 1)):
            if getattr(self, name) < minimum:
                raise ConfigError(f"{name} of the recording is {getattr(self, name)}; it must be {minimum} or more")
