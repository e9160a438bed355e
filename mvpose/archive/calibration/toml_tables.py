"""TOML calibrations with one table a camera: Pose2Sim, Anipose, FreeMoCap, caliscope.

    [cam_1]                     or [cameras.1] (caliscope)
    name = "cam_1"              the table's key where it is missing
    size = [1088, 1920]         width, height
    matrix = [[f, 0, c], ...]   pixels
    distortions = [...]         OpenCV's order; with `fisheye = true` k1 k2 k3 k4 of cv2.fisheye
    rotation = [x, y, z]        rotation vector, camera from world (a 3x3 matrix in old caliscope files)
    translation = [x, y, z]

Pose2Sim writes metres and Anipose the unit of its board, in files that cannot be told apart: their unit is told from
the size of the rig. caliscope writes metres; FreeMoCap, known by `world_position`, millimetres.
"""

from __future__ import annotations

from typing import Any

from mvpose.archive.calibration.file_cameras import (
    FileCamera,
    FileCameras,
    Unit,
    check_names,
    coefficients,
    numbers,
    picture_size,
    rotation_from,
)
from mvpose.config import parse_toml
from mvpose.errors import CalibrationError
from mvpose.geometry.lens import LensModel


def read_toml(text: str) -> FileCameras:
    """The cameras of a TOML calibration, in the order of the file."""
    try:
        tables = parse_toml(text)
    except ValueError as error:
        raise CalibrationError(f"it is not valid TOML: {error}.") from error
    nested = tables.get("cameras")
    if isinstance(nested, dict):
        unit: Unit | None = "m"
        tables = nested
    else:
        unit = "mm" if any(isinstance(t, dict) and "world_position" in t for t in tables.values()) else None
    found = {key: table for key, table in tables.items() if isinstance(table, dict) and _has(table, "matrix")}
    posed = {key: table for key, table in found.items() if _has(table, "rotation") and _has(table, "translation")}
    notes = [f"camera {_name(key, found[key])} has no pose and is left out" for key in found if key not in posed]
    check_names([_name(key, table) for key, table in posed.items()])
    cameras = tuple(_camera(key, table) for key, table in posed.items())
    return FileCameras(cameras=cameras, unit=unit, notes=tuple(notes))


def _has(table: dict[str, Any], key: str) -> bool:
    """caliscope writes "null" for what it did not find."""
    return table.get(key, "null") != "null"


def _name(key: str, table: dict[str, Any]) -> str:
    return str(table.get("name", key))


def _camera(key: str, table: dict[str, Any]) -> FileCamera:
    name = _name(key, table)
    lens = coefficients(table.get("distortions", []), f"`distortions` of camera {name}")
    fisheye = table.get("fisheye", False) is True
    if fisheye and any(lens[4:]):
        raise CalibrationError(f"camera {name} is a fisheye with {len(lens)} coefficients: cv2.fisheye has 4.")
    turns = table.get("rotation_count", 0)
    if not isinstance(turns, int):
        raise CalibrationError(f"camera {name}: rotation_count is {turns!r}, and a whole number is needed.")
    if "size" not in table:
        raise CalibrationError(f"camera {name} has no `size`: add `size = [width, height]` to its table.")
    return FileCamera(
        name=name,
        size=picture_size(table["size"], f"`size` of camera {name}"),
        matrix=numbers(table["matrix"], (3, 3), f"`matrix` of camera {name}"),
        distortion=lens,
        rotation=rotation_from(table["rotation"], f"`rotation` of camera {name}"),
        translation=numbers(table["translation"], (3,), f"`translation` of camera {name}"),
        model=LensModel.KANNALA_BRANDT if fisheye else LensModel.BROWN_CONRADY,
        # caliscope turns a copy of the picture for its tracker and turns the points back: matrix and distortions
        # belong to the picture as recorded. The turn matters only if the footage has been turned since.
        turns=turns % 4,
    )
