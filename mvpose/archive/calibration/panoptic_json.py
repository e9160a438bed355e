"""CMU Panoptic `calibration_<sequence>.json`: centimetres, Y down.

{"cameras": [{"name": "00_00", "type": "hd", "resolution": [1920, 1080], "K": 3x3, "distCoef": [k1, k2, p1, p2, k3],
              "R": 3x3, "t": 3x1}, ...]}        x_camera = R x + t
"""

from __future__ import annotations

import json
from typing import Any

from mvpose.archive.calibration.file_cameras import (
    FileCamera,
    FileCameras,
    check_names,
    coefficients,
    numbers,
    picture_size,
    rotation_from,
)
from mvpose.errors import CalibrationError

_KEYS = ("name", "resolution", "K", "distCoef", "R", "t")


def read_panoptic(text: str) -> FileCameras:
    """The cameras of a Panoptic calibration (VGA, HD and Kinect), in the order of the file."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CalibrationError(f"it is not valid JSON: {error}.") from error
    cameras = content.get("cameras") if isinstance(content, dict) else None
    if not isinstance(cameras, list):
        raise CalibrationError("it is JSON but not a CMU Panoptic calibration: it has no list `cameras`.")
    check_names([str(c.get("name", i)) if isinstance(c, dict) else str(i) for i, c in enumerate(cameras)])
    return FileCameras(cameras=tuple(_camera(i, c) for i, c in enumerate(cameras)), unit="cm", up="-y")


def _camera(position: int, camera: Any) -> FileCamera:
    missing = [key for key in _KEYS if not isinstance(camera, dict) or key not in camera]
    if missing:
        raise CalibrationError(f"camera {position} of the list has no {', '.join(missing)}.")
    name = str(camera["name"])
    return FileCamera(
        name=name,
        size=picture_size(camera["resolution"], f"`resolution` of camera {name}"),
        matrix=numbers(camera["K"], (3, 3), f"`K` of camera {name}"),
        distortion=coefficients(camera["distCoef"], f"`distCoef` of camera {name}"),
        rotation=rotation_from(camera["R"], f"`R` of camera {name}"),
        translation=numbers(camera["t"], (3,), f"`t` of camera {name}"),
    )
