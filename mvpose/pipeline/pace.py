"""How long the clips of a stage take, as a worker sees it: by this a clip that hangs is told from one that is long."""

from __future__ import annotations

from dataclasses import dataclass

CLIPS_TO_KNOW = 3
SLOWER = 10.0
"""A clip of four people takes four times as long as one of an empty room (default detector)."""
LEAST_S = 120.0
"""A storage that stalls may take so long to answer again."""


@dataclass
class Pace:
    """The slowest of the clips that a stage has done in one process."""

    clips: int = 0
    seconds: float = 0.0
    seconds_per_camera_frame: float = 0.0

    def took(self, seconds: float, camera_frames: int) -> None:
        """A clip of so many frames, summed over its cameras, is done."""
        self.clips += 1
        self.seconds = max(self.seconds, seconds)
        self.seconds_per_camera_frame = max(self.seconds_per_camera_frame, seconds / max(1, camera_frames))

    def limit_s(self, camera_frames: int) -> float:
        """Seconds after which a clip hangs; infinite until some have been done.

        A short clip may take as long as any before it, since part of the work does not grow with the frames.
        """
        if self.clips < CLIPS_TO_KNOW:
            return float("inf")
        return max(LEAST_S, SLOWER * max(self.seconds, self.seconds_per_camera_frame * camera_frames))
