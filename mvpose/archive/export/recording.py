"""What an exporter takes: the poses of one capture with their clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from mvpose.records import Breaks, Poses3D, positions

File = tuple[str, bytes]
"""Name below the capture's folder, and content."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Recording:
    """The poses of a capture from its first frame on."""

    capture_id: str
    fps: float
    breaks: Breaks = ()
    """Of the capture."""
    poses: Poses3D
    filled: Bool[np.ndarray, "T P J"]
    """Where a value was interpolated and not measured."""

    @property
    def name(self) -> str:
        """What files are called: the last part of the capture's id."""
        return self.capture_id.rstrip("/").rpartition("/")[2]

    @property
    def time_s(self) -> Float[np.ndarray, "T"]:
        """Time of each frame; the first is at 0."""
        return positions(np.arange(len(self.poses.xyz)), self.breaks) / self.fps

    def people(self) -> Iterator[tuple[str, int]]:
        """(file name without suffix, place) of each person: formats that know one subject have a file each."""
        for place, track in enumerate(self.poses.track_id.tolist()):
            yield f"{self.name}_person{track}", place


def measured_recording(capture_id: str, fps: float, poses: Poses3D, breaks: Breaks = ()) -> Recording:
    """A recording in which nothing was filled."""
    filled = np.zeros(poses.confidence.shape, dtype=bool)
    return Recording(capture_id=capture_id, fps=fps, breaks=breaks, poses=poses, filled=filled)


def y_up(xyz: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """The Z-up world (X, Y, Z) told with Y up, as Pose2Sim and OpenSim do: (Y, Z, X), a turn and no mirror."""
    return xyz[..., [1, 2, 0]]
