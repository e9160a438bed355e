"""Random augmentation of training samples.

Rotating, scaling and shifting a crop changes its camera matrix accordingly and exactly. Mirroring applies to the whole
scene. Colours and occluders change only pixels, dropped views only the mask. All draws come from the given generator.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from mvpose.models.pinhole_crops import Jitter
from mvpose.training.training_config import AugmentationConfig


def drawn_jitter(config: AugmentationConfig, rng: np.random.Generator) -> Jitter:
    """Draw rotation, zoom and shift of a crop."""
    turn, scale, right, down = rng.uniform(-1.0, 1.0, 4)
    return Jitter(
        turn=float(np.radians(config.rotation_degrees * turn)),
        zoom=1.0 + config.scale * float(scale),
        shift=(config.shift * float(right), config.shift * float(down)),
    )


def recoloured(
    crop: UInt8[np.ndarray, "H W 3"], config: AugmentationConfig, rng: np.random.Generator
) -> UInt8[np.ndarray, "H W 3"]:
    """Change brightness, contrast and white balance by a linear function per channel."""
    if not config.colour:
        return crop
    contrast, brightness, *gains = 1.0 + config.colour * rng.uniform(-1.0, 1.0, 5)
    levels = (np.arange(256.0) - 127.5) * contrast + 127.5 * brightness
    table = np.clip(levels[:, None] * np.array(gains) + 0.5, 0, 255).astype(np.uint8)
    return cv2.LUT(crop, table[None])


def covered(
    crop: UInt8[np.ndarray, "H W 3"], config: AugmentationConfig, rng: np.random.Generator
) -> UInt8[np.ndarray, "H W 3"]:
    """Sometimes cover the crop with a rectangle of random texture, from a flat colour to 8 by 8 blurred spots."""
    if rng.random() >= config.occluders:
        return crop
    height, width = crop.shape[:2]
    w, h = (1 + rng.uniform(0.2, 1.0, 2) * config.occluder_side * (width, height)).astype(int)
    left, top = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
    spots = int(rng.integers(1, 9))
    texture = rng.integers(0, 256, (spots, spots, 3)).astype(np.uint8)
    out = crop.copy()
    out[top : top + h, left : left + w] = cv2.resize(texture, (int(w), int(h)), interpolation=cv2.INTER_LINEAR)
    return out


def without_some_views(
    present: Bool[np.ndarray, " V"], config: AugmentationConfig, rng: np.random.Generator
) -> Bool[np.ndarray, " V"]:
    """The mask after dropping random views; `kept_views` of the present views remain, or all if there are fewer."""
    dropped = (rng.random(len(present)) < config.view_dropout) & present
    spare = max(int(present.sum()) - config.kept_views, 0)
    too_many = rng.permutation(np.flatnonzero(dropped))[spare:]
    dropped[too_many] = False
    return present & ~dropped


def mirrored(
    crops: UInt8[np.ndarray, "V 3 H W"],
    projections: Float[np.ndarray, "V 3 4"],
    joints: Float[np.ndarray, "J 3"],
    known: Bool[np.ndarray, " J"],
    twins: Sequence[int],
) -> tuple[UInt8[np.ndarray, "V 3 H W"], Float[np.ndarray, "V 3 4"], Float[np.ndarray, "J 3"], Bool[np.ndarray, " J"]]:
    """Mirror a sample at the world's plane x = 0; `twins` (`Skeleton.mirror`) exchanges left and right.

    With M = diag(-1, 1, 1) and x' = W - 1 - x in the crop (matrix F), K [R | t] becomes F K [R | t] diag(M, 1) =
    (F K M) [M R M | M t]. The camera's x axis flips with the image's, so the rotation stays proper, the focal length
    positive and every depth unchanged. Mirroring twice is the identity.
    """
    flip = np.diag([-1.0, 1.0, 1.0])
    flip[0, 2] = crops.shape[-1] - 1.0
    places = list(twins)
    return (
        crops[..., ::-1].copy(),
        flip @ projections @ np.diag([-1.0, 1.0, 1.0, 1.0]),
        joints[places] * (-1.0, 1.0, 1.0),
        known[places],
    )
