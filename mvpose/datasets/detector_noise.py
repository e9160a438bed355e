"""Statistical model of 2D detector errors, without pixels: offsets, left/right swaps and misses by joint and aspect.

The error of a joint depends on the aspect, which is the side that the torso turns to the camera, and on whether the
joint is visible. Joints on the right are mirrored (x negated) and pooled with those on the left. Offsets are relative
to the side of the box about the joints: a bias plus a bivariate Student t, whose tail matches that of a detector (a
Gaussian with the same median has no error of half a box). Confidence falls with the error: a Gaussian copula
links the two. `mvpose.datasets.noise_measurement` fits all parameters; those shipped with mvpose are in
`detector_noise.json`, which states their source.

Joints are drawn independently in each frame: occlusion of a whole leg and persistent errors are not modelled.
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
"""Side of the torso that the camera sees; from the side, whether the joint is on it. Middle joints are never FAR."""
SEEN, HIDDEN = range(2)
LEVELS = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0)
"""Quantiles that represent a distribution of confidence."""
LARGEST = 0.6
"""Maximum error relative to the box side: a more distant joint belongs to another person. Truncates the tail."""
SEEN_BINS = (1 / 3, 2 / 3)
"""Shares of visible joints at which the probability of losing the whole person changes."""
_TORSO = ("left_hip", "right_hip", "left_shoulder", "right_shoulder")


@dataclass(frozen=True, eq=False, kw_only=True)
class DetectorNoise:
    """Errors of a detector. Axes: P parts; 4 aspects (front, back, near, far) or 3 (front, back, side); visibility."""

    source: str
    """Detector, data, number of views and date of the measurement."""
    parts: tuple[str, ...]
    """Joints; right joints are pooled with left ones."""
    hidden: Float[np.ndarray, "P 4"]
    """Probability that the joint is occluded."""
    bias: Float[np.ndarray, "P 4 2 2"]
    """Bias relative to the box side, with x of a left joint to the right."""
    scale: Float[np.ndarray, "P 4 2"]
    """Scale of the Student t, relative to the box side."""
    tail: Float[np.ndarray, "P 4 2"]
    """Degrees of freedom of the Student t: a smaller number is a heavier tail."""
    confidence: Float[np.ndarray, "P 4 2 9"]
    """Confidence at the quantiles of `LEVELS`."""
    link: Float[np.ndarray, " 2"]
    """Correlation of error and confidence as normal scores; negative."""
    swapped: Float[np.ndarray, "P 3"]
    """Probability that a left/right pair is swapped in a person who is not swapped as a whole."""
    turned: Float[np.ndarray, " 3"]
    """Probability that the whole person is swapped."""
    lost: Float[np.ndarray, "3 3"]
    """Probability that the person is missed, by aspect and by share of visible joints, in `SEEN_BINS`."""

    def to_json(self) -> str:
        """Serialise with one field per line."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        lines = (
            f' "{k}": {json.dumps(v.round(4).tolist() if isinstance(v, np.ndarray) else v)}' for k, v in values.items()
        )
        return "{\n" + ",\n".join(lines) + "\n}\n"

    @classmethod
    def from_json(cls, text: str) -> DetectorNoise:
        """Parse the output of `to_json`, rounded to four decimals."""
        values: dict[str, Any] = json.loads(text)
        source, parts = values.pop("source"), tuple(values.pop("parts"))
        return cls(source=source, parts=parts, **{name: np.array(value, np.float64) for name, value in values.items()})


@dataclass(frozen=True, eq=False)
class Detections:
    """2D joints as a detector would report them. A missed joint is NaN with confidence 0."""

    xy: Float[np.ndarray, "n J 2"]
    confidence: Float[np.ndarray, "n J"]


@lru_cache(maxsize=1)
def measured_noise() -> DetectorNoise:
    """The error model of the detector shipped with mvpose."""
    return DetectorNoise.from_json((files("mvpose.datasets") / "detector_noise.json").read_text(encoding="utf-8"))


