"""Images as decoders leave them, and cutting from them: only what is cut out is converted to RGB.

Converting a whole 1080p frame takes 2.5 to 3.8 ms, as long as decoding it, and most of it is never looked at; a crop of
192 x 256 pixels out of the planes takes 0.15 ms longer than out of RGB (one core).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8


@dataclass(frozen=True, eq=False)
class Planes:
    """An image of even width and height in 8-bit YCbCr with chroma of half its size (4:2:0)."""

    luma: UInt8[np.ndarray, "H W"]
    blue: UInt8[np.ndarray, "h w"]
    red: UInt8[np.ndarray, "h w"]
    conversion: Float[np.ndarray, "3 4"]
    """RGB from (luma, blue, red, 1)."""
    black: int
    """The luma of black."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, 3), as for the RGB image."""
        return (*self.luma.shape, 3)

    def rgb(self) -> UInt8[np.ndarray, "H W 3"]:
        """The whole image in RGB."""
        blue, red = (np.repeat(np.repeat(plane, 2, axis=0), 2, axis=1) for plane in (self.blue, self.red))
        return self.converted(self.luma, blue, red)

    def converted(
        self, luma: UInt8[np.ndarray, "h w"], blue: UInt8[np.ndarray, "h w"], red: UInt8[np.ndarray, "h w"]
    ) -> UInt8[np.ndarray, "h w 3"]:
        """RGB of what was cut from the planes, all of one size."""
        return cv2.transform(cv2.merge([luma, blue, red]), self.conversion)


Image = UInt8[np.ndarray, "_ _ 3"] | Planes
"""RGB, or as decoded."""


def conversion(red: float, blue: float, *, full_range: bool) -> Float[np.ndarray, "3 4"]:
    """RGB from (luma, blue, red, 1), by the weights of red and blue in luma (ITU-R BT.601: 0.299 and 0.114).

    Values are 16 .. 235 for luma and 16 .. 240 for chroma, or 0 .. 255 in `full_range`.
    """
    green = 1 - red - blue
    luma_step, chroma_step, start = (1.0, 1.0, 0.0) if full_range else (255 / 219, 255 / 224, 16.0)
    of_red, of_blue = 2 * (1 - red) * chroma_step, 2 * (1 - blue) * chroma_step
    linear = np.array(
        [
            [luma_step, 0.0, of_red],
            [luma_step, -of_blue * blue / green, -of_red * red / green],
            [luma_step, of_blue, 0.0],
        ]
    )
    return np.column_stack([linear, linear @ np.array([-start, -128.0, -128.0])])


def to_rgb(image: Image) -> UInt8[np.ndarray, "H W 3"]:
    """The whole image in RGB."""
    return image.rgb() if isinstance(image, Planes) else image


def warped(image: Image, affine: Float[np.ndarray, "2 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """RGB of `size` (width, height), warped through `affine` (image to result), bilinear; black beyond the edge."""
    if not isinstance(image, Planes):
        return cv2.warpAffine(image, affine, size, flags=cv2.INTER_LINEAR)
    # A chroma sample is in the middle of its 2 x 2 pixels: pixel coordinates are 2 c + 0.5.
    of_chroma = np.column_stack([affine[:, :2] * 2, affine[:, 2] + affine[:, :2].sum(axis=1) / 2])
    luma = cv2.warpAffine(image.luma, affine, size, flags=cv2.INTER_LINEAR, borderValue=(image.black,))
    blue, red = (
        cv2.warpAffine(plane, of_chroma, size, flags=cv2.INTER_LINEAR, borderValue=(128,))
        for plane in (image.blue, image.red)
    )
    return image.converted(luma, blue, red)


def resized(image: Image, size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """RGB of `size` (width, height), bilinear."""
    if not isinstance(image, Planes):
        return cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    planes = (image.luma, image.blue, image.red)
    return image.converted(*(cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in planes))
