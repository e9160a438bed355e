"""Comparison sheet: truth and prediction on the network's input crops, one row per sample, one tile per view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from mvpose.report.drawing import dot, stroke, write_text
from mvpose.report.figures import CASING, LEFT, RGB, RIGHT
from mvpose.skeleton import Skeleton

TILE, CAPTION = 300, 26
TRUTH, PREDICTED = LEFT, RIGHT


@dataclass(frozen=True, eq=False)
class Drawn:
    """One sample to draw."""

    caption: str
    crops: UInt8[np.ndarray, "V H W 3"]
    truth_px: Float[np.ndarray, "V J 2"]
    """Pixels of the crops; NaN points are not drawn."""
    predicted_px: Float[np.ndarray, "V J 2"]
    skeleton: Skeleton


def comparison_sheet(rows: Sequence[Drawn]) -> UInt8[np.ndarray, "H W 3"]:
    """Stack all rows vertically; blue is the truth, orange the prediction."""
    drawn = [_row(row) for row in rows]
    width = max((row.shape[1] for row in drawn), default=TILE)
    padded = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=24) for row in drawn]
    return np.concatenate(padded or [np.zeros((TILE, width, 3), np.uint8)])


def _row(row: Drawn) -> UInt8[np.ndarray, "h w 3"]:
    height, width = row.crops.shape[1:3]
    scale = TILE / max(height, width)
    tiles = []
    for crop, truth, predicted in zip(row.crops, row.truth_px, row.predicted_px, strict=True):
        tile = cv2.resize(crop, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_LINEAR)
        for points, colour in ((truth, TRUTH), (predicted, PREDICTED)):
            _draw(tile, (points + 0.5) * scale - 0.5, row.skeleton, colour)
        tiles.append(tile)
    image = np.concatenate(tiles, axis=1)
    band = np.full((CAPTION, image.shape[1], 3), 24, np.uint8)
    write_text(band, row.caption, 8, CAPTION // 2, 15, (242, 245, 248))
    return np.concatenate([band, image])


def _draw(tile: UInt8[np.ndarray, "h w 3"], points: Float[np.ndarray, "J 2"], skeleton: Skeleton, colour: RGB) -> None:
    for width, tint in ((4, CASING), (2, colour)):
        for start, stop in skeleton.bone_indices:
            stroke(tile, points[start], points[stop], tint, width)
    for point in points:
        dot(tile, point, 2.5, colour)
