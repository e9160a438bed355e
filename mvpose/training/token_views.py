"""What a detector may see of a person: the box and the pixels of one view, as found, covered, cut off or misplaced.

A sample's crop shows the person whole, so the draws take away: furniture and other people in front, the edge of the
image, boxes that are too large, shifted or around somebody else, blur and noise. A box shrinks to what is left of the
person in half of the cases, as a detector's does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from mvpose.training.training_config import TokenCacheConfig

# YOLOX's boxes on the demo, beyond the extent of Halpe's 26 joints, as shares of it: mean and deviation at the left and
# right, and at the top and bottom.
_BESIDE, _ABOVE = (0.08, 0.10), (0.04, 0.03)
_COVERED_SHARE = (0.25, 0.75)
"""Share of a person's box, along one side, that furniture or the image's edge takes."""


@dataclass(frozen=True, eq=False)
class SeenPerson:
    """An image and the box of a person in it: left, top, right, bottom in pixels."""

    image: UInt8[np.ndarray, "h w 3"]
    box: Float[np.ndarray, "4"]


def usual_box(joints: Float[np.ndarray, "V 4"]) -> Float[np.ndarray, "V 4"]:
    """Boxes as a detector finds somebody in full view, without its deviations, from the boxes about the joints."""
    extent = joints[:, 2:] - joints[:, :2]
    grown = extent * (_BESIDE[0], _ABOVE[0])
    return np.concatenate([joints[:, :2] - grown, joints[:, 2:] + grown], axis=-1)


def found(person: SeenPerson, rng: np.random.Generator) -> SeenPerson:
    """The person as a detector finds somebody in full view, from the box about the joints."""
    width, height = person.box[2:] - person.box[:2]
    beside, above = rng.normal(*_BESIDE, 2).clip(-0.05, 0.3) * width, rng.normal(*_ABOVE, 2).clip(-0.02, 0.15) * height
    grown = person.box + np.array([-beside[0], -above[0], beside[1], above[1]])
    return replace(person, box=grown)


def disturbed(
    person: SeenPerson,
    others: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    config: TokenCacheConfig,
    rng: np.random.Generator,
) -> SeenPerson:
    """The person as a detector might see somebody who is not in full view. `others` are images of other people."""
    person = found(person, rng)
    if rng.random() < config.furniture:
        person = _behind_furniture(person, rng)
    if others and rng.random() < config.people:
        person = _behind_somebody(person, others[int(rng.integers(len(others)))], rng)
    if rng.random() < config.edge:
        person = _cut_off(person, rng)
    if rng.random() < config.misplaced:
        person = replace(person, box=_misplaced(person.box, rng))
    if rng.random() < config.blurred:
        person = replace(person, image=_blurred(person.image, rng))
    return person


def _behind_furniture(person: SeenPerson, rng: np.random.Generator) -> SeenPerson:
    """Something with straight edges in front of one side of the person, or across the middle."""
    left, top, right, bottom = person.box
    share = rng.uniform(*_COVERED_SHARE)
    width, height = share * (right - left), share * (bottom - top)
    # Most furniture stands on the floor.
    side = rng.choice(4, p=[0.5, 0.15, 0.15, 0.2])
    cover = person.box.copy()
    rest = person.box.copy()
    match side:
        case 0:
            cover[1] = rest[3] = bottom - height
            cover[3] += 0.3 * height
        case 1:
            cover[2] = rest[0] = left + width
        case 2:
            cover[0] = rest[2] = right - width
        case 3:
            start = rng.uniform(top, bottom - 0.5 * height)
            cover[1], cover[3] = start, start + 0.5 * height
    if side in (0, 3):
        cover[[0, 2]] += rng.normal(0, 0.25, 2) * (right - left)
    image = person.image.copy()
    x0, y0, x1, y1 = _inside(cover, image)
    if x1 > x0 and y1 > y0:
        spots = int(rng.integers(1, 9))
        texture = rng.integers(0, 256, (spots, spots, 3)).astype(np.uint8)
        image[y0:y1, x0:x1] = cv2.resize(texture, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)
    return SeenPerson(image, rest if side < 3 and rng.random() < 0.5 else person.box)


def _behind_somebody(person: SeenPerson, other: UInt8[np.ndarray, "_ _ 3"], rng: np.random.Generator) -> SeenPerson:
    """The middle of another person's image, in the shape of a tall ellipse, in front of the person."""
    left, top, right, bottom = person.box
    size = np.array([right - left, bottom - top]) * rng.uniform([0.4, 0.6], [1.0, 1.2])
    centre = rng.uniform([left, top + 0.3 * (bottom - top)], [right, bottom])
    box = np.concatenate([centre - size / 2, centre + size / 2])
    x0, y0, x1, y1 = _inside(box, person.image)
    if x1 - x0 < 4 or y1 - y0 < 4:
        return person
    h, w = other.shape[:2]
    patch = cv2.resize(other[h // 8 : -h // 8, w // 3 : -w // 3], (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
    mask = np.zeros(patch.shape[:2], np.uint8)
    cv2.ellipse(mask, ((x1 - x0) // 2, (y1 - y0) // 2), ((x1 - x0) // 2, (y1 - y0) // 2), 0, 0, 360, 1, -1)
    image = person.image.copy()
    image[y0:y1, x0:x1] = np.where(mask[..., None] > 0, patch, image[y0:y1, x0:x1])
    return replace(person, image=image)


def _cut_off(person: SeenPerson, rng: np.random.Generator) -> SeenPerson:
    """The edge of the image through the person: black beyond it, and the box ends there."""
    image, box = person.image.copy(), person.box.copy()
    extent = box[2:] - box[:2]
    side, share = int(rng.integers(4)), rng.uniform(*_COVERED_SHARE)
    axis, far = side % 2, side >= 2
    edge = round(box[axis + 2] - share * extent[axis] if far else box[axis] + share * extent[axis])
    edge = max(edge, 0)
    beyond = slice(edge, None) if far else slice(0, edge)
    image[(slice(None), beyond) if axis == 0 else (beyond, slice(None))] = 0
    box[axis + 2 if far else axis] = edge
    return SeenPerson(image, box)


def _misplaced(box: Float[np.ndarray, "4"], rng: np.random.Generator) -> Float[np.ndarray, "4"]:
    """A box that is shifted and too large or small; now and then so far that it is about somebody beside the person."""
    extent, centre = box[2:] - box[:2], (box[:2] + box[2:]) / 2
    far = rng.random() < 0.15
    shift = rng.uniform(-1, 1, 2) * ([0.9, 0.3] if far else [0.2, 0.2])
    half = extent * rng.uniform(0.8, 1.6) / 2
    centre = centre + shift * extent
    return np.concatenate([centre - half, centre + half])


def _blurred(image: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
    soft = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 3.0))
    noise = cv2.resize(rng.normal(0, rng.uniform(1, 15), (64, 64, 3)).astype(np.float32), image.shape[1::-1])
    return np.clip(soft + noise, 0, 255).astype(np.uint8)


def _inside(box: Float[np.ndarray, "4"], image: UInt8[np.ndarray, "h w 3"]) -> tuple[int, int, int, int]:
    """The pixels of a box that are in the image."""
    height, width = image.shape[:2]
    left, top, right, bottom = (round(float(edge)) for edge in box)
    return max(left, 0), max(top, 0), min(right, width), min(bottom, height)
