"""Camera simulation for rendered images: exposure, blur, noise, JPEG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from mvpose.rendering.renderer import Exposure


@dataclass(frozen=True, eq=False, kw_only=True)
class Sensor:
    """Sensor effects of one camera, apart from its lens."""

    exposure: Exposure
    softness_px: float
    """Standard deviation of its blur, in pixels of the crop."""
    noise: float
    """Standard deviation of noise in dark areas, in steps of 255; about twice as much in bright ones."""
    quality: int
    """JPEG quality, 0 to 100."""


def draw_sensor(rng: np.random.Generator, brightness: Float[np.ndarray, " 3"]) -> Sensor:
    """Draw a camera that adapts to the light with an error; most cameras are good, some are bad."""
    grey = float(brightness.mean())
    # 0.7 of the way to grey under any light, like automatic white balance.
    balance = (grey / brightness) ** 0.7 * np.exp(rng.normal(0.0, 0.05, 3))
    return Sensor(
        exposure=Exposure(
            gain=0.55 * balance / grey * np.exp(rng.normal(0.0, 0.28)), contrast=float(rng.uniform(0.1, 0.8))
        ),
        softness_px=float(rng.uniform(0.0, 0.9)),
        noise=float(rng.gamma(1.6, 1.2)),
        quality=int(rng.integers(60, 96)),
    )


def photograph(
    rng: np.random.Generator,
    images: Sequence[UInt8[np.ndarray, "H W 3"]],
    size: tuple[int, int],
    sensor: Sensor,
    frame: Float[np.ndarray, " 4"],
) -> bytes:
    """A JPEG of `size` (width, height) from higher-resolution images of one exposure, which are averaged.

    `frame` is the camera's whole image in the crop (left, top, right, bottom; pixel areas). Pixels outside are black,
    as in crops from footage.
    """
    light = [cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in images]
    image = np.asarray(np.mean(light, axis=0, dtype=np.float32))
    if sensor.softness_px > 0.3:
        image = cv2.GaussianBlur(image, (0, 0), sensor.softness_px)
    width, height = size
    grain = rng.standard_normal((height, width, 3), dtype=np.float32)
    image += grain * (sensor.noise * np.sqrt(1.0 + image / 80.0))
    out = cv2.convertScaleAbs(np.maximum(image, 0.0, out=image))
    left, top, right, bottom = np.clip(np.round(frame + 0.5), 0, [*size, *size]).astype(int)
    if (left, top, right, bottom) != (0, 0, *size):
        inside = np.zeros_like(out)
        inside[top:bottom, left:right] = out[top:bottom, left:right]
        out = inside
    _, data = cv2.imencode(".jpg", out[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, sensor.quality])
    return data.tobytes()
