"""Undistorted crops for multi-view networks, with the affine map to apply to K."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8

from mvpose.geometry.camera import CameraRig
from mvpose.geometry.lens import LensModel
from mvpose.models.network_settings import CropRule


@dataclass(frozen=True, kw_only=True)
class Jitter:
    """Deviation of a crop from its rule: none by default, otherwise drawn by augmentation."""

    turn: float = 0.0
    """Rotation about the box's centre in radians, from x to y."""
    zoom: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)
    """Right and down, as shares of the crop's sides."""


NO_JITTER = Jitter()


def cut_crops(
    image: Callable[[int], UInt8[np.ndarray, "h w 3"]],
    rig: CameraRig,
    boxes: Float[np.ndarray, "V 4"],
    views: Sequence[int],
    rule: CropRule,
    jitter: Callable[[], Jitter] = lambda: NO_JITTER,
) -> Iterator[tuple[int, UInt8[np.ndarray, "H W 3"], Float[np.ndarray, "3 3"]]]:
    """Yield view, crop and the map of `crop_about` for each view of a person, following a network's rule.

    Used by training, evaluation and the job. `boxes` enclose the joints in pixels of the distorted images. `image`
    returns the image of a view, `jitter` the deviation of the next crop.
    """
    pinhole = pinhole_boxes(rig, boxes)
    for v in views:
        change = crop_about(pinhole[v], rule, jitter())
        yield v, pinhole_crop(image(v), rig, v, change, rule.size), change


def crop_about(box: Float[np.ndarray, "4"], rule: CropRule, jitter: Jitter = NO_JITTER) -> Float[np.ndarray, "3 3"]:
    """The map from undistorted image pixels to pixels of the crop defined by `rule`; the camera becomes `map @ K`.

    The crop's centre ((W - 1) / 2, (H - 1) / 2) is the centre of the box, apart from the jitter's shift.
    """
    size, extent = np.array(rule.size), np.maximum(box[2:] - box[:2], 1.0)
    factor = float((size / (rule.margin * extent)).min()) * jitter.zoom
    c, s = factor * np.cos(jitter.turn), factor * np.sin(jitter.turn)
    middle = (size - 1.0) / 2.0 + np.array(jitter.shift) * size
    linear = np.array([[c, -s], [s, c]])
    out = np.eye(3)
    out[:2, :2] = linear
    out[:2, 2] = middle - linear @ ((box[:2] + box[2:]) / 2.0)
    return out


def pinhole_boxes(rig: CameraRig, box: Float[np.ndarray, "V 4"]) -> Float[np.ndarray, "V 4"]:
    """Convert boxes to the boxes that enclose their undistorted corners; NaN stays NaN."""
    if all(is_pinhole(rig, v) for v in range(len(rig))):
        return box
    corners = torch.from_numpy(np.nan_to_num(box)[:, [[0, 1], [2, 1], [2, 3], [0, 3]]])
    straight = rig.to(torch.float64).undistorted(corners)[0].numpy()
    straight = np.where(np.isfinite(box[:, :1, None]), straight, np.nan)
    return np.concatenate([straight.min(axis=1), straight.max(axis=1)], axis=-1)


def is_pinhole(rig: CameraRig, v: int) -> bool:
    """Whether a camera has no lens distortion."""
    return rig.lens.models[v] != LensModel.KANNALA_BRANDT and not bool(rig.lens.coefficients[v].any())


def pinhole_crop(
    image: UInt8[np.ndarray, "h w 3"],
    rig: CameraRig,
    v: int,
    change: Float[np.ndarray, "3 3"],
    size: tuple[int, int],
) -> UInt8[np.ndarray, "H W 3"]:
    """The crop of (width, height) `size` to which `change` maps undistorted pixels of view v; black outside the image.

    `change` is affine. Undistortion and cropping are one bilinear resampling, after averaging if the image is shrunk.
    """
    if is_pinhole(rig, v):
        return affine_crop(image, change, size)
    back = np.linalg.inv(change)
    image, smaller = _averaged(image, back)
    places = _distorted_places(rig, v, back, size) * np.float32(smaller[0, 0]) + np.float32(smaller[0, 2])
    return cv2.remap(image, places[..., 0], places[..., 1], cv2.INTER_LINEAR)


def affine_crop(
    image: UInt8[np.ndarray, "h w 3"], change: Float[np.ndarray, "3 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "H W 3"]:
    """The same of an image without lens distortion, or whose distortion stays."""
    back = np.linalg.inv(change)
    image, smaller = _averaged(image, back)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, (smaller @ back)[:2], size, flags=flags)


def _averaged(
    image: UInt8[np.ndarray, "h w 3"], image_from_crop: Float[np.ndarray, "3 3"]
) -> tuple[UInt8[np.ndarray, "_ _ 3"], Float[np.ndarray, "3 3"]]:
    """The image shrunk by a whole number as the crop needs it, and the map of its pixels to those of the shrunk one."""
    # Image pixels per crop pixel. From two upwards, sampling without averaging would lose thin limbs.
    shrunk = max(int(np.sqrt(abs(np.linalg.det(image_from_crop[:2, :2]))) + 1e-6), 1)
    if shrunk > 1:
        h, w = (max(side // shrunk, 1) for side in image.shape[:2])
        image = cv2.resize(image[: h * shrunk, : w * shrunk], (w, h), interpolation=cv2.INTER_AREA)
    # Pixel c of the image is pixel (c + 0.5) / shrunk - 0.5 of the shrunk image.
    return image, np.array([[1 / shrunk, 0, 0.5 / shrunk - 0.5], [0, 1 / shrunk, 0.5 / shrunk - 0.5], [0, 0, 1]])


def _distorted_places(
    rig: CameraRig, v: int, image_from_crop: Float[np.ndarray, "3 3"], size: tuple[int, int]
) -> Float[np.ndarray, "H W 2"]:
    """Position of each crop pixel in the distorted image; far outside the image beyond the lens's valid range."""
    u, w = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    flat = np.stack([u.ravel(), w.ravel()], axis=-1) @ image_from_crop[:2, :2].T + image_from_crop[:2, 2]
    focal, centre = rig.focal[v], rig.centre[v]
    ideal = ((torch.from_numpy(flat) - centre) / focal).float()
    lens = rig.lens.select([v])
    pixels = lens.distort(ideal[None])[0] * focal.float() + centre.float()
    seen = ideal.norm(dim=-1) <= lens.limit().float()
    pixels = torch.where(seen[:, None], pixels, torch.full_like(pixels, -1e6))
    return pixels.reshape(size[1], size[0], 2).numpy()
