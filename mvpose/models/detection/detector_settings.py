"""Settings of the detector. Imports little, because every command reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mvpose.accelerator import Device
from mvpose.errors import ConfigError

STEP_S = 0.13
"""Seconds between boxes that are interpolated. On the demo footage (60 fps) the boxes of one person overlap by 0.60 or
more across 8 frames (intersection over union), and by 0.42 across 16."""
Precision = Literal["auto", "float32", "float16", "bfloat16", "bfloat16_avx512", "bfloat16_amx"]


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """Settings of `TopDownDetector`; another detector uses those that apply to it."""

    detector: str = "mvpose.models.detection.detector:TopDownDetector"
    """`package.module:Class`: a class that implements `Detector` and is constructed from this config. Or the folder,
    with a slash in its name, of a network that finds people and joints bottom-up (`method.method affinity_fields`)."""
    person_card: str = "yolox_tiny_humanart"
    """Model card of the person detector: the name of a shipped card, or a local .toml file."""
    joint_card: str = "rtmpose_s_halpe26"
    """Model card of the joint network."""
    look_interval_s: float = 0.5
    """Seconds between frames in which people are looked for. Between two looks their boxes follow the joints found, and
    another look is taken where those are lost."""
    chunk_frames: int = 16
    """Maximum frames from one look to the next, which are in memory together."""
    max_boxes: int = 20
    """Maximum person boxes per view, the best ones; a limit of memory and time. --people sets how many people to keep.

    The joint network takes time per box found, and association per pair of boxes: one frame of 31 views with 20 boxes
    each takes about 0.2 GB. With fewer people in view, the limit costs nothing.
    """
    min_box_score: float = 0.3
    """Discard boxes scoring lower."""
    batch_size: int = 16
    """Crops per batch of the joint network; 8 to 32 are equally fast on a CPU."""
    precision: Precision = "auto"
    """Arithmetic of the networks. bfloat16 is twice as fast as float32 on CPUs that have it (from 2021 on, in servers),
    and either gives the same bytes on any machine: bfloat16_avx512 and bfloat16_amx are its two kinds, which a CPU has
    or not. `auto` and bfloat16 take the kind of the machine on which the job is planned. float16 is for GPUs, where
    `auto` is float32."""
    device: Device | None = None
    decoder: Device = "cpu"
    """Where videos are decoded for the default detector: `cuda` is the GPU's own decoder, which gives the same images.
    A coding that it does not know costs the clip."""
    threads: int = 1
    """CPU threads per network operator. Use 1 with one worker per core."""

    def __post_init__(self) -> None:
        for name in ("chunk_frames", "max_boxes", "batch_size", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} of the detector is {getattr(self, name)}; it must be 1 or more")
        if self.look_interval_s <= 0:
            raise ConfigError(f"look_interval_s of the detector is {self.look_interval_s:g}; it must be above 0")
        if not 0 <= self.min_box_score <= 1:
            raise ConfigError(f"min_box_score of the detector is {self.min_box_score}; it must be in 0 .. 1")

    @property
    def bottom_up(self) -> bool:
        """Whether `detector` is the folder or s3:// URI of a network, and not a class."""
        return "/" in self.detector

    def look(self, fps: float) -> tuple[int, int]:
        """Frames from one look to the next, and between boxes that are interpolated."""
        together = max(1, min(self.chunk_frames, round(self.look_interval_s * fps)))
        return together, max(1, round(STEP_S * fps))
