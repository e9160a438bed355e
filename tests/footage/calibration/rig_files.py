"""A rig of known cameras, written in each format by rules of its own, and projected by OpenCV."""

import json
from dataclasses import dataclass, field

import cv2
import numpy as np


@dataclass
class Camera:
    name: str
    size: tuple[int, int]
    matrix: np.ndarray
    distortion: list[float]
    rotation: np.ndarray
    translation: np.ndarray
    """Metres, world Z-up."""
    fisheye: bool = False
    extra: dict = field(default_factory=dict)

    def pixel(self, points: np.ndarray) -> np.ndarray:
        vector, lens = cv2.Rodrigues(self.rotation)[0], np.array(self.distortion)
        if self.fisheye:
            return cv2.fisheye.projectPoints(points[:, None], vector, self.translation, self.matrix, lens)[0][:, 0]
        return cv2.projectPoints(points, vector, self.translation, self.matrix, lens)[0][:, 0]


POINTS = np.random.default_rng(3).uniform([-0.8, -0.8, 0.1], [0.8, 0.8, 1.9], (20, 3))


def ring(names: list[str], fisheye: bool = False) -> list[Camera]:
    """Cameras 3 to 5 m around the origin, looking at (0, 0, 1), each with its own numbers."""
    cameras = []
    for i, name in enumerate(names):
        angle, radius = 2.1 * i + 0.3, 3.0 + 0.37 * i
        position = np.array([radius * np.cos(angle), radius * np.sin(angle), 1.4 + 0.2 * i])
        forward = np.array([0, 0, 1.0]) - position
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        matrix = np.array([[1100.0 + 9 * i, 0, 630 + 5 * i], [0, 1105.0 + 3 * i, 350 - 4 * i], [0, 0, 1]])
        lens = [-0.05 + 0.01 * i, 0.1, 0.002, -0.003] + ([] if fisheye else [0.02])
        cameras.append(Camera(name, (1280, 720 + 2 * i), matrix, lens, rotation, -rotation @ position, fisheye))
    return cameras


def toml_text(cameras: list[Camera], scale: float = 1.0, nested: bool = False) -> str:
    lines = []
    for i, c in enumerate(cameras):
        lines += [f"[cameras.{c.name}]" if nested else f"[cam_{i}]"]
        lines += [] if nested else [f'name = "{c.name}"']
        lines += [f"size = {list(map(float, c.size))}", f"matrix = {c.matrix.tolist()}"]
        lines += [f"distortions = {c.distortion}", f"rotation = {_rotation(c.rotation)}"]
        lines += [f"translation = {(c.translation * scale).tolist()}", f"fisheye = {str(c.fisheye).lower()}"]
        lines += [f"{key} = {value}" for key, value in c.extra.items()]
    return "\n".join([*lines, "[metadata]", "adjusted = false", "error = 0.0", ""])


def _rotation(matrix: np.ndarray) -> list:
    """As a vector, unless it is no rotation: files of older caliscope have matrices."""
    proper = np.allclose(matrix @ matrix.T, np.eye(3)) and np.linalg.det(matrix) > 0
    return cv2.Rodrigues(matrix)[0].ravel().tolist() if proper else matrix.tolist()