def view_angle(xyz_camera: Float[np.ndarray, "n J 3"], skeleton: Skeleton) -> Float[np.ndarray, " n"]:
    """Direction of the camera from the torso in radians: 0 in front, pi / 2 to its left, pi behind it.

    Joints are in camera axes. ValueError if the skeleton lacks hips or shoulders.
    """
    left_hip, right_hip, left_shoulder, right_shoulder = np.moveaxis(xyz_camera[:, skeleton.indices(*_TORSO)], 1, 0)
    left = left_hip + left_shoulder - right_hip - right_shoulder
    up = left_shoulder + right_shoulder - left_hip - right_hip
    forward = np.cross(left, up)
    to_camera = -(left_hip + right_hip + left_shoulder + right_shoulder) / 4
    # `left` need not be perpendicular to `up`, but `forward` is perpendicular to both.
    sideways = np.cross(up, forward)
    along = [(to_camera * axis).sum(-1) / np.linalg.norm(axis, axis=-1) for axis in (sideways, forward)]
    return np.arctan2(along[0], along[1])


def aspects(
    angle: Float[np.ndarray, " n"], skeleton: Skeleton
) -> tuple[Int[np.ndarray, "n J"], Float[np.ndarray, "n J"]]:
    """FRONT, BACK, NEAR or FAR for each joint, and the sign of its x: -1 if it is mirrored."""
    right = np.array([joint.startswith("right_") for joint in skeleton.joints])
    paired = np.array([joint.startswith(("left_", "right_")) for joint in skeleton.joints])
    sign = np.where(paired, np.where(right, -1.0, 1.0), np.where(angle < 0, -1.0, 1.0)[:, None])
    own = angle[:, None] * sign
    side = np.where(own > 0, NEAR, FAR)
    return np.select([np.abs(own) < np.pi / 4, np.abs(own) > 3 * np.pi / 4], [FRONT, BACK], side), sign


def part_of(joint: str) -> str:
    """Common name of a joint and its mirror image."""
    return joint.replace("right_", "left_")


def of_person(aspect: Int[np.ndarray, "*n"]) -> Int[np.ndarray, "*n"]:
    """FRONT, BACK, or 2 for either side: the aspect of the person, not of a joint."""
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
    """Draw detections of n views of a person whose joints are at `pixels` (at any scale).

    A joint is missed if the person is missed, if it is not `inside` the image, if its confidence is below
    `min_confidence` (as stated by the detector; reconstruction uses likelihoods), or if the detector lacks this joint.
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
    """The longer side of the box about the joints in the image; 0 without joints."""
    low = np.where(inside[..., None], pixels, np.inf).min(axis=1)
    high = np.where(inside[..., None], pixels, -np.inf).max(axis=1)
    return np.maximum((high - low).max(axis=-1), 0.0)


def t_radius(
    share: Float[np.ndarray, "*n"], scale: Float[np.ndarray, "*n"], tail: Float[np.ndarray, "*n"]
) -> Float[np.ndarray, "*n"]:
    """Length of a bivariate Student t vector at cumulative probability `share`, truncated at `LARGEST`.

    P(length > r) = (1 + r^2 / (tail scale^2))^(-tail / 2).
    """
    whole = 1 - (1 + LARGEST**2 / (tail * scale**2)) ** (-tail / 2)
    return scale * np.sqrt(tail * ((1 - share * whole) ** (-2 / tail) - 1))


def _quantile(levels: Float[np.ndarray, "n J 9"], share: Float[np.ndarray, "n J"]) -> Float[np.ndarray, "n J"]:
    """Interpolate linearly between the levels; each row has its own levels."""
    above = np.clip(np.searchsorted(LEVELS, share), 1, len(LEVELS) - 1)
    at = np.array(LEVELS)
    low, high = (np.take_along_axis(levels, i[..., None], -1)[..., 0] for i in (above - 1, above))
    return low + (high - low) * (share - at[above - 1]) / (at[above] - at[above - 1])
