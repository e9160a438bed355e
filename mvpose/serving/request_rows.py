"""Rows of a request to a registered version, as arrays and cameras. ValueError says what cannot be read."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from mvpose.geometry.camera import CameraRig
from mvpose.geometry.lens import NUM_COEFFICIENTS, Lens, LensModel
from mvpose.geometry.rigid import Rigid
from mvpose.models.input_rule import InputRule

RIGID = 1e-3
"""Deviation of R R^T from 1 that rounding to four digits may leave."""


@dataclass(frozen=True, eq=False)
class CropRow:
    """Crops of one person."""

    crops: UInt8[np.ndarray, "V H W 3"]
    projections: Float[np.ndarray, "V 3 4"]
    """World metres to pixels of the crops."""
    present: Bool[np.ndarray, " V"]


@dataclass(frozen=True, eq=False)
class ImageRow:
    """Images of all views at one moment."""

    images: list[UInt8[np.ndarray, "_ _ 3"]]
    rig: CameraRig
    boxes: list[Float[np.ndarray, "_ 4"]] | None
    """People's boxes by view; None if people are to be looked for."""


def crop_row(row: dict[str, Any], rule: InputRule) -> CropRow:
    """Crops, cameras and flags of a row; ConfigError if the network does not take this number of views."""
    texts = _views_of(row, "crops")
    rule.require_views(len(texts))
    images = [_decoded(text, "a crop") for text in texts]
    for height, width in (image.shape[:2] for image in images):
        if (width, height) != tuple(rule.crop.size):
            raise ValueError(f"a crop is {width}x{height}, the network takes {rule.crop.size}")
    projections = _numbers(row, "projections", (len(texts), 3, 4)).astype(np.float32)
    return CropRow(np.stack(images), projections, _flags(_given(row, "present", [True] * len(texts)), len(texts)))


def image_row(row: dict[str, Any]) -> ImageRow:
    """Images, cameras and boxes of a row."""
    images = [_decoded(text, "an image") for text in _views_of(row, "images")]
    boxes = _given(row, "boxes")
    return ImageRow(images, _rig(row, images), None if boxes is None else _boxes(boxes, len(images)))


def _rig(row: dict[str, Any], images: list[UInt8[np.ndarray, "_ _ 3"]]) -> CameraRig:
    views = len(images)
    intrinsics = _numbers(row, "intrinsics", (views, 3, 3))
    pose = _numbers(row, "camera_from_world", (views, 3, 4))
    focal = np.diagonal(intrinsics, axis1=1, axis2=2)[:, :2]
    alike = np.zeros_like(intrinsics)
    alike[:, [0, 1], [0, 1]], alike[:, :2, 2], alike[:, 2, 2] = focal, intrinsics[:, :2, 2], 1.0
    if not (focal > 0).all() or not np.array_equal(alike, intrinsics):
        raise ValueError("`intrinsics` are not of the form [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]")
    rotation = pose[:, :, :3]
    off = np.abs(rotation @ rotation.swapaxes(1, 2) - np.eye(3)).max()
    if not off < RIGID or not (np.linalg.det(rotation) > 0).all():
        raise ValueError("`camera_from_world` are not [R | t] with a rotation R")
    return CameraRig(
        names=tuple(f"view {v}" for v in range(views)),
        focal=torch.from_numpy(focal.copy()),
        centre=torch.from_numpy(intrinsics[:, :2, 2].copy()),
        lens=_lens(row, views),
        camera_from_world=Rigid(torch.from_numpy(rotation.copy()), torch.from_numpy(pose[:, :, 3].copy())),
        size=torch.tensor([image.shape[1::-1] for image in images]),
    )


def _lens(row: dict[str, Any], views: int) -> Lens:
    models = [LensModel(name) for name in _given(row, "lens", [LensModel.BROWN_CONRADY] * views)]
    lists = [[float(k) for k in own] for own in _given(row, "distortion", [[]] * views)]
    if len(models) != views or len(lists) != views:
        raise ValueError(f"{views} images need as many entries in `lens` and `distortion`")
    if max(map(len, lists)) > NUM_COEFFICIENTS:
        raise ValueError(
            f"`distortion` has more than {NUM_COEFFICIENTS} coefficients (tilted sensors are not supported)"
        )
    return Lens(tuple(models), Lens.of(LensModel.BROWN_CONRADY, lists).coefficients)


def _boxes(given: Any, views: int) -> list[Float[np.ndarray, "_ 4"]]:
    if len(given) != views:
        raise ValueError(f"{views} images need as many lists in `boxes`, got {len(given)}")
    boxes = [np.array([list(box) for box in own or ()], np.float64).reshape(-1, 4) for own in given]
    if not all((own[:, 2:] > own[:, :2]).all() for own in boxes):
        raise ValueError("`boxes` are not left, top, right, bottom")
    return boxes


def _views_of(row: dict[str, Any], column: str) -> list[Any]:
    texts = row.get(column)
    if not isinstance(texts, (list, tuple, np.ndarray)) or not len(texts):
        raise ValueError(f"`{column}` must be a list of images, not {type(texts).__name__}")
    return list(texts)


def _decoded(text: Any, what: str) -> UInt8[np.ndarray, "h w 3"]:
    """RGB, turned by its EXIF orientation, as the job reads images."""
    try:
        data = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    except (binascii.Error, TypeError, ValueError) as error:
        raise ValueError(f"{what} is not base64 text ({error})") from error
    try:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if data.size else None
    except cv2.error as error:  # above OpenCV's limit of pixels
        raise ValueError(f"{what} cannot be decoded ({error.err})") from error
    if image is None:
        raise ValueError(f"{what} is neither JPEG nor PNG")
    return image


def _numbers(row: dict[str, Any], column: str, shape: tuple[int, int, int]) -> Float[np.ndarray, "V a b"]:
    try:
        found = np.array([[list(line) for line in matrix] for matrix in row[column]], np.float64)
    except (TypeError, ValueError, KeyError) as error:
        raise ValueError(f"`{column}` are not {shape[1]} x {shape[2]} matrices of numbers ({error})") from error
    if found.shape != shape:
        raise ValueError(f"{shape[0]} views need as many {shape[1]} x {shape[2]} `{column}`, got {found.shape}")
    return found


def _flags(given: Any, views: int) -> Bool[np.ndarray, " V"]:
    if np.shape(given) != (views,):
        raise ValueError(f"{views} crops need as many flags in `present`, got {np.shape(given)}")
    return np.array([bool(flag) for flag in given])


def _given(row: dict[str, Any], column: str, default: Any = None) -> Any:
    """The value of an optional column; pandas fills in NaN where only other rows have one."""
    value = row.get(column)
    return default if value is None or isinstance(value, float) else value
