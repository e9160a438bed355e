"""How a 2D detector errs, told without pixels: offsets, swaps of left and right, misses, by joint and side seen.

What a joint's error is drawn from depends on which of its sides the torso turns to the camera, and on whether the joint
is to be seen. Joints of the right are told as mirror images of those of the left, x turned round, so both add to one
figure. Offsets are in sides of the box about the joints: a bias, and about it a bivariate Student t, whose tail is that
of a detector (a Gaussian of the same median has no error of half a box). Confidence falls where the error is large: a
Gaussian copula links the two. `mvpose.datasets.noise_measurement` fits all of it; what comes with mvpose is in
`detector_noise.json`, which says what it was fitted to.

Joints are drawn independently, in each frame anew: things that hide a whole leg, and errors that last, are not told.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib.resources import files
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import ndtr

from mvpose.skeleton import Skeleton

FRONT, BACK, NEAR, FAR = range(4)
"""What a camera sees of the torso; from the side, whether the joint is of that side. Middle joints are never FAR."""
SEEN, HIDDEN = range(2)
LEVELS = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0)
"""Quantiles by which a distribution of confidence is told."""
LARGEST = 0.6
"""Sides of the box: a joint further off is not that person's. The tail ends here."""
SEEN_BINS = (1 / 3, 2 / 3)
"""Shares of joints to be seen, between which the chance to lose the whole person changes."""
_TORSO = ("left_hip", "right_hip", "left_shoulder", "right_shoulder")


