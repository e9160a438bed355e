"""Contact sheet of samples: one row per sample, one tile per view, joints drawn through the stored cameras."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from jaxtyping import UInt8

from mvpose.datasets.crops import CropConfig, cropped_samples
from mvpose.datasets.sample import Sample
from mvpose.errors import ConfigError, VideoError
from mvpose.report.drawing import dot, stroke

TILE = 256
_LEFT, _RIGHT, _MIDDLE = (255, 140, 0), (0, 190, 255), (230, 230, 230)


def sample_sheet(samples: Sequence[Sample], views: int = 6) -> UInt8[np.ndarray, "H W 3"]:
    """Draw the first `views` views of each sample, cropped if the table has full images. ConfigError for no samples."""
    rows = [_row(s, views) for s in samples if len(s.rig)]
    if not rows:
        raise ConfigError("there are no samples to show.")
    width = max(row.shape[1] for row in rows)
    return np.concatenate([np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows])


def _row(sample: Sample, views: int) -> UInt8[np.ndarray, "h w 3"]:
    if any(image.crop is None for image in sample.images):
        found = next(cropped_samples([sample], CropConfig(side=TILE)), None)
        if found is None:
            return np.zeros((TILE, TILE, 3), np.uint8)
        sample = found
    pixels, _ = sample.rig.project(torch.from_numpy(np.nan_to_num(sample.xyz)))
    return np.concatenate([_tile(sample, v, pixels[v].numpy()) for v in range(min(views, len(sample.rig)))], axis=1)


def _tile(sample: Sample, view: int, pixels: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    data = np.frombuffer(sample.images[view].crop or b"", np.uint8)
    crop = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
    if crop is None:
        raise VideoError(f"the crop of {sample.capture_id}, frame {sample.frame}, is not an image.")
    scale = TILE / max(crop.shape[:2])
    size = (round(crop.shape[1] * scale), round(crop.shape[0] * scale))
    tile = np.zeros((TILE, TILE, 3), np.uint8)
    tile[: size[1], : size[0]] = cv2.resize(crop, size, interpolation=cv2.INTER_AREA)
    points = np.where(sample.visible[view][:, None], (pixels + 0.5) * scale - 0.5, np.nan)
    for start, stop in sample.skeleton.bone_indices:
        stroke(tile, points[start], points[stop], _colour(sample.skeleton.joints[stop]), 2)
    for joint, point in zip(sample.skeleton.joints, points, strict=True):
        dot(tile, point, 2.5, _colour(joint))
    return tile


def _colour(joint: str) -> tuple[int, int, int]:
    return _LEFT if joint.startswith("left_") else _RIGHT if joint.startswith("right_") else _MIDDLE
