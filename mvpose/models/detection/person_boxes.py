"""Person boxes: output of a box detector, and interpolation between two detected frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from mvpose import device_images
from mvpose.device_images import AnyImage, DeviceImage
from mvpose.images import resized

# Grey value of the border that YOLOX was trained with.
_BORDER = 114

# Boxes of two frames that overlap less (intersection over union) are treated as two persons. In the demo footage the
# boxes of one person overlap by 0.60 or more across 8 frames, 0.42 across 16 and 0.33 across 32. The lower threshold
# allows for fast movement; the assignment separates persons whose boxes cross.
_SAME_PERSON = 0.1

AROUND_JOINTS = np.array([1 / 0.85, 1 / 0.95])
"""Width and height of the box network's boxes, in those of the box around the joints inside (demo footage)."""


@dataclass(frozen=True, eq=False)
class PersonBoxes:
    """Boxes of the persons in one image, best first."""

    box: Float[np.ndarray, "P 4"]
    """left, top, right, bottom in pixels; may reach beyond the image."""
    score: Float[np.ndarray, " P"]


def letterboxed(
    images: Sequence[AnyImage], size: tuple[int, int]
) -> tuple[UInt8[np.ndarray, "N h w 3"] | UInt8[Tensor, "N h w 3"], Float[np.ndarray, "N 2"]]:
    """Scale images to fit into `size` (width, height), grey to their right or below; also returns the x, y scales.

    All images are in the host's memory, or all on one device, where the result is then.
    """
    originals = np.array([image.shape[1::-1] for image in images])
    ratio = (np.array(size) / originals).min(axis=1)
    fitted = np.maximum(1, np.rint(originals * ratio[:, None])).astype(int)
    return _letterboxes(images, fitted, size), fitted / originals


def _letterboxes(
    images: Sequence[AnyImage], fitted: Int[np.ndarray, "N 2"], size: tuple[int, int]
) -> UInt8[np.ndarray, "N h w 3"] | UInt8[Tensor, "N h w 3"]:
    on_device = [image for image in images if isinstance(image, DeviceImage)]
    shape = (len(images), size[1], size[0], 3)
    if not on_device:
        canvases = np.full(shape, _BORDER, dtype=np.uint8)
        for canvas, image, (width, height) in zip(canvases, images, fitted.tolist(), strict=True):
            assert not isinstance(image, DeviceImage)
            canvas[:height, :width] = resized(image, (width, height))
        return canvases
    made = torch.full(shape, _BORDER, dtype=torch.uint8, device=on_device[0].frames.full.device)
    for width, height in np.unique(fitted, axis=0).tolist():
        alike = np.flatnonzero((fitted == (width, height)).all(axis=1))
        made[alike, :height, :width] = device_images.resized([on_device[i] for i in alike], (width, height))
    return made


def from_letterbox(box: Float[np.ndarray, "P 4"], scale: Float[np.ndarray, " 2"]) -> Float[np.ndarray, "P 4"]:
    """Map boxes of the letterboxed image to pixels of the original (a pixel c was scaled to (c + 0.5) s - 0.5)."""
    return (box + 0.5) / np.tile(scale, 2) - 0.5


def best(boxes: PersonBoxes, min_score: float, max_boxes: int) -> PersonBoxes:
    """At most `max_boxes` boxes of `min_score` or more, best first; ties keep their order."""
    order = np.argsort(-boxes.score, kind="stable")[:max_boxes]
    order = order[boxes.score[order] >= min_score]
    return PersonBoxes(boxes.box[order], boxes.score[order])


def overlap(a: Float[np.ndarray, "A 4"], b: Float[np.ndarray, "B 4"]) -> Float[np.ndarray, "A B"]:
    """Intersection over union of every pair of boxes."""
    corner = np.maximum(a[:, None, :2], b[None, :, :2])
    opposite = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.clip(opposite - corner, 0, None).prod(axis=-1)
    area_a, area_b = ((box[:, 2:] - box[:, :2]).prod(axis=-1) for box in (a, b))
    return common / (area_a[:, None] + area_b[None, :] - common)


@dataclass(frozen=True, eq=False)
class Paths:
    """The persons in two images of a view, each with a box in both; index p is one person. Best mean score first."""

    start: Float[np.ndarray, "P 4"]
    stop: Float[np.ndarray, "P 4"]
    """Equal to `start` for a person with a box in one of the images only."""
    score: Float[np.ndarray, " P"]
    of_first: Int[np.ndarray, " P"]
    """Index of the box in the first image, -1 for none."""
    of_last: Int[np.ndarray, " P"]

    def boxes(self, share: float) -> PersonBoxes:
        """The boxes at a share of the way from the first image to the last, on straight lines."""
        return PersonBoxes((1 - share) * self.start + share * self.stop, self.score)


def paths(first: PersonBoxes, last: PersonBoxes, max_boxes: int) -> Paths:
    """Pair the boxes of two images for the maximum total overlap; at most `max_boxes`, best mean score first."""
    from scipy.optimize import linear_sum_assignment

    shared = overlap(first.box, last.box)
    rows, columns = linear_sum_assignment(shared, maximize=True)
    paired = shared[rows, columns] >= _SAME_PERSON
    rows, columns = rows[paired], columns[paired]
    only_first, only_last = (
        np.setdiff1d(np.arange(len(boxes.score)), used) for boxes, used in ((first, rows), (last, columns))
    )
    none_first, none_last = np.full(len(only_last), -1), np.full(len(only_first), -1)
    of_first = np.concatenate([rows, only_first, none_first])
    of_last = np.concatenate([columns, none_last, only_last])
    start = np.concatenate([first.box[rows], first.box[only_first], last.box[only_last]])
    stop = np.concatenate([last.box[columns], first.box[only_first], last.box[only_last]])
    both = (first.score[rows] + last.score[columns]) / 2
    score = np.concatenate([both, first.score[only_first], last.score[only_last]])
    order = np.argsort(-score, kind="stable")[:max_boxes]
    return Paths(start[order], stop[order], score[order], of_first[order], of_last[order])


def around_joints(xy: Float[np.ndarray, "*n J 2"], known: Bool[np.ndarray, "*n J"]) -> Float[np.ndarray, "*n 4"]:
    """The boxes that the box network would find around these joints; infinite where none is known."""
    low = np.where(known[..., None], xy, np.inf).min(axis=-2)
    high = np.where(known[..., None], xy, -np.inf).max(axis=-2)
    centre, half = (low + high) / 2, (high - low) / 2 * AROUND_JOINTS
    return np.concatenate([centre - half, centre + half], axis=-1)
