"""Points of a dataset's files to the world in metres, Z up, as `archive.calibration` takes their cameras there."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from mvpose.datasets.files import DatasetError
from mvpose.footage.calibration.file_cameras import FILE_FROM_WORLD, METRES, FileCamera, Unit, UpAxis

# Cameras that hang upright and look down by 45 degrees still have 71 % of their up along the world's.
LEAST_UPRIGHT = 0.7


def to_world(points: Float[np.ndarray, "*n 3"], unit: Unit, up: UpAxis) -> Float[np.ndarray, "*n 3"]:
    """World metres, Z up, of points in a file's unit and axes; NaN stays NaN."""
    return points @ np.array(FILE_FROM_WORLD[up], np.float64) * METRES[unit]


def up_of(cameras: tuple[FileCamera, ...]) -> UpAxis:
    """Which axis of the file points up, told from cameras that are mounted upright; DatasetError where none does."""
    mean = -np.mean([camera.rotation[1] for camera in cameras], axis=0)
    axis = int(np.abs(mean).argmax())
    if np.abs(mean[axis]) < LEAST_UPRIGHT:
        raise DatasetError("its cameras do not agree on an axis that points up.")
    axes: tuple[UpAxis, UpAxis, UpAxis] = ("x", "y", "z") if mean[axis] > 0 else ("-x", "-y", "-z")
    return axes[axis]
