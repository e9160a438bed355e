"""What holds for every form of Human3.6M: names, sizes, splits, and which ground truth is wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from mvpose.archive.calibration.file_cameras import FileCamera, FileCameras, calibrated
from mvpose.datasets.files import DatasetError, array
from mvpose.datasets.sample import TEST, TRAIN, Scene
from mvpose.geometry.camera import CameraRig
from mvpose.geometry.lens import LensModel
from mvpose.skeleton import HUMAN36M17

CAMERAS = ("54138969", "55011271", "58860488", "60457274")
SIZES = {"54138969": (1000, 1002), "55011271": (1000, 1000), "58860488": (1000, 1000), "60457274": (1000, 1002)}
SUBJECTS = ("S1", "S5", "S6", "S7", "S8", "S9", "S11")
TEST_SUBJECTS = ("S9", "S11")
ACTIONS = {
    2: "Directions", 3: "Discussion", 4: "Eating", 5: "Greeting", 6: "Phoning", 7: "Posing", 8: "Purchases",
    9: "Sitting", 10: "SittingDown", 11: "Smoking", 12: "TakingPhoto", 13: "Waiting", 14: "Walking", 15: "WalkingDog",
    16: "WalkingTogether",
}  # fmt: skip
"""By the number in `metadata.xml` and in picture names (`act_07`). 1 is `_ALL`, a calibration take."""
ACTION_ALIASES = {"WalkTogether": "WalkingTogether", "WalkDog": "WalkingDog", "Photo": "TakingPhoto"}
"""The delivered files name some actions of some subjects differently."""

DAMAGED = ("S9/Greeting-2", "S9/SittingDown-2", "S9/Waiting-1")
"""Ground truth shifted against the pictures (absolute errors suffer, relative ones do not)."""
NO_VIDEO = {"S11/Directions-2": ("54138969",)}
"""Videos that are damaged as delivered."""

JOINTS_OF_32 = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)
"""Of the 32 recorded joints those of HUMAN36M17, in its order. Some code takes 16 for 13: both stand in one place."""
METRES = 0.001


def rig_of(cameras: Sequence[FileCamera]) -> CameraRig:
    """The rig of some of the four cameras, from millimetres to metres."""
    return calibrated(FileCameras(cameras=tuple(cameras), unit="mm"), None, None).rig


def file_camera(
    name: str,
    rotation: Float[np.ndarray, "3 3"],
    translation: Float[np.ndarray, "3"],
    focal: Float[np.ndarray, "2"],
    centre: Float[np.ndarray, "2"],
    distortion: Sequence[float],
) -> FileCamera:
    """A camera with `x_camera = rotation x_world + translation` (mm) and k1, k2, p1, p2, k3, or none if undistorted."""
    if name not in SIZES:
        raise DatasetError(f"camera {name!r} is none of Human3.6M's {', '.join(CAMERAS)}.")
    return FileCamera(
        name=name,
        size=SIZES[name],
        matrix=np.array([[focal[0], 0.0, centre[0]], [0.0, focal[1], centre[1]], [0.0, 0.0, 1.0]]),
        distortion=tuple(float(d) for d in distortion),
        rotation=rotation,
        translation=translation,
        model=LensModel.HUMAN36M if len(distortion) else LensModel.BROWN_CONRADY,
    )


def scene_of(subject: str, action: str, trial: int, rig: CameraRig) -> Scene:
    """The scene of one trial of an action."""
    capture = f"{subject}/{action}-{trial}"
    return Scene(
        capture_id=capture,
        subject=subject,
        action=action,
        split=TEST if subject in TEST_SUBJECTS else TRAIN,
        rig=rig,
        skeleton=HUMAN36M17,
        damaged=capture in DAMAGED,
        fps=50.0,
    )


def action_and_trial(name: str) -> tuple[str, int]:
    """`Greeting-2` to its parts, under the action's name in `metadata.xml`."""
    action, _, trial = name.rpartition("-")
    action = ACTION_ALIASES.get(action, action)
    if action not in ACTIONS.values() or trial not in ("1", "2"):
        raise DatasetError(f"{name!r} is no trial of an action of Human3.6M, such as Greeting-2.")
    return action, int(trial)


def centre_to_translation(rotation: np.ndarray, centre: np.ndarray) -> Float[np.ndarray, "3"]:
    """t of `R x + t` where a file has the camera centre T of `R (x - T)`."""
    return -array(rotation, (3, 3), "a rotation") @ array(centre, (3,), "a camera centre")
