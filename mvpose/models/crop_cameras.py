"""Cameras of crops that were cut from distorted images without undistorting them.

A network that takes RTMPose's own crop needs a matrix for it. Over the box of one person a lens is close to a
homography, so the camera of the crop is the crop's affine map, this homography, and the pinhole camera. On the demo
footage the largest error within a person's box is 0.15 px of a crop of 256 px (0.6 px of the image); an affine map in
place of the homography has 0.32 px.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mvpose.geometry.camera import CameraRig

GRID = 5
"""Points along each side of a box at which the homography is fitted."""
MIN_POINTS = 9
"""Minimum number of these points within the valid range of the lens; a box with fewer gets no homography."""


def crop_projections(
    rig: CameraRig, boxes: Float[np.ndarray, "V N 4"], crop_from_image: Float[np.ndarray, "V N 2 3"]
) -> Float[Tensor, "V N 3 4"]:
    """Matrices from the world (metres) to pixels of crops, cut from the distorted images about N boxes in each view.

    Boxes are left, top, right, bottom in pixels. Where the lens is not invertible over most of a box, the lens is
    ignored. Float64.
    """
    rig = rig.to(torch.float64)
    bent = _homographies(rig, torch.from_numpy(np.asarray(boxes, np.float64)))
    crop = torch.eye(3, dtype=torch.float64).repeat(*boxes.shape[:2], 1, 1)
    crop[..., :2, :] = torch.from_numpy(crop_from_image)
    return crop @ bent @ rig.projections[:, None]


def _homographies(rig: CameraRig, boxes: Float[Tensor, "V N 4"]) -> Float[Tensor, "V N 3 3"]:
    """Undistorted to distorted pixels, by least squares over a grid in each box."""
    side = torch.linspace(0, 1, GRID, dtype=boxes.dtype)
    share = torch.stack(torch.meshgrid(side, side, indexing="xy"), dim=-1).flatten(0, 1)
    low, high = boxes[..., None, :2], boxes[..., None, 2:]
    image = low + share * (high - low)
    plane, valid = rig.undistorted(image)
    enough = valid.sum(dim=-1) >= MIN_POINTS
    unit = (high - low).amax(dim=-1, keepdim=True).clamp_min(1.0) / 2
    middle = (low + high) / 2
    solved = _fitted((plane - middle) / unit, (image - middle) / unit, valid)
    pixels = _scaling(unit[..., 0, 0], middle[..., 0, :])
    bent = pixels @ solved @ torch.linalg.inv(pixels)
    return torch.where(enough[..., None, None], bent, torch.eye(3, dtype=boxes.dtype))


def _fitted(
    source: Float[Tensor, "V N g 2"], target: Float[Tensor, "V N g 2"], valid: Bool[Tensor, "V N g"]
) -> Float[Tensor, "V N 3 3"]:
    """Homographies from source to target, whose last number is 1. Coordinates are about 1."""
    point = torch.cat([source, torch.ones_like(source[..., :1])], dim=-1)
    none = torch.zeros_like(point)
    x = torch.cat([point, none, -target[..., :1] * source], dim=-1)
    y = torch.cat([none, point, -target[..., 1:] * source], dim=-1)
    seen = valid[..., None].to(source)
    # Where the lens is not invertible, source is undefined.
    rows = torch.where(torch.cat([valid, valid], dim=-1)[..., None], torch.cat([x, y], dim=-2), 0.0)
    wanted = torch.cat([target[..., :1] * seen, target[..., 1:] * seen], dim=-2)
    normal = rows.transpose(-1, -2) @ rows + 1e-12 * torch.eye(8, dtype=source.dtype)
    found = torch.linalg.solve(normal, rows.transpose(-1, -2) @ wanted)[..., 0]
    return torch.cat([found, torch.ones_like(found[..., :1])], dim=-1).unflatten(-1, (3, 3))


def _scaling(unit: Float[Tensor, "V N"], middle: Float[Tensor, "V N 2"]) -> Float[Tensor, "V N 3 3"]:
    """From coordinates about `middle` in `unit` to pixels."""
    out = torch.diag_embed(torch.stack([unit, unit, torch.ones_like(unit)], dim=-1))
    out[..., :2, 2] = middle
    return out
