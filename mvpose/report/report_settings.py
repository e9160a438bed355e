"""How much of a run is shown and recorded. Light, because every command line reads it."""

from __future__ import annotations

from dataclasses import dataclass

from mvpose.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """How much a report shows."""

    max_captures: int = 12
    """Captures shown in full, those with the largest error first; every capture is in the table."""
    max_overlay_frames: int = 600
    """Length of an overlay film, in frames from the first with a result."""
    max_viewer_frames: int = 600
    """Frames in the page's 3D viewer; of a longer capture every n-th."""
    moments: int = 4
    """Frames on the sheet of overlays; one of them is the worst."""


@dataclass(frozen=True, kw_only=True)
class RecordingConfig:
    """How much of a capture is recorded."""

    start: int = 0
    """First frame."""
    max_frames: int = 300
    """Frames recorded at most; four cameras of full HD at the settings here take 0.3 MB a frame."""
    every: int = 1
    """Only every so many-th frame is recorded."""
    images: bool = True
    """With images; without them the file is some 30 times smaller."""
    largest_side: int = 960
    """Images are made smaller to have no side longer than this."""
    jpeg_quality: int = 75

    def __post_init__(self) -> None:
        for name, minimum in (("start", 0), ("max_frames", 1), ("every", 1), ("largest_side", 16), ("jpeg_quality", 1)):
            if getattr(self, name) < minimum:
                raise ConfigError(f"{name} of the recording is {getattr(self, name)}; it must be {minimum} or more")
