"""Settings of the detector. Imports little, because every command reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mvpose.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """Settings of `TopDownDetector`; a custom detector uses those that apply to it."""

    detector: str = "mvpose.models.detection.detector:TopDownDetector"
    """`package.module:Class`: a class that implements `Detector` and is constructed from this config."""
    person_card: str = "yolox_tiny_humanart"
    """Model card of the person detector: the name of a shipped card, or a local .toml file."""
    joint_card: str = "rtmpose_s_halpe26"
    """Model card of the joint network."""
    chunk_frames: int = 8
    """Frames per chunk. People are detected in the first and last frame; boxes in between are interpolated.

    On the single-person demo (60 fps), 4, 8 and 16 give similar reprojection errors (8.65, 8.57 and 8.70 px). 16 is
    1.3 times as fast as 8. 8 keeps half as many images in memory and tolerates movement twice as fast before boxes are
    lost.
    """
    max_boxes: int = 20
    """Maximum person boxes per view, the best ones; a limit of memory and time. --people sets how many people to keep.

    The joint network takes time per box found, and association per pair of boxes: one frame of 31 views with 20 boxes
    each takes about 0.2 GB. With fewer people in view, the limit costs nothing.
    """
    min_box_score: float = 0.3
    """Discard boxes scoring lower."""
    batch_size: int = 16
    """Crops per batch of the joint network; 8 to 32 are equally fast on a CPU."""
    device: Literal["cpu", "cuda"] | None = None
    threads: int = 1
    """CPU threads per network operator. Use 1 with one worker per core."""

    def __post_init__(self) -> None:
        for name in ("chunk_frames", "max_boxes", "batch_size", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} of the detector is {getattr(self, name)}; it must be 1 or more")
        if not 0 <= self.min_box_score <= 1:
            raise ConfigError(f"min_box_score of the detector is {self.min_box_score}; it must be in 0 .. 1")
