"""OpenCap `cameraIntrinsicsExtrinsics.pickle`: one file per camera, in a folder named after it. Millimetres.

    Videos/Cam0/cameraIntrinsicsExtrinsics.pickle   Videos/Cam1/cameraIntrinsicsExtrinsics.pickle ...
    {intrinsicMat 3 x 3, distortion (k1 k2 p1 p2 k3), imageSize (height, width), rotation 3 x 3, translation (mm)}

`x_camera = rotation x_board + translation`. The world is the checkerboard's: X along its rows, Y down its columns, Z
into it. It is Y-down for an upright board, as OpenCap requires; for a board on the floor, set `up`.

A pickle can run any code when it is loaded. This one is parsed as data (`mvpose.storage.plain_data`): only plain
containers and numpy arrays are built, and anything else is rejected by name.
"""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np

from mvpose.errors import CalibrationError
from mvpose.footage.calibration.file_cameras import FileCamera, FileCameras, coefficients, image_size, numbers
from mvpose.storage.plain_data import load_plain

UPRIGHT = "the calibration board is assumed upright (-y is up): set `up` if it was on the floor"


def read_opencap(files: Mapping[str, bytes]) -> FileCameras:
    """The cameras of pickles, by name, in the order given."""
    cameras = tuple(_camera(name, data) for name, data in files.items())
    return FileCameras(cameras=cameras, unit="mm", up="-y", notes=(UPRIGHT,))


def _camera(name: str, data: bytes) -> FileCamera:
    try:
        content = load_plain(io.BytesIO(data))
    except ValueError as error:
        raise CalibrationError(f"the pickle of {name} cannot be read: {error}") from error
    keys = ("intrinsicMat", "distortion", "imageSize", "rotation", "translation")
    if not isinstance(content, dict) or (missing := [key for key in keys if key not in content]):
        lacks = ", ".join(missing) if isinstance(content, dict) else "everything"
        raise CalibrationError(f"the pickle of {name} is not OpenCap's: it lacks {lacks}.")
    size = numbers(content["imageSize"], (2,), f"imageSize of {name}")
    return FileCamera(
        name=name,
        size=image_size(size[::-1], f"imageSize of {name}"),
        matrix=numbers(content["intrinsicMat"], (3, 3), f"intrinsicMat of {name}"),
        distortion=coefficients(np.ravel(content["distortion"]), f"distortion of {name}"),
        rotation=numbers(content["rotation"], (3, 3), f"rotation of {name}"),
        translation=numbers(content["translation"], (3,), f"translation of {name}"),
    )
