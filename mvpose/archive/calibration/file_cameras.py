"""What every calibration format is read into, and the checks that each must pass before it becomes a rig."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from mvpose.errors import CalibrationError
from mvpose.geometry.camera import CameraRig
from mvpose.geometry.lens import NUM_COEFFICIENTS, Lens, LensModel
from mvpose.geometry.rigid import Rigid
from mvpose.records import Unit

MAX_CAMERAS = 1024
MAX_NAME = 255
"""Characters of a camera's name: footage is matched by it, and no file has a longer one."""
MAX_SIZE = 1 << 16
REACH_M = (0.5, 100.0)
"""How far the farthest camera of a rig stands from another or from the origin, at least and at most."""
ROTATION_TOLERANCE = 1e-3
"""How far a matrix may be from a rotation: files that round to 3 digits are off by up to 5e-4."""

UpAxis = Literal["x", "-x", "y", "-y", "z", "-z"]

METRES: dict[Unit, float] = {"m": 1.0, "cm": 0.01, "mm": 0.001, "in": 0.0254}
# Columns are the axes of the Z-up world, told in the file's.
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
    """One camera as its file tells it: `x_camera = rotation x_file + translation`, OpenCV's axes, the file's unit."""

    name: str
    size: tuple[int, int]
    """(width, height); (0, 0) where the file does not state it."""
    matrix: Float[np.ndarray, "3 3"]
    distortion: tuple[float, ...]
    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, "3"]
    model: LensModel = LensModel.BROWN_CONRADY
    turns: int = 0
    """Clockwise quarter turns after which the calibrated picture is upright, where the file states them."""


@dataclass(frozen=True, kw_only=True)
class FileCameras:
    """All cameras of a file, in its order."""

    cameras: tuple[FileCamera, ...]
    unit: Unit | None
    """None where the format does not state it."""
    up: UpAxis = "z"
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Calibration:
    """A rig as a file states it, and what there is to be said of it."""

    rig: CameraRig
    """In metres, Z up. A camera's size is (0, 0) where the file does not state it."""
    turns: tuple[int, ...]
    """Clockwise quarter turns after which each camera's calibrated picture is upright."""
    notes: tuple[str, ...]
    assumed_unit: Unit | None = None
    """The unit that the file was read in, by its format or by the size of the rig; None where the caller named it."""


def numbers(value: Any, shape: tuple[int, ...], what: str) -> Float[np.ndarray, "..."]:
    """Finite numbers of a shape, nested or flat as the file has them; CalibrationError says `what` is not so."""
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise CalibrationError(f"{what} is not made of numbers.") from error
    wanted = np.prod(shape, dtype=int)
    if array.size != wanted:
        raise CalibrationError(f"{what} has {array.size} numbers, and {wanted} are needed.")
    if not np.isfinite(array).all():
        raise CalibrationError(f"{what} is not finite (NaN or infinite).")
    return array.reshape(shape)


