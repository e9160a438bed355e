"""Vicon `.xcp`: XML with one `Camera` element per camera. Millimetres, Z up, cameras named by DEVICEID.

    Camera      DEVICEID SENSOR_SIZE="w h" PIXEL_ASPECT_RATIO SKEW
    KeyFrame    FRAME FOCAL_LENGTH (px) PRINCIPAL_POINT="x y" POSITION="x y z" (mm) ORIENTATION="x y z w"
                VICON_RADIAL="k1 k2"  or  VICON_RADIAL2="ViconRadial2 x y k1 k2 k3"

ORIENTATION is the quaternion of world-to-camera with its real part *last*; the camera looks along +Z with Y down, like
OpenCV's. Evidence: the Nexus 2.16 file in pose2sim issue 195, whose camera is at y = 6.5 m and z = 1.8 m. Read this
way, it looks along (-0.04, -0.98, -0.20) with its Y down; read as "w x y z" it would look straight down.
POSITION is the position of the camera.

Vicon's radial terms correct a *distorted* pixel (Vicon, "About calibration data (XCP) files"): with d = (x - xc,
a (y - yc)), a the pixel aspect ratio, and r = |d| in pixels, the ideal pixel is (xc, a yc) + d (1 + k1 r^2 + k2 r^4 +
k3 r^6). OpenCV's terms distort an ideal point on the plane z = 1. OpenCV's k1 k2 p1 p2 k3 are therefore fitted by least
squares over the image to reproduce the distorted pixels. A lens that they cannot model to `WORST_FIT_PX` is rejected.
VICON_RADIAL is centred on the principal point, VICON_RADIAL2 on the point that it states.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

from mvpose.errors import CalibrationError
from mvpose.footage.calibration.file_cameras import FileCamera, FileCameras, image_size, numbers
from mvpose.footage.calibration.xml_cameras import Element, camera_elements

WORST_FIT_PX = 0.5
NOTED_FIT_PX = 0.05
_GRID = 41


def read_vicon(data: bytes) -> FileCameras:
    """The calibrated cameras of an .xcp, in file order; cameras without a KeyFrame are noted."""
    cameras, notes = [], []
    for position, elements in enumerate(camera_elements(data, "Camera")):
        name = elements[0][1].get("DEVICEID") or str(position + 1)
        keys = _key_frames(name, elements)
        if not keys:
            notes.append(f"camera {name} has no KeyFrame, hence no calibration, and is ignored")
            continue
        camera, off_px = _camera(name, elements[0][1], keys[0])
        cameras.append(camera)
        if off_px > NOTED_FIT_PX:
            notes.append(f"camera {name}: OpenCV's lens model matches Vicon's only to {off_px:.2f} px")
    return FileCameras(cameras=tuple(cameras), unit="mm", notes=tuple(notes))


def _key_frames(name: str, elements: list[Element]) -> list[dict[str, str]]:
    keys = [attributes for tag, attributes in elements if tag == "KeyFrame"]
    if len({tuple(sorted((k, v) for k, v in key.items() if k != "FRAME")) for key in keys}) > 1:
        raise CalibrationError(
            f"camera {name} moves (it has {len(keys)} different KeyFrames); only fixed rigs are supported."
        )
    return keys


def _camera(name: str, camera: Mapping[str, str], key: Mapping[str, str]) -> tuple[FileCamera, float]:
    """The camera, and the maximum difference between OpenCV's lens model and Vicon's in pixels."""

    def row(attributes: Mapping[str, str], attribute: str, count: int, default: str | None = None) -> np.ndarray:
        text = attributes.get(attribute) or default
        if text is None:
            raise CalibrationError(f"camera {name} has no {attribute}.")
        return numbers(text.split(), (count,), f"{attribute} of camera {name}")

    size = image_size(row(camera, "SENSOR_SIZE", 2), f"SENSOR_SIZE of camera {name}")
    focal, aspect = row(key, "FOCAL_LENGTH", 1)[0], row(camera, "PIXEL_ASPECT_RATIO", 1, "1")[0]
    if not (focal > 1 and 0.1 < aspect < 10):
        raise CalibrationError(f"camera {name}: a focal length of {focal:g} px, aspect {aspect:g}, is impossible.")
    centre, skew = row(key, "PRINCIPAL_POINT", 2), row(camera, "SKEW", 1, "0")[0]
    if "VICON_RADIAL2" in key:
        radial2 = numbers(key["VICON_RADIAL2"].split()[1:], (5,), f"VICON_RADIAL2 of camera {name}")
        around, radial = radial2[:2], radial2[2:]
    else:
        around, radial = centre, np.append(row(key, "VICON_RADIAL", 2, "0 0"), 0.0)
    quaternion = row(key, "ORIENTATION", 4)
    if not 0.99 < np.linalg.norm(quaternion) < 1.01:
        raise CalibrationError(f"camera {name}: its ORIENTATION is not a unit quaternion.")
    from scipy.spatial.transform import Rotation

    rotation = Rotation.from_quat(quaternion).as_matrix()
    matrix = np.array([[focal, skew, centre[0]], [0.0, focal / aspect, centre[1]], [0.0, 0.0, 1.0]])
    distortion, off_px = _opencv_lens(name, size, matrix, aspect, around, radial)
    with np.errstate(over="ignore", invalid="ignore"):
        translation = numbers(-rotation @ row(key, "POSITION", 3), (3,), f"POSITION of camera {name}")
    return FileCamera(
        name=name, size=size, matrix=matrix, distortion=distortion, rotation=rotation, translation=translation
    ), off_px


def _opencv_lens(
    name: str,
    size: tuple[int, int],
    matrix: Float[np.ndarray, "3 3"],
    aspect: float,
    around: Float[np.ndarray, "2"],
    radial: Float[np.ndarray, "3"],
) -> tuple[tuple[float, ...], float]:
    """k1 k2 p1 p2 k3 that invert Vicon's undistortion, and the maximum error over the image in pixels."""
    if not radial.any():
        return (0.0,) * 5, 0.0
    grid = np.stack(np.meshgrid(*(np.linspace(0, n - 1, _GRID) for n in size)), axis=-1).reshape(-1, 2)
    square = np.array([1.0, aspect])
    d = (grid - around) * square
    r2 = (d**2).sum(axis=1, keepdims=True)
    with np.errstate(over="ignore", invalid="ignore"):
        scale = 1 + r2 * (radial[0] + r2 * (radial[1] + r2 * radial[2]))
        slope = 1 + r2 * (3 * radial[0] + r2 * (5 * radial[1] + r2 * 7 * radial[2]))
    if not (np.isfinite(scale).all() and slope.min() > 0.1 and scale.max() < 3):
        raise CalibrationError(
            f"camera {name}: its radial terms ({', '.join(f'{k:g}' for k in radial)}) fold the image onto itself. They "
            "are read as Vicon's, in pixels (about 1e-8 for k1). If they are OpenCV's, write the calibration as TOML."
        )
    focal = matrix[0, 0]
    distorted, ideal = ((p - matrix[:2, 2] * square) / focal for p in (grid * square, d * scale + around * square))
    x, y = ideal.T
    q2 = x * x + y * y
    terms = [[x * q2, y * q2], [x * q2**2, y * q2**2]]
    terms += [[2 * x * y, q2 + 2 * y * y], [q2 + 2 * x * x, 2 * x * y], [x * q2**3, y * q2**3]]
    design = np.array(terms).reshape(5, -1).T
    wanted = (distorted - ideal).T.ravel()
    unit = np.abs(design).max(axis=0)
    found = np.linalg.lstsq(design / unit, wanted, rcond=None)[0] / unit
    off_px = focal * float(np.hypot(*(design @ found - wanted).reshape(2, -1)).max())
    if off_px > WORST_FIT_PX:
        raise CalibrationError(f"camera {name}: OpenCV's lens model misses Vicon's by up to {off_px:.1f} px.")
    return tuple(float(k) for k in found), off_px
