"""Layout of all cameras' images in one canvas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8


@dataclass(frozen=True)
class Region:
    """A rectangle in whole pixels: left, top, width, height."""

    left: int
    top: int
    width: int
    height: int

    def cut(self, image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """The region of an image, as a view."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]


@dataclass(frozen=True)
class Mosaic:
    """Layout of a canvas of `size` (width, height): `shown[v]` of camera v's image is drawn at `tiles[v]`."""

    size: tuple[int, int]
    shown: tuple[Region, ...]
    tiles: tuple[Region, ...]

    def to_tile(self, view: int, pixels: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """Map pixels of a camera's image to pixels of its tile; pixel centres are integers in both."""
        shown, tile = self.shown[view], self.tiles[view]
        scale = np.array([tile.width / shown.width, tile.height / shown.height])
        return (pixels - np.array([shown.left, shown.top]) + 0.5) * scale - 0.5

    def paste(self, canvas: UInt8[np.ndarray, "H W 3"], view: int, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """Scale a camera's image into its tile of the canvas."""
        tile = self.tiles[view]
        part = self.shown[view].cut(image)
        shrinks = tile.width <= part.shape[1]
        method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        tile.cut(canvas)[:] = cv2.resize(part, (tile.width, tile.height), interpolation=method)


def lay_out(
    shown: Sequence[Region],
    limit: tuple[int, int],
    header: int = 0,
    largest_scale: float = 1.0,
    gap: int = 4,
    narrowest: int = 0,
) -> Mosaic:
    """Return the grid that shows the parts `shown` of all images at the largest scale within `limit` (width, height).

    Cells are equal; an image of another shape is centred in its cell. The top `header` rows are left free. The
    canvas has even sides, because H.264 halves the chroma resolution, and is no larger than needed, but `narrowest`
    columns wide.
    """
    columns, _ = max(
        ((n, _scale_of_grid(shown, limit, header, n, gap)) for n in range(1, len(shown) + 1)), key=lambda c: c[1]
    )
    rows = math.ceil(len(shown) / columns)
    room = ((limit[0] - gap * (columns - 1)) // columns, (limit[1] - header - gap * (rows - 1)) // rows)
    sizes = [_fitted(region, room, largest_scale) for region in shown]
    cell = (max(w for w, _ in sizes), max(h for _, h in sizes))
    across = columns * (cell[0] + gap) - gap
    margin, tiles = max(0, narrowest - across) // 2, []
    for i, (width, height) in enumerate(sizes):
        left = margin + (i % columns) * (cell[0] + gap) + (cell[0] - width) // 2
        top = header + (i // columns) * (cell[1] + gap) + (cell[1] - height) // 2
        tiles.append(Region(left, top, width, height))
    full = (max(across, narrowest), header + rows * (cell[1] + gap) - gap)
    return Mosaic((full[0] + full[0] % 2, full[1] + full[1] % 2), tuple(shown), tuple(tiles))


def _scale_of_grid(shown: Sequence[Region], limit: tuple[int, int], header: int, columns: int, gap: int) -> float:
    """Smallest image scale in a grid of `columns` columns."""
    rows = math.ceil(len(shown) / columns)
    width = (limit[0] - gap * (columns - 1)) / columns
    height = (limit[1] - header - gap * (rows - 1)) / rows
    return min(min(width / region.width, height / region.height) for region in shown)


def _fitted(region: Region, room: tuple[int, int], largest_scale: float) -> tuple[int, int]:
    scale = min(room[0] / region.width, room[1] / region.height, largest_scale)
    return max(1, round(region.width * scale)), max(1, round(region.height * scale))