def coefficients(value: Any, what: str) -> tuple[float, ...]:
    """Distortion coefficients, in OpenCV's order, of the counts that OpenCV knows."""
    try:
        count = np.size(np.array(value, dtype=np.float64))
    except (TypeError, ValueError, OverflowError):
        count = 0
    row = tuple(float(v) for v in numbers(value, (count,), what))
    if len(row) == 14 and not any(row[12:]):
        row = row[:12]
    if len(row) not in (0, 4, 5, 8, 12):
        raise CalibrationError(
            f"{what} has {len(row)} coefficients: 4, 5, 8 or 12 in OpenCV's order are known, not a tilted sensor's 14."
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
    return Rotation.from_rotvec(numbers(value, (3,), what)).as_matrix()


def picture_size(value: Any, what: str) -> tuple[int, int]:
    """(width, height) in whole pixels."""
    width, height = numbers(value, (2,), what)
    if not (0 < width < MAX_SIZE and 0 < height < MAX_SIZE and width % 1 == 0 and height % 1 == 0):
        raise CalibrationError(f"{what} is {width:g} x {height:g}: two whole numbers of pixels are needed.")
    return int(width), int(height)


def check_names(names: Sequence[str]) -> None:
    """CalibrationError above MAX_CAMERAS, where two share a name, and where a name is no file's."""
    if len(names) > MAX_CAMERAS:
        raise CalibrationError(f"{len(names)} cameras are in it, above the limit of {MAX_CAMERAS}.")
    if twice := sorted(n for n, times in Counter(names).items() if times > 1):
        raise CalibrationError(f"several cameras are named {', '.join(twice)}.")
    if long := [n for n in names if len(n) > MAX_NAME]:
        raise CalibrationError(f"the name {long[0][:40]}... of a camera has more than {MAX_NAME} characters.")


def calibrated(read: FileCameras, unit: Unit | None, up: UpAxis | None) -> Calibration:
    """The rig of checked cameras, in metres, Z up; `unit` and `up` overrule what the file states.

    CalibrationError for what no real rig has: see the messages.
    """
    cameras = read.cameras
    if not cameras:
        raise CalibrationError("no fully calibrated camera is in it.")
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
    """The rotation nearest to what the file has rounded."""
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
        raise CalibrationError(f"camera {camera.name}: focal lengths {k[0, 0]:g} and {k[1, 1]:g} px are not possible.")
    if abs(k[0, 1]) > 1e-6 * k[0, 0]:
        raise CalibrationError(
            f"camera {camera.name} has a skew of {k[0, 1]:g}, which is not supported: calibrate with zero skew."
        )
    if k[1, 0] != 0 or not np.array_equal(k[2], [0, 0, 1]):
        raise CalibrationError(f"camera {camera.name}: its matrix is not [[f, 0, c], [0, f, c], [0, 0, 1]].")
    if np.abs(k[:2, 2]).max() > 1e7 or (camera.distortion and max(map(abs, camera.distortion)) > 1e7):
        raise CalibrationError(f"camera {camera.name}: its principal point or distortion is out of all bounds.")


def _unit(
    rotations: Float[np.ndarray, "V 3 3"],
    translations: Float[np.ndarray, "V 3"],
    stated: Unit | None,
    chosen: Unit | None,
) -> tuple[Unit, tuple[str, ...]]:
    """The file's unit, and a note if it had to be told from the size of the rig.

    A rig reaches 0.5 to 100 m. Without a stated unit it is told in metres if it reaches that far in metres, and in
    millimetres if it reaches that far in millimetres; no size is plausible as both. Other units have to be named.
    """
    with np.errstate(over="ignore"):
        centres = -np.einsum("vji,vj->vi", rotations, translations)
        spread = np.linalg.norm(centres[:, None] - centres[None], axis=-1).max()
        reach = max(spread, np.linalg.norm(centres, axis=-1).max())
    told = chosen or stated
    tried: list[Unit] = [told] if told else ["m", "mm"]
    fitting: list[Unit] = [unit for unit in tried if REACH_M[0] <= reach * METRES[unit] <= REACH_M[1]]
    if not fitting:
        origin = "as you set it" if chosen else "as this format has it" if stated else "the units tried"
        raise CalibrationError(
            f"the cameras stand up to {reach:.4g} units from each other or from the origin, which is no rig of "
            f"{REACH_M[0]:g} to {REACH_M[1]:g} m in {' or '.join(tried)} ({origin}). Set `unit` "
            "to m, cm, mm or in: in capture.toml, as --catalogue.unit, or as --unit of `mvpose import`."
        )
    note = f"unit taken as {fitting[0]}: not stated, and the cameras stand up to {reach:.4g} units apart"
    return fitting[0], () if told else (note,)


def _up_note(rig: CameraRig, chosen: UpAxis | None) -> tuple[str, ...]:
    """Most cameras are held upright: a world in which they lie on their side is likely not Z-up."""
    up_world = -rig.camera_from_world.rotation[:, 1].mean(dim=0)
    if chosen or up_world[2] > 0.5 * up_world.norm():
        return ()
    axis = int(up_world.abs().argmax())
    likely = ("-" if up_world[axis] < 0 else "") + "xyz"[axis]
    return (f"the world's z axis does not point up as the cameras see it: set `up` (perhaps to {likely!r})",)
