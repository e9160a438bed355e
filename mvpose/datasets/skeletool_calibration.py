"""`camera.calibration` of MPI-INF-3DHP: "Skeletool Camera Calibration File V1.0", millimetres, Y up.

A header line, then 7 lines per camera, each a key and its values: name, sensor, size (width height), animated,
intrinsic (4 x 4), extrinsic (4 x 4, x_camera = extrinsic x_world), radial (0: the lenses have no distortion).
"""

from __future__ import annotations

import numpy as np

from mvpose.datasets.files import DatasetError, array
from mvpose.footage.calibration.file_cameras import FileCamera, FileCameras, image_size

HEADER = "Skeletool Camera Calibration File V1.0"
_KEYS = ("name", "sensor", "size", "animated", "intrinsic", "extrinsic", "radial")


def read_skeletool(text: str) -> FileCameras:
    """Parse the cameras of the file, in its order; DatasetError for another format."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if not lines or " ".join(lines[0]) != HEADER:
        raise DatasetError(f"its first line is not {HEADER!r}.")
    if (len(lines) - 1) % len(_KEYS):
        raise DatasetError(f"it has {len(lines) - 1} lines after the first, not {len(_KEYS)} per camera.")
    blocks = [lines[i : i + len(_KEYS)] for i in range(1, len(lines), len(_KEYS))]
    return FileCameras(cameras=tuple(_camera(block) for block in blocks), unit="mm", up="y")


def _camera(block: list[list[str]]) -> FileCamera:
    keys = tuple(line[0] for line in block)
    if keys != _KEYS:
        raise DatasetError(f"it has the keys {', '.join(keys)} instead of {', '.join(_KEYS)}.")
    values = {line[0]: line[1:] for line in block}
    name = " ".join(values["name"])
    if values["animated"] != ["0"]:
        raise DatasetError(f"camera {name} moves; moving cameras are not supported.")
    if any(float(v) for v in values["radial"]):
        raise DatasetError(f"camera {name} has radial distortion, which the file format does not define.")
    pose = array(values["extrinsic"], (4, 4), f"the extrinsic of camera {name}")
    return FileCamera(
        name=name,
        size=image_size(values["size"], f"the size of camera {name}"),
        matrix=array(values["intrinsic"], (4, 4), f"the intrinsic of camera {name}")[:3, :3],
        distortion=(),
        rotation=pose[:3, :3],
        translation=np.ascontiguousarray(pose[:3, 3]),
    )
