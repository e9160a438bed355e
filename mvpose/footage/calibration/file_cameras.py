"""The common form of all calibration formats, and the checks before it becomes a rig."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from mvpose.errors import CalibrationError
from mvpose.footage.archive_settings import UpAxis
from mvpose.geometry import Unit
from mvpose.geometry.camera import CameraRig
from mvpose.geometry.lens import NUM_COEFFICIENTS, Lens, LensModel
from mvpose.geometry.rigid import Rigid

MAX_CAMERAS = 1024
MAX_NAME = 255
"""Maximum length of a camera name. Footage is matched by it, and no file has a longer name."""
MAX_SIZE = 1 << 16
REACH_M = (0.5, 100.0)
"""Minimum and maximum distance of a rig's farthest camera from another camera or from the origin."""
REACH_IN_SET_UNIT_M = (0.05, 1000.0)
"""The same where the user has set the unit: from stereo cameras 6 cm apart to stadiums. Wrong units are beyond it or
contradicted by the people's height."""
ROTATION_TOLERANCE = 1e-3
"""Maximum deviation of a matrix from a rotation. Files rounded to 3 digits deviate by up to 5e-4."""


METRES: dict[Unit, float] = {"m": 1.0, "cm": 0.01, "mm": 0.001, "in": 0.0254}
# Columns are the axes of the Z-up world in the file's coordinates.
FILE_FROM_WORLD: dict[UpAxis, list[list[int]]] = {
    "x": [[0, 0, 1], [1, 0, 0], [0, 1, 0]],
    "-x": [[0, 0, -1], [1, 0, 0], [0, -1, 0]],
    "y": [[1, 0, 0], [0, 0, 1], [0, -1, 0]],
    "-y": [[1, 0, 0], [0, 0, -1], [0, 1, 0]],
    "z": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "-z": [[1, 0, 0], [0, -1, 0], [0, 0, -1]],
}


@dataclass(frozen=True, eq=False, kw_only=True)
class FileCamera:
    """One camera as stated in its file: `x_camera = rotation x_file + translation`, OpenCV axes, the file's unit."""

    name: str
    size: tuple[int, int]
    """(width, height); (0, 0) if the file does not state it."""
    matrix: Float[np.ndarray, "3 3"]
    distortion: tuple[float, ...]
    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, "3"]
    model: LensModel = LensModel.BROWN_CONRADY
    turns: int = 0
    """Clockwise quarter turns that make the calibrated image upright, if the file states them."""


@dataclass(frozen=True, kw_only=True)
class FileCameras:
    """All cameras of a file, in file order."""

    cameras: tuple[FileCamera, ...]
    unit: Unit | None
    """None if the format does not state it."""
    up: UpAxis = "z"
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Calibration:
    """A rig as stated in a file, with notes."""

    rig: CameraRig
    """In metres, Z up. A camera's size is (0, 0) if the file does not state it."""
    turns: tuple[int, ...]
    """Clockwise quarter turns that make each camera's calibrated image upright."""
    notes: tuple[str, ...]
    assumed_unit: Unit | None = None
    """Unit in which the file was read, from its format or from the size of the rig; None if the caller set it."""


def numbers(value: Any, shape: tuple[int, ...], what: str) -> Float[np.ndarray, "..."]:
    """Finite numbers of a shape, nested or flat in the file. The CalibrationError raised otherwise names `what`."""
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise CalibrationError(f"{what} does not consist of numbers.") from error
    wanted = np.prod(shape, dtype=int)
    if array.size != wanted:
        raise CalibrationError(f"{what} has {array.size} numbers; {wanted} are required.")
    if not np.isfinite(array).all():
        raise CalibrationError(f"{what} is not finite (NaN or infinite).")
    return array.reshape(shape)


def coefficients(value: Any, what: str) -> tuple[float, ...]:
    """Distortion coefficients in OpenCV's order, in one of the numbers that OpenCV supports."""
    try:
        count = np.size(np.array(value, dtype=np.float64))
    except (TypeError, ValueError, OverflowError):
        count = 0
    row = tuple(float(v) for v in numbers(value, (count,), what))
    if len(row) == 14 and not any(row[12:]):
        row = row[:12]
    if len(row) not in (0, 4, 5, 8, 12):
        raise CalibrationError(
            f"{what} has {len(row)} coefficients: 4, 5, 8 or 12 in OpenCV's order are supported (no tilted sensors)."
        )
    return row


