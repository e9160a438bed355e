"""Qualisys `.qca.txt`: XML with one `camera` element per camera. Millimetres, Z up.

    fov_video   left top right bottom   first and last pixel of the video on the sensor, both inclusive
    transform   x y z r11 ... r33       position of the camera (mm), and its rotation
    intrinsic   focalLengthU/V centerPointU/V (1/64 px, on the sensor), radialDistortion1-3, tangentalDistortion1-2

The elements r11 r12 r13 are a row of world-to-camera, for a camera that looks along -Z with Y up. A half turn about X
makes it OpenCV's. `sensorMaxU` of a sensor 1088 px wide is 1087 x 64, so pixel centres are at integers, as here.

The distortion coefficients are plain numbers on the plane z = 1, not in 1/64. Pose2Sim divides them by 64 as well.
Evidence, from the four cameras of Pose2Sim's demo, each calibrated three times: radial shift in pixels at 0.4 of the
focal length off centre (670 px), cameras 1 to 4:
    this file unchanged         -2.6  -2.8  -2.7  -2.8
    OpenCV, Calib_scene         -3.1  -3.0  -3.2  -3.3
    OpenCV, the file of 2023    -2.1  -2.5  -2.2  -2.7
    divided by 64               -0.04 (all)
Over the whole image of cameras 1 and 2, the difference from Calib_scene is 0.8 px (RMS) unchanged and 2.3 px divided.
The corners of camera 3 are inconclusive: there the two OpenCV calibrations themselves differ by 9 px.
Calib_qualisys.toml equals this file divided by 64, digit for digit, so it is not independent evidence.
"""

from __future__ import annotations

import numpy as np

from mvpose.errors import CalibrationError
from mvpose.footage.calibration.file_cameras import (
    FileCamera,
    FileCameras,
    coefficients,
    image_size,
    numbers,
)
from mvpose.footage.calibration.xml_cameras import camera_elements

_SUBPIXELS = 64.0
_HALF_TURN_ABOUT_X = np.diag([1.0, -1.0, -1.0])

Elements = dict[str, dict[str, str]]


def read_qualisys(data: bytes) -> FileCameras:
    """The cameras of a Qualisys calibration, in file order."""
    cameras, notes = [], []
    for position, elements in enumerate(map(dict, camera_elements(data, "camera"))):
        name = elements["camera"].get("serial", str(position + 1))
        cameras.append(_camera(name, elements))
        rotation = elements["camera"].get("viewrotation", "0")
        if rotation not in ("0", ""):
            notes.append(f"camera {name} has viewrotation {rotation}: if its video is turned, set `image_fit`")
    return FileCameras(cameras=tuple(cameras), unit="mm", notes=tuple(notes))


def _camera(name: str, elements: Elements) -> FileCamera:
    def number(tag: str, key: str, default: str | None = None) -> float:
        text = elements.get(tag, {}).get(key, default)
        if text is None:
            raise CalibrationError(f"camera {name} has no {key} in <{tag}>.")
        return float(numbers(text, (), f"{key} of camera {name}"))

    left, top, right, bottom = (number("fov_video", key) for key in ("left", "top", "right", "bottom"))
    focal = [number("intrinsic", f"focalLength{axis}") / _SUBPIXELS for axis in "UV"]
    sensor_centre = [number("intrinsic", f"centerPoint{axis}") / _SUBPIXELS for axis in "UV"]
    skew = number("intrinsic", "skew", "0") / _SUBPIXELS
    k1, k2, k3 = (number("intrinsic", f"radialDistortion{i}", "0") for i in (1, 2, 3))
    p1, p2 = (number("intrinsic", f"tangentalDistortion{i}", "0") for i in (1, 2))
    matrix = [[focal[0], skew, sensor_centre[0] - left], [0.0, focal[1], sensor_centre[1] - top], [0.0, 0.0, 1.0]]
    rotation = np.array([[number("transform", f"r{row}{column}") for column in (1, 2, 3)] for row in (1, 2, 3)])
    position = np.array([number("transform", axis) for axis in "xyz"])
    rotation = _HALF_TURN_ABOUT_X @ rotation
    with np.errstate(over="ignore", invalid="ignore"):
        translation = -rotation @ position
    return FileCamera(
        name=name,
        size=image_size([right - left + 1, bottom - top + 1], f"fov_video of camera {name}"),
        matrix=np.array(matrix),
        distortion=coefficients([k1, k2, p1, p2, k3], f"distortion of camera {name}"),
        rotation=rotation,
        translation=numbers(translation, (3,), f"position of camera {name}"),
    )
