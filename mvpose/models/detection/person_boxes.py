"""Person boxes: output of a box detector, and interpolation between two detected frames."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from scipy.optimize import linear_sum_assignment

# Grey value of the border that YOLOX was trained with.
_BORDER = 114

# Boxes of two frames that overlap less (intersection over union) are treated as two persons. In the demo footage the
# boxes of one person overlap by 0.60 or more across 8 frames, 0.42 across 16 and 0.33 across 32. The lower threshold
# allows for fast movement; the assignment separates persons whose boxes cross.
_SAME_PERSON = 0.1


@dataclass(frozen=True, eq=False)
class PersonBoxes:
    """Boxes of the persons in one image, best first."""

    box: Float[np.ndarray, "P 4"]
    """left, top, right, bottom in pixels; may reach beyond the image."""
    score: Float[np.ndarray, " P"]


def letterboxed(
    image: UInt8[np.ndarray, "H W 3"], size: tuple[int, int]
) -> tuple[UInt8[np.ndarray, "h w 3"], Float[np.ndarray, " 2"]]:
    """Scale the image to fit into `size` (width, height), grey to its right or below; also returns the x, y scales."""
    height, width = image.shape[:2]
    ratio = min(size[0] / width, size[1] / height)
    fitted = max(1, round(width * ratio)), max(1, round(height * ratio))
    canvas = np.full((size[1], size[0], 3), _BORDER, dtype=np.uint8)
    canvas[: fitted[1], : fitted[0]] = cv2.resize(image, fitted, interpolation=cv2.INTER_LINEAR)
    return canvas, np.array([fitted[0] / width, fitted[1] / height])


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


def boxes_between(first: PersonBoxes, last: PersonBoxes, num_frames: int, max_boxes: int) -> list[PersonBoxes]:
    """Boxes of frames 0 .. num_frames - 1, interpolated between those of the first and the last frame.

    Boxes are paired for the maximum total overlap and move linearly; a box that only one end has stays in place.
    Index p is the same person in all frames; at most `max_boxes`, best mean score first.
    """
    shared = overlap(first.box, last.box)
    rows, columns = linear_sum_assignment(shared, maximize=True)
    paired = shared[rows, columns] >= _SAME_PERSON
    rows, columns = rows[paired], columns[paired]
    only_first, only_last = np.delete(first.box, rows, axis=0), np.delete(last.box, columns, axis=0)
    start = np.concatenate([first.box[rows], only_first, only_last])
    stop = np.concatenate([last.box[columns], only_first, only_last])
    score = np.concatenate(
        [
            (first.score[rows] + last.score[columns]) / 2,
            np.delete(first.score, rows),
            np.delete(last.score, columns),
        ]
    )
    order = np.argsort(-score, kind="stable")[:max_boxes]
    moment = np.linspace(0, 1, num_frames)[:, None, None]
    path = (1 - moment) * start[order] + moment * stop[order]
    return [PersonBoxes(box, score[order]) for box in path]