def qualisys_text(cameras: list[Camera], left: int = 0, top: int = 0) -> str:
    rows = ['<?xml version="1.0" encoding="ASCII"?>', "<calibration><cameras>"]
    for c in cameras:
        rotation = np.diag([1, -1, -1]) @ c.rotation
        x, y, z = -c.rotation.T @ c.translation * 1000
        elements = " ".join(f'r{i + 1}{j + 1}="{rotation[i, j]}"' for i in range(3) for j in range(3))
        k1, k2, p1, p2, k3 = c.distortion
        fov = f'left="{left}" top="{top}" right="{left + c.size[0] - 1}" bottom="{top + c.size[1] - 1}"'
        rows += [
            f'<camera serial="{c.name}" viewrotation="0" model="none">',
            f'<fov_video {fov}/><transform x="{x}" y="{y}" z="{z}" {elements}/>',
            f'<intrinsic focalLengthU="{c.matrix[0, 0] * 64}" focalLengthV="{c.matrix[1, 1] * 64}" skew="0.0"',
            f'centerPointU="{(c.matrix[0, 2] + left) * 64}" centerPointV="{(c.matrix[1, 2] + top) * 64}"',
            f'radialDistortion1="{k1}" radialDistortion2="{k2}" radialDistortion3="{k3}"',
            f'tangentalDistortion1="{p1}" tangentalDistortion2="{p2}"/></camera>',
        ]
    return "\n".join([*rows, "</cameras></calibration>"])


def xcp_text(cameras: list[Camera], radial: str = 'VICON_RADIAL="0 0"', aspect: float = 1.0) -> str:
    """As Nexus writes it. The quaternion is made by hand: x, y, z, and the real part last."""
    rows = ['<?xml version="1.0" encoding="UTF-8" standalone="no" ?>', '<Cameras SOURCE="Nexus 2.16" VERSION="2.0">']
    for c in cameras:
        r = c.rotation
        w = np.sqrt(max(0.0, 1 + np.trace(r))) / 2
        x, y, z = np.array([r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]]) / (4 * w)
        position = " ".join(str(v) for v in -r.T @ c.translation * 1000)
        rows += [
            f'<Camera DEVICEID="{c.name}" PIXEL_ASPECT_RATIO="{aspect}" SENSOR_SIZE="{c.size[0]} {c.size[1]}">',
            f'<KeyFrames><KeyFrame FOCAL_LENGTH="{c.matrix[0, 0]}" FRAME="0" ORIENTATION="{x} {y} {z} {w}"',
            f'POSITION="{position}" PRINCIPAL_POINT="{c.matrix[0, 2]} {c.matrix[1, 2]}" {radial} WORLD_ERROR="0.2"/>',
            "</KeyFrames></Camera>",
        ]
        c.matrix[1, 1] = c.matrix[0, 0] / aspect
    return "\n".join([*rows, "</Cameras>"])


def panoptic_text(cameras: list[Camera]) -> str:
    """The Y-down world of the dome: Z-up (x, y, z) is (x, -z, y) there, in centimetres."""
    up_from_down = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]])
    rows = [
        {
            "name": c.name,
            "type": "hd",
            "resolution": list(c.size),
            "panel": 0,
            "node": i,
            "K": c.matrix.tolist(),
            "distCoef": c.distortion,
            "R": (c.rotation @ up_from_down).tolist(),
            "t": (100 * c.translation[:, None]).tolist(),
        }
        for i, c in enumerate(cameras)
    ]
    return json.dumps({"calibDataSource": "test", "cameras": rows})


def easymocap_texts(cameras: list[Camera], sized: bool = True) -> tuple[str, str]:
    """intri.yml and extri.yml, written by OpenCV itself."""
    intri, extri = (cv2.FileStorage(".yml", cv2.FILE_STORAGE_WRITE | cv2.FILE_STORAGE_MEMORY) for _ in range(2))
    for file in (intri, extri):
        file.startWriteStruct("names", cv2.FILE_NODE_SEQ)
        for c in cameras:
            file.write("", c.name)
        file.endWriteStruct()
    for c in cameras:
        intri.write(f"K_{c.name}", c.matrix)
        intri.write(f"dist_{c.name}", np.array([c.distortion]))
        if sized:
            intri.write(f"W_{c.name}", c.size[0])
            intri.write(f"H_{c.name}", c.size[1])
        extri.write(f"R_{c.name}", cv2.Rodrigues(c.rotation)[0])
        extri.write(f"Rot_{c.name}", c.rotation)
        extri.write(f"T_{c.name}", c.translation[:, None])
    return intri.releaseAndGetString(), extri.releaseAndGetString()
