"""Cutting a person out of a picture for a network, and taking its answers back to the picture."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, UInt8

# RTMPose's own rule: the box grows by this factor before it is cut out.
PADDING = 1.25


def crop_from_image(box: Float[np.ndarray, "N 4"], size: tuple[int, int]) -> Float[np.ndarray, "N 2 3"]:
    """Affine maps from pixels of the picture to pixels of the crop, one a box (left, top, right, bottom).

    The box grows by `PADDING` about its centre, then on its shorter side to the aspect ratio of `size` (width, height),
    and is scaled to it; its centre goes to (width, height) / 2. No rotation (RTMPose's rule).
    """
    width, height = size
    centre = (box[:, :2] + box[:, 2:]) / 2
    extent = (box[:, 2:] - box[:, :2]) * PADDING
    scale = width / np.maximum(extent[:, 0], extent[:, 1] * width / height)
    affine = np.zeros((len(box), 2, 3))
    affine[:, 0, 0] = affine[:, 1, 1] = scale
    affine[:, :, 2] = np.array([width / 2, height / 2]) - scale[:, None] * centre
    return affine


def cropped(
    image: UInt8[np.ndarray, "H W 3"], affine: Float[np.ndarray, "2 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "h w 3"]:
    """The picture seen through `affine` at `size` (width, height), bilinear; black where the picture ends."""
    return cv2.warpAffine(image, affine, size, flags=cv2.INTER_LINEAR)


def to_image(xy: Float[np.ndarray, "N J 2"], affine: Float[np.ndarray, "N 2 3"]) -> Float[np.ndarray, "N J 2"]:
    """Positions in crops back to pixels of the pictures they were cut from."""
    scale = affine[:, None, [0, 1], [0, 1]]
    return (xy - affine[:, None, :, 2]) / scale
