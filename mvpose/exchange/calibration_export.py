"""Write camera rigs in the calibration formats of other tools. What a format cannot represent is refused, not dropped.

format          unit and axes               lenses
Pose2Sim TOML   metres, Z up                Brown-Conrady with 5, 8 or 12 coefficients; fisheye
Anipose TOML    metres, Z up                Brown-Conrady with 5 coefficients; fisheye
EasyMocap YAML  metres, Z up                Brown-Conrady with 5 coefficients
OpenCV YAML     metres, Z up                Brown-Conrady with 5, 8 or 12 coefficients
Panoptic JSON   centimetres, Y down         Brown-Conrady with 5 coefficients

`x_camera = R x_world + t` in all of them. Numbers are exact (TOML, JSON) or have 16 digits (YAML).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from mvpose.errors import CalibrationError
from mvpose.geometry.camera import CameraRig
from mvpose.geometry.lens import LensModel

# Columns are the axes of the Z-up world in Panoptic's Y-down coordinates.
_PANOPTIC_FROM_WORLD = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
_YAML_NAME = re.compile(r"[A-Za-z0-9_-]+")


def pose2sim_toml(rig: CameraRig) -> str:
    """Pose2Sim's `Calib.toml`: one table per camera, by its name."""
    coefficients = _coefficients(rig, "Pose2Sim", maximum=12, fisheye=True)
    tables = [_toml_table(rig, view, rig.names[view], coefficients[view]) for view in range(len(rig))]
    return "\n".join([*tables, "[metadata]", "adjusted = false", "error = 0.0", ""])


def anipose_toml(rig: CameraRig) -> str:
    """Anipose's `calibration.toml`: tables `cam_0` ..., zero-padded so that sorting by name keeps the order."""
    coefficients = _coefficients(rig, "Anipose", maximum=5, fisheye=True)
    width = len(str(len(rig) - 1))
    tables = [_toml_table(rig, v, f"cam_{v:0{width}d}", coefficients[v]) for v in range(len(rig))]
    return "\n".join([*tables, "[metadata]", "adjusted = false", "error = 0.0", ""])


def easymocap_yaml(rig: CameraRig) -> tuple[str, str]:
    """EasyMocap's `intri.yml` and `extri.yml`."""
    lenses = _coefficients(rig, "EasyMocap", maximum=5, fisheye=False)
    _check_yaml_names(rig)
    intri, extri = _yaml(rig), _yaml(rig)
    for view, lens in enumerate(lenses):
        _write_intrinsics(intri, rig, view, lens)
        _write_pose(extri, rig, view)
    return intri.releaseAndGetString(), extri.releaseAndGetString()


def opencv_yaml(rig: CameraRig) -> str:
    """One OpenCV FileStorage file with the keys of EasyMocap's two files."""
    lenses = _coefficients(rig, "OpenCV YAML", maximum=12, fisheye=False)
    _check_yaml_names(rig)
    file = _yaml(rig)
    for view, lens in enumerate(lenses):
        _write_intrinsics(file, rig, view, lens)
        _write_pose(file, rig, view)
    return file.releaseAndGetString()


def panoptic_json(rig: CameraRig) -> str:
    """CMU Panoptic's `calibration_<sequence>.json`; all cameras have type hd."""
    lenses = _coefficients(rig, "Panoptic JSON", maximum=5, fisheye=False)
    rotations, translations = _poses(rig)
    cameras = [
        {
            "name": name,
            "type": "hd",
            "resolution": rig.size[view].tolist(),
            "panel": 0,
            "node": view,
            "K": rig.intrinsics[view].tolist(),
            "distCoef": lenses[view],
            "R": (rotations[view] @ _PANOPTIC_FROM_WORLD.T).tolist(),
            "t": (100.0 * translations[view][:, None]).tolist(),
        }
        for view, name in enumerate(rig.names)
    ]
    return json.dumps({"calibDataSource": "mvpose", "cameras": cameras}, indent=1)


def _coefficients(rig: CameraRig, to: str, *, maximum: int, fisheye: bool) -> list[list[float]]:
    """As many coefficients per lens as needed: 5, 8 or 12 (4 for a fisheye). Raises CalibrationError for the rest."""
    rows = []
    for name, model, row in zip(rig.names, rig.lens.models, rig.lens.coefficients.tolist(), strict=True):
        if model == LensModel.KANNALA_BRANDT and fisheye:
            rows.append(row[:4])
            continue
        if model != LensModel.BROWN_CONRADY:
            kind = "fisheye" if model == LensModel.KANNALA_BRANDT else "Human3.6M"
            raise CalibrationError(f"camera {name} has a {kind} lens, which {to} does not support: use another format.")
        needed = next(count for count in (5, 8, 12) if not any(row[count:]))
        if needed > maximum:
            raise CalibrationError(
                f"camera {name} has {needed} distortion coefficients, but {to} supports {maximum}: use another format."
            )
        rows.append(row[:needed])
    return rows


def _poses(rig: CameraRig) -> tuple[Float[np.ndarray, "V 3 3"], Float[np.ndarray, "V 3"]]:
    pose = rig.camera_from_world
    return pose.rotation.double().numpy(), pose.translation.double().numpy()


def _toml_table(rig: CameraRig, view: int, key: str, lens: Sequence[float]) -> str:
    rotations, translations = _poses(rig)
    fisheye = rig.lens.models[view] == LensModel.KANNALA_BRANDT
    # JSON strings are valid TOML strings, and JSON's lists of numbers are valid TOML lists.
    fields = {
        "name": rig.names[view],
        "size": [float(side) for side in rig.size[view]],
        "matrix": rig.intrinsics[view].tolist(),
        "distortions": list(lens),
        "rotation": Rotation.from_matrix(rotations[view]).as_rotvec().tolist(),
        "translation": translations[view].tolist(),
        "fisheye": fisheye,
    }
    return "\n".join([f"[{json.dumps(key)}]", *(f"{k} = {json.dumps(v)}" for k, v in fields.items()), ""])


def _check_yaml_names(rig: CameraRig) -> None:
    wrong = [name for name in rig.names if not _YAML_NAME.fullmatch(name)]
    if wrong:
        raise CalibrationError(
            f"OpenCV YAML uses camera names as keys, and {', '.join(map(repr, wrong))} cannot be one: "
            "use letters, digits, _ and -, or another format."
        )


def _yaml(rig: CameraRig) -> cv2.FileStorage:
    file = cv2.FileStorage(".yml", cv2.FILE_STORAGE_WRITE | cv2.FILE_STORAGE_MEMORY)
    file.startWriteStruct("names", cv2.FILE_NODE_SEQ)
    for name in rig.names:
        file.write("", name)
    file.endWriteStruct()
    return file


def _write_intrinsics(file: cv2.FileStorage, rig: CameraRig, view: int, lens: Sequence[float]) -> None:
    name = rig.names[view]
    file.write(f"K_{name}", rig.intrinsics[view].double().numpy())
    file.write(f"dist_{name}", np.array([lens]))
    file.write(f"W_{name}", int(rig.size[view, 0]))
    file.write(f"H_{name}", int(rig.size[view, 1]))


def _write_pose(file: cv2.FileStorage, rig: CameraRig, view: int) -> None:
    rotations, translations = _poses(rig)
    name = rig.names[view]
    file.write(f"R_{name}", Rotation.from_matrix(rotations[view]).as_rotvec()[:, None])
    file.write(f"Rot_{name}", rotations[view])
    file.write(f"T_{name}", translations[view][:, None])