def rotation_from(value: Any, what: str) -> Float[np.ndarray, "3 3"]:
    """A rotation from a rotation vector (3 numbers) or a matrix (9)."""
    try:
        count = np.size(np.array(value, dtype=np.float64))
    except (TypeError, ValueError, OverflowError):
        count = 3
    if count == 9:
        return numbers(value, (3, 3), what)
    from scipy.spatial.transform import Rotation

    return Rotation.from_rotvec(numbers(value, (3,), what)).as_matrix()


def image_size(value: Any, what: str) -> tuple[int, int]:
    """(width, height) in whole pixels."""
    width, height = numbers(value, (2,), what)
    if not (0 < width < MAX_SIZE and 0 < height < MAX_SIZE and width % 1 == 0 and height % 1 == 0):
        raise CalibrationError(f"{what} is {width:g} x {height:g}: both must be whole numbers of pixels.")
    return int(width), int(height)


def check_names(names: Sequence[str]) -> None:
    """Raises CalibrationError above MAX_CAMERAS, for duplicate names and for names too long for a file."""
    if len(names) > MAX_CAMERAS:
        raise CalibrationError(f"it has {len(names)} cameras; the limit is {MAX_CAMERAS}.")
    if twice := sorted(n for n, times in Counter(names).items() if times > 1):
        raise CalibrationError(f"several cameras are named {', '.join(twice)}.")
    if long := [n for n in names if len(n) > MAX_NAME]:
        raise CalibrationError(f"the name {long[0][:40]}... of a camera has more than {MAX_NAME} characters.")


def calibrated(read: FileCameras, unit: Unit | None, up: UpAxis | None) -> Calibration:
    """The rig of checked cameras, in metres, Z up; `unit` and `up` override what the file states.

    Raises CalibrationError for values that no real rig has; see the messages.
    """
    cameras = read.cameras
    if not cameras:
        raise CalibrationError("it contains no fully calibrated camera.")
    names = [camera.name for camera in cameras]
    check_names(names)
    rotations = np.stack([_checked_rotation(camera) for camera in cameras])
    translations = np.stack([camera.translation for camera in cameras])
    for camera in cameras:
        _check_matrix(camera)
    read_in, unit_note = _unit(rotations, translations, read.unit, unit)
    pose = Rigid(torch.from_numpy(rotations), torch.from_numpy(translations * METRES[read_in]))
    turn = Rigid(torch.tensor(FILE_FROM_WORLD[up or read.up], dtype=torch.float64), torch.zeros(3, dtype=torch.float64))
    matrices = torch.from_numpy(np.stack([camera.matrix for camera in cameras]))
    rig = CameraRig(
        names=tuple(names),
        focal=torch.stack([matrices[:, 0, 0], matrices[:, 1, 1]], dim=-1),
        centre=matrices[:, :2, 2].clone(),
        lens=_lens(cameras),
        camera_from_world=pose @ turn,
        size=torch.tensor([camera.size for camera in cameras]),
    )
    notes = (*read.notes, *unit_note, *_up_note(rig, up))
    return Calibration(rig, tuple(camera.turns for camera in cameras), notes, None if unit else read_in)


def _lens(cameras: Sequence[FileCamera]) -> Lens:
    rows = [[*c.distortion, *[0.0] * (NUM_COEFFICIENTS - len(c.distortion))] for c in cameras]
    return Lens(tuple(c.model for c in cameras), torch.tensor(rows, dtype=torch.float64))


def _checked_rotation(camera: FileCamera) -> Float[np.ndarray, "3 3"]:
    """The rotation nearest to the file's rounded matrix."""
    off = np.abs(camera.rotation @ camera.rotation.T - np.eye(3)).max()
    if not off < ROTATION_TOLERANCE:
        raise CalibrationError(
            f"camera {camera.name}: its rotation is not a rotation matrix (R Rᵀ is off by {off:.2g})."
        )
    if np.linalg.det(camera.rotation) < 0:
        raise CalibrationError(f"camera {camera.name}: its rotation is mirrored (determinant -1).")
    u, _, vt = np.linalg.svd(camera.rotation)
    return u @ vt


