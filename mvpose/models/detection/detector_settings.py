"""Settings of the detector. Light, because every command line reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mvpose.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """Settings of `TopDownDetector`; a detector of a user's own reads what it can use of them."""

    detector: str = "mvpose.models.detection.detector:TopDownDetector"
    """`package.module:Class`, a class that is made from this config and follows `Detector`."""
    person_card: str = "yolox_tiny_humanart"
    """Card of the network that finds person boxes: the name of one that comes with mvpose, or a local .toml file."""
    joint_card: str = "rtmpose_s_halpe26"
    """Card of the network that finds the joints of one person."""
    chunk_frames: int = 8
    """Frames that go through together; boxes are looked for in the first and the last of them.

    On the single-person demo (60 fps) 4, 8 and 16 reproject alike (8.65, 8.57 and 8.70 px). 16 runs 1.3 times as fast
    as 8; 8 holds half as many images, and persons may move twice as fast before their boxes are lost.
    """
    max_people: int = 4
    """Boxes a view, best first."""
    min_box_score: float = 0.3
    """A box less sure than this is none."""
    batch_size: int = 16
    """Crops that go through the joint network together; from 8 to 32 make no difference in speed on a CPU."""
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 1
    """Threads within one operator of a network on the CPU; one, where as many workers run as there are cores."""

    def __post_init__(self) -> None:
        for name in ("chunk_frames", "max_people", "batch_size", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} of the detector is {getattr(self, name)}; it must be 1 or more")
        if not 0 <= self.min_box_score <= 1:
            raise ConfigError(f"min_box_score of the detector is {self.min_box_score}; it must lie in 0 .. 1")