@dataclass(frozen=True, eq=False, kw_only=True)
class DetectorNoise:
    """Errors of a detector. Axes: P parts; 4 aspects (front, back, near, far) or 3 (front, back, side); seen or not."""

    source: str
    """Detector, data, number of views and date of the measurement."""
    parts: tuple[str, ...]
    """Joints, those of the right counted with the left."""
    hidden: Float[np.ndarray, "P 4"]
    """How often something is before the joint."""
    bias: Float[np.ndarray, "P 4 2 2"]
    """Sides of the box, x of a left joint to the right."""
    scale: Float[np.ndarray, "P 4 2"]
    """Of the Student t, in sides of the box."""
    tail: Float[np.ndarray, "P 4 2"]
    """Its degrees of freedom: the fewer, the heavier."""
    confidence: Float[np.ndarray, "P 4 2 9"]
    """At the quantiles of `LEVELS`."""
    link: Float[np.ndarray, " 2"]
    """Correlation between error and confidence as normal scores: below 0."""
    swapped: Float[np.ndarray, "P 3"]
    """How often a pair is told the wrong way round in a person who otherwise is not."""
    turned: Float[np.ndarray, " 3"]
    """How often all of a person is."""
    lost: Float[np.ndarray, "3 3"]
    """How often the person is not found, by aspect and by the share of joints to be seen, in `SEEN_BINS`."""

    def to_json(self) -> str:
        """One field a line."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        lines = (
            f' "{k}": {json.dumps(v.round(4).tolist() if isinstance(v, np.ndarray) else v)}' for k, v in values.items()
        )
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, text: str) -> DetectorNoise:
        """What `to_json` wrote, to its four decimals."""
        values: dict[str, Any] = json.loads(text)
        source, parts = values.pop("source"), tuple(values.pop("parts"))
        return cls(source=source, parts=parts, **{name: np.array(value, np.float64) for name, value in values.items()})


@dataclass(frozen=True, eq=False)
class Detections:
    """2D joints as a detector would tell them. What is missed is NaN, and its confidence 0."""

    xy: Float[np.ndarray, "n J 2"]
    confidence: Float[np.ndarray, "n J"]


@lru_cache(maxsize=1)
def measured_noise() -> DetectorNoise:
    """The errors of the detector that comes with mvpose."""
    return DetectorNoise.from_json((files("mvpose.datasets") / "detector_noise.json").read_text(encoding="utf-8"))


def view_angle(xyz_camera: Float[np.ndarray, "n J 3"], skeleton: Skeleton) -> Float[np.ndarray, " n"]:
    """Where the camera stands about the torso, radians: 0 before it, pi / 2 to its left, pi behind it.

    Joints in the axes of the camera; ValueError where the skeleton lacks hips or shoulders.
    """
    left_hip, right_hip, left_shoulder, right_shoulder = np.moveaxis(xyz_camera[:, skeleton.indices(*_TORSO)], 1, 0)
    left = left_hip + left_shoulder - right_hip - right_shoulder
    up = left_shoulder + right_shoulder - left_hip - right_hip
    forward = np.cross(left, up)
    to_camera = -(left_hip + right_hip + left_shoulder + right_shoulder) / 4
    # `left` need not be at right angles to `up`, but `forward` is to both.
    sideways = np.cross(up, forward)
    along = [(to_camera * axis).sum(-1) / np.linalg.norm(axis, axis=-1) for axis in (sideways, forward)]
    return np.arctan2(along[0], along[1])


def aspects(
    angle: Float[np.ndarray, " n"], skeleton: Skeleton
) -> tuple[Int[np.ndarray, "n J"], Float[np.ndarray, "n J"]]:
    """FRONT, BACK, NEAR or FAR for each joint, and the sign of its x: -1 where it is told as its mirror image."""
    right = np.array([joint.startswith("right_") for joint in skeleton.joints])
    paired = np.array([joint.startswith(("left_", "right_")) for joint in skeleton.joints])
    sign = np.where(paired, np.where(right, -1.0, 1.0), np.where(angle < 0, -1.0, 1.0)[:, None])
    own = angle[:, None] * sign
    side = np.where(own > 0, NEAR, FAR)
    return np.select([np.abs(own) < np.pi / 4, np.abs(own) > 3 * np.pi / 4], [FRONT, BACK], side), sign


def part_of(joint: str) -> str:
    """The name that a joint and its mirror image share."""
    return joint.replace("right_", "left_")


def of_person(aspect: Int[np.ndarray, "*n"]) -> Int[np.ndarray, "*n"]:
    """FRONT, BACK, or 2 for either side: where a figure is of the person and not of a joint."""
    return np.minimum(aspect, NEAR)


def draw_detections(
    noise: DetectorNoise,
    pixels: Float[np.ndarray, "n J 2"],
    xyz_camera: Float[np.ndarray, "n J 3"],
    inside: Bool[np.ndarray, "n J"],
    skeleton: Skeleton,
    rng: np.random.Generator,
    min_confidence: float = 0.3,
) -> Detections:
    """What the detector would say of n views of a person whose joints are at `pixels` (of any scale).

    A joint is missed where the person is, where it is not `inside` the image, where its confidence falls below
    `min_confidence` (0.3 is what reconstruction asks for), and where the detector has no such joint.
    """
    measured = np.array([part_of(joint) in noise.parts for joint in skeleton.joints])
    part = np.array([noise.parts.index(part_of(j)) if m else 0 for j, m in zip(skeleton.joints, measured, strict=True)])
    aspect, sign = aspects(view_angle(xyz_camera, skeleton), skeleton)
    person = of_person(aspect[:, skeleton.index("left_hip")])
    state = np.where(rng.random(aspect.shape) < noise.hidden[part, aspect], HIDDEN, SEEN)
    cell = (part, aspect, state)
    normal, other = rng.standard_normal((2, *aspect.shape))
    link = noise.link[state]
    confidence = _quantile(noise.confidence[cell], ndtr(link * normal + np.sqrt(1 - link**2) * other))
    radius = t_radius(ndtr(normal), noise.scale[cell], noise.tail[cell])
    direction = rng.uniform(0, 2 * np.pi, aspect.shape)
    offset = noise.bias[cell] + radius[..., None] * np.stack([np.cos(direction), np.sin(direction)], axis=-1)
    offset[..., 0] *= sign

    mirror = np.array(skeleton.mirror)
    pair = rng.random(aspect.shape) < noise.swapped[part, person[:, None]]
    crossed = (
        pair[:, np.minimum(mirror, np.arange(len(mirror)))] ^ (rng.random(len(aspect)) < noise.turned[person])[:, None]
    )
    place = np.where(crossed[..., None], pixels[:, mirror], pixels)
    xy = place + offset * box_side(pixels, inside)[:, None, None]

    share = ((state == SEEN) & inside & measured).sum(axis=1) / max(measured.sum(), 1)
    lost = rng.random(len(aspect)) < noise.lost[person, np.digitize(share, SEEN_BINS)]
    values = ~lost[:, None] & inside & measured & (confidence >= min_confidence)
    return Detections(np.where(values[..., None], xy, np.nan), np.where(values, confidence, 0.0))


def box_side(pixels: Float[np.ndarray, "n J 2"], inside: Bool[np.ndarray, "n J"]) -> Float[np.ndarray, " n"]:
    """The longer side of the box about the joints on the image; 0 where there are none."""
    low = np.where(inside[..., None], pixels, np.inf).min(axis=1)
    high = np.where(inside[..., None], pixels, -np.inf).max(axis=1)
    return np.maximum((high - low).max(axis=-1), 0.0)


def t_radius(
    share: Float[np.ndarray, "*n"], scale: Float[np.ndarray, "*n"], tail: Float[np.ndarray, "*n"]
) -> Float[np.ndarray, "*n"]:
    """Length of a bivariate Student t vector below which `share` of them lie, cut off at `LARGEST`.

    P(length > r) = (1 + r^2 / (tail scale^2))^(-tail / 2).
    """
    whole = 1 - (1 + LARGEST**2 / (tail * scale**2)) ** (-tail / 2)
    return scale * np.sqrt(tail * ((1 - share * whole) ** (-2 / tail) - 1))


def _quantile(levels: Float[np.ndarray, "n J 9"], share: Float[np.ndarray, "n J"]) -> Float[np.ndarray, "n J"]:
    """Linear between the levels, each row having its own."""
    above = np.clip(np.searchsorted(LEVELS, share), 1, len(LEVELS) - 1)
    at = np.array(LEVELS)
    low, high = (np.take_along_axis(levels, i[..., None], -1)[..., 0] for i in (above - 1, above))
    return low + (high - low) * (share - at[above - 1]) / (at[above] - at[above - 1])