def _check_matrix(camera: FileCamera) -> None:
    k = camera.matrix
    if not (1.0 < k[0, 0] < 1e7 and 1.0 < k[1, 1] < 1e7):
        raise CalibrationError(f"camera {camera.name}: focal lengths {k[0, 0]:g} and {k[1, 1]:g} px are impossible.")
    if abs(k[0, 1]) > 1e-6 * k[0, 0]:
        raise CalibrationError(
            f"camera {camera.name} has a skew of {k[0, 1]:g}, which is not supported: calibrate with zero skew."
        )
    if k[1, 0] != 0 or not np.array_equal(k[2], [0, 0, 1]):
        raise CalibrationError(f"camera {camera.name}: its matrix is not [[f, 0, c], [0, f, c], [0, 0, 1]].")
    if np.abs(k[:2, 2]).max() > 1e7 or (camera.distortion and max(map(abs, camera.distortion)) > 1e7):
        raise CalibrationError(f"camera {camera.name}: its principal point or distortion is out of bounds.")


def _unit(
    rotations: Float[np.ndarray, "V 3 3"],
    translations: Float[np.ndarray, "V 3"],
    stated: Unit | None,
    chosen: Unit | None,
) -> tuple[Unit, tuple[str, ...]]:
    """The file's unit, and a note if it was inferred from the size of the rig.

    A rig reaches 0.5 to 100 m. Without a stated unit, the file is in metres if the rig has that reach in metres, and in
    millimetres if it has that reach in millimetres; no size is plausible as both. Other units, and the units of smaller
    and larger rigs, must be set by the user.
    """
    with np.errstate(over="ignore"):
        centres = -np.einsum("vji,vj->vi", rotations, translations)
        spread = np.linalg.norm(centres[:, None] - centres[None], axis=-1).max()
        reach = max(spread, np.linalg.norm(centres, axis=-1).max())
    known = chosen or stated
    tried: list[Unit] = [known] if known else ["m", "mm"]
    low, high = REACH_IN_SET_UNIT_M if chosen else REACH_M
    fitting: list[Unit] = [unit for unit in tried if low <= reach * METRES[unit] <= high]
    if not fitting:
        origin = "as configured" if chosen else "the unit of this format" if stated else "the units tried"
        raise CalibrationError(
            f"the cameras are up to {reach:.4g} units from each other or from the origin. That is not a rig of "
            f"{low:g} to {high:g} m in {' or '.join(tried)} ({origin}). Set the unit to m, cm, mm or in: "
            "`unit` in capture.toml, --catalogue.unit, or --unit of `mvpose import`."
        )
    note = f"unit assumed to be {fitting[0]}: none is stated, and the cameras are up to {reach:.4g} units apart"
    return fitting[0], () if known else (note,)


def _up_note(rig: CameraRig, chosen: UpAxis | None) -> tuple[str, ...]:
    """Cameras are usually upright, so a world in which they are on their side is probably not Z-up."""
    up_world = -rig.camera_from_world.rotation[:, 1].mean(dim=0)
    if chosen or up_world[2] > 0.5 * up_world.norm():
        return ()
    axis = int(up_world.abs().argmax())
    likely = ("-" if up_world[axis] < 0 else "") + "xyz"[axis]
    return (f"judging by the cameras, the world's z axis does not point up: set `up` (perhaps to {likely!r})",)


POSSIBLE_M = (0.6, 2.6)
"""A stature outside this range contradicts the unit if another unit puts it within `USUAL_M`. Units differ by a factor
of 2.54 or more; statures measured on clips of real people, from toddlers to the tallest, are inside."""
USUAL_M = (1.0, 2.2)


def confirm_unit(stature_m: float, assumed_unit: Unit | None) -> None:
    """Raises CalibrationError, naming the unit to set, if the height of people contradicts the assumed unit.

    Nothing is checked if the user set the unit (`assumed_unit` None), if no height could be measured (NaN), or if no
    unit makes the height a usual one, since the subjects may really be small.
    """
    if not assumed_unit or math.isnan(stature_m) or POSSIBLE_M[0] <= stature_m <= POSSIBLE_M[1]:
        return
    others = {unit: stature_m / METRES[assumed_unit] * metres for unit, metres in METRES.items()}
    fitting = [unit for unit, height in others.items() if USUAL_M[0] <= height <= USUAL_M[1]]
    if not fitting:
        return
    heights = " or ".join(f"{others[unit]:.2f} m in {unit}" for unit in fitting)
    raise CalibrationError(
        f"the calibration was read in {assumed_unit}, which makes people {stature_m:.2f} m tall; they would be "
        f'{heights}. Set `unit = "{fitting[0]}"` in capture.toml, --catalogue.unit {fitting[0]}, or --unit '
        f"{fitting[0]} of `mvpose import` ({assumed_unit} if the people really are that small)."
    )
