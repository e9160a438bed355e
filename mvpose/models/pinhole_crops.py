"""Crops for multi-view networks: lens distortion removed, with the affine map to apply to K."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8

from mvpose.geometry.camera import CameraRig
from mvpose.geometry.lens import LensModel


def crop_about(
    box: Float[np.ndarray, "4"],
    size: tuple[int, int],
    margin: float,
    *,
    turn: float = 0.0,
    zoom: float = 1.0,
    shift: tuple[float, float] = (0.0, 0.0),
) -> Float[np.ndarray, "3 3"]:
    """Map pixels of an image to those of a crop of (width, height) `size`; the camera becomes `map @ K`.

    The crop's centre ((W - 1) / 2, (H - 1) / 2) is the box's, plus a `shift` (right, down) in sides of the crop. The
    crop shows `margin` times the box along its limiting side, `zoom` times as large, rotated about the box's centre
    by `turn` radians (from x to y).
    """
    extent = np.maximum(box[2:] - box[:2], 1.0)
    factor = float((np.array(size) / (margin * extent)).min()) * zoom
    c, s = factor * np.cos(turn), factor * np.sin(turn)
    middle = (np.array(size) - 1.0) / 2.0 + np.array(shift) * np.array(size)
    linear = np.array([[c, -s], [s, c]])
    out = np.eye(3)
    out[:2, :2] = linear
    out[:2, 2] = middle - linear @ ((box[:2] + box[2:]) / 2.0)
    return out


def pinhole_boxes(rig: CameraRig, box: Float[np.ndarray, "V 4"]) -> Float[np.ndarray, "V 4"]:
    """Convert boxes to boxes about the same corners after undistortion; NaN stays NaN."""
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
    """The crop of (width, height) `size` to which `change` maps undistorted pixels of view v; black beyond the image.

    `change` is affine. Undistortion is part of the same bilinear resampling, after averaging if the image is shrunk.
    """
    back = np.linalg.inv(change)
    # Image pixels per crop pixel: from two on, sampling alone would lose thin limbs.
    shrunk = max(int(np.sqrt(abs(np.linalg.det(back[:2, :2]))) + 1e-6), 1)
    if shrunk > 1:
        h, w = (max(side // shrunk, 1) for side in image.shape[:2])
        image = cv2.resize(image[: h * shrunk, : w * shrunk], (w, h), interpolation=cv2.INTER_AREA)
    # A pixel c of the image is (c + 0.5) / shrunk - 0.5 of the shrunk one.
    smaller = np.array([[1 / shrunk, 0, 0.5 / shrunk - 0.5], [0, 1 / shrunk, 0.5 / shrunk - 0.5], [0, 0, 1]])
    if is_pinhole(rig, v):
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(image, (smaller @ back)[:2], size, flags=flags)
    places = _distorted_places(rig, v, back, size) * np.float32(smaller[0, 0]) + np.float32(smaller[0, 2])
    return cv2.remap(image, places[..., 0], places[..., 1], cv2.INTER_LINEAR)


def _distorted_places(
    rig: CameraRig, v: int, image_from_crop: Float[np.ndarray, "3 3"], size: tuple[int, int]
) -> Float[np.ndarray, "H W 2"]:
    """Position in the distorted image of each crop pixel; far outside beyond the lens's valid range."""
    u, w = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    flat = np.stack([u.ravel(), w.ravel()], axis=-1) @ image_from_crop[:2, :2].T + image_from_crop[:2, 2]
    focal, centre = rig.focal[v], rig.centre[v]
    ideal = ((torch.from_numpy(flat) - centre) / focal).float()
    lens = rig.lens.select([v])
    pixels = lens.distort(ideal[None])[0] * focal.float() + centre.float()
    seen = ideal.norm(dim=-1) <= lens.limit().float()
    pixels = torch.where(seen[:, None], pixels, torch.full_like(pixels, -1e6))
    return pixels.reshape(size[1], size[0], 2).numpy()
