"""A recording by several cameras, with its rig: what a job is planned from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from mvpose.geometry import Unit
from mvpose.geometry.camera import CameraRig
from mvpose.records import Breaks, CaptureTasks, Video, positions


@dataclass(frozen=True, eq=False)
class Capture:
    """One recording by one rig. The rig is in the pixels of the videos, one camera per video, in their order."""

    capture_id: str
    rig: CameraRig
    videos: tuple[Video, ...]
    breaks: Breaks = ()
    assumed_unit: Unit | None = None
    """Unit in which the calibration was read, from its format or the size of the rig; None if the user set it."""

    @property
    def fps(self) -> float:
        """Frames per second of the capture's clock."""
        return self.videos[0].fps

    @property
    def num_frames(self) -> int:
        """Number of frames, up to the end of the camera that stops first."""
        return max(0, min(v.stop for v in self.videos))

    def positions(self, frames: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """Positions of frames on the capture's clock, in frame periods since its frame 0."""
        return positions(frames, self.breaks)

    def times_s(self, frames: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Times of frames, in seconds since the capture's frame 0."""
        return self.positions(frames) / self.fps


@dataclass(frozen=True, eq=False, kw_only=True)
class CapturePlan(CaptureTasks):
    """The work on one capture, with the capture. Jobs plan with `CaptureTasks` alone, since rigs are heavy."""

    capture: Capture
