"""Anti-aliased strokes, rings and text on RGB images, at sub-pixel positions."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from mvpose.report.figures import CASING, RGB

# OpenCV takes fixed-point coordinates: 4 fractional bits are 1/16 px.
PLACES = 4
# Points farther away than this many image sizes are not drawn: fixed-point coordinates end at 2^31.
MAX_IMAGE_DISTANCE = 10


def stroke(
    image: UInt8[np.ndarray, "H W 3"], start: Float[np.ndarray, 2], stop: Float[np.ndarray, 2], colour: RGB, width: int
) -> None:
    """A line with round ends between two pixels; nothing if an end is NaN or far outside."""
    if _drawable(image, start) and _drawable(image, stop):
        cv2.line(image, _fixed(start), _fixed(stop), colour, width, cv2.LINE_AA, PLACES)


def dot(image: UInt8[np.ndarray, "H W 3"], centre: Float[np.ndarray, 2], radius: float, colour: RGB) -> None:
    """A filled disc."""
    if _drawable(image, centre):
        cv2.circle(image, _fixed(centre), round(radius * 2**PLACES), colour, cv2.FILLED, cv2.LINE_AA, PLACES)


def ring(image: UInt8[np.ndarray, "H W 3"], centre: Float[np.ndarray, 2], radius: float, colour: RGB) -> None:
    """A hollow circle, one pixel thick over a dark casing."""
    if _drawable(image, centre):
        for tint, thickness in ((CASING, 2), (colour, 1)):
            cv2.circle(image, _fixed(centre), round(radius * 2**PLACES), tint, thickness, cv2.LINE_AA, PLACES)


def cross(image: UInt8[np.ndarray, "H W 3"], centre: Float[np.ndarray, 2], radius: float, colour: RGB) -> None:
    """A diagonal cross over a dark casing."""
    arms = radius * np.array([[1.0, 1.0], [1.0, -1.0]])
    for tint, thickness in ((CASING, 3), (colour, 1)):
        for arm in arms:
            stroke(image, centre - arm, centre + arm, tint, thickness)


def text_width(text: str, size: int) -> int:
    """Width in pixels of one line of text."""
    return int(cv2.getTextSize((1, 1), _one_line(text), (0, 0), _font(), size, 500)[2])


def write_text(image: UInt8[np.ndarray, "H W 3"], text: str, left: int, middle: int, size: int, colour: RGB) -> int:
    """Write one line of text, centred on row `middle` and cut at the image's edge; returns the column of its end."""
    line = _one_line(text)
    while line and left + text_width(line, size) > image.shape[1]:
        line = line[:-2].rstrip() + "…" if len(line) > 2 else ""
    if not line:
        return left
    baseline = middle + round(0.36 * size)
    (stop, _), _ = cv2.putText(image, line, (left, baseline), colour, _font(), size, 500)
    return int(stop)


def shade(image: UInt8[np.ndarray, "H W 3"], colour: RGB, opacity: float) -> None:
    """Blend a part of an image towards a colour, in place."""
    image[:] = np.rint(image * (1.0 - opacity) + np.array(colour) * opacity).astype(np.uint8)


def _one_line(text: str) -> str:
    return " ".join(text[:200].split())


@cache
def _font() -> cv2.FontFace:
    return cv2.FontFace("sans")


def _drawable(image: UInt8[np.ndarray, "H W 3"], point: Float[np.ndarray, 2]) -> bool:
    return bool(np.isfinite(point).all() and np.abs(point).max() < MAX_IMAGE_DISTANCE * max(image.shape))


def _fixed(point: Float[np.ndarray, 2]) -> tuple[int, int]:
    return round(float(point[0]) * 2**PLACES), round(float(point[1]) * 2**PLACES)
