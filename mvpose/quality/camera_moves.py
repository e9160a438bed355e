"""Detect a camera that moved while it recorded: it is aligned differently before and after."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mvpose.geometry.camera import CameraRig
from mvpose.quality.camera_turns import Turn, corrected
from mvpose.quality.sightings import Sightings

# The capture is divided into this many parts of equal length. The move may be in the middle of one.
PARTS = 4
# A shorter part is aligned to the noise of its detections.
MIN_FRAMES = 10


@dataclass(frozen=True, eq=False)
class Move:
    """A camera that is aligned differently before and after some moment."""

    view: int
    moved_px: float
    """Distance by which the move shifts people in the image."""
    degrees: float
    """The same as an angle, for a rotation of the camera."""
    first: int
    """Position among the sampled frames of the first part after the move."""


def largest_move(sightings: Sightings, rig: CameraRig, min_share: float) -> Move | None:
    """The camera whose alignment changes most from the parts before some moment to those after it.

    Each part is aligned by itself (`camera_turns.corrected`), so a camera that is misaligned all the time does not
    count. None if no camera moves people by `min_share` of their height, for a rig of two, and for a short capture.
    """
    parts = [torch.from_numpy(part) for part in np.array_split(np.arange(len(sightings.run)), PARTS)]
    if len(parts[-1]) < MIN_FRAMES:
        return None
    turns = [corrected(sightings.at(part), rig, min_share)[0] for part in parts]
    suspects = sorted({turn.view for of_part in turns for turn in of_part})
    moves = [_move(sightings, rig, view, turns, [int(p[0]) for p in parts]) for view in suspects]
    moves = [move for move in moves if move.moved_px >= min_share * float(sightings.person_px[move.view])]
    return max(moves, key=lambda move: move.moved_px / float(sightings.person_px[move.view]), default=None)


def longer_side(move: Move, num_frames: int) -> Int[Tensor, " n"]:
    """The sampled frames before the move or after it, whichever are more."""
    before = 2 * move.first >= num_frames
    return torch.arange(num_frames)[: move.first] if before else torch.arange(num_frames)[move.first :]


def _move(
    sightings: Sightings, rig: CameraRig, view: int, turns: Sequence[Sequence[Turn]], starts: Sequence[int]
) -> Move:
    """The moment at which the camera's rotations before it differ most from those after it, all of them."""
    ray = _middle_ray(sightings, rig, view)
    rays = torch.stack([_rotation(of_part, view) @ ray for of_part in turns])
    apart = 2.0 * torch.asin((torch.cdist(rays, rays) / 2.0).clamp_max(1.0))
    angles = [float(apart[:split, split:].min()) for split in range(1, len(starts))]
    split = max(range(len(angles)), key=lambda i: angles[i])
    focal = float(rig.focal[view].mean())
    return Move(view, angles[split] * focal, math.degrees(angles[split]), starts[split + 1])


def _middle_ray(sightings: Sightings, rig: CameraRig, view: int) -> Float[Tensor, "3"]:
    """Direction in which a camera sees people, in its own axes."""
    seen = sightings.ideal[..., view, :][sightings.weight[..., view] > 0]
    plane = (seen.median(dim=0).values - rig.centre[view]) / rig.focal[view]
    return torch.nn.functional.normalize(torch.cat([plane, torch.ones(1).to(plane)]), dim=0)


def _rotation(turns: Sequence[Turn], view: int) -> Float[Tensor, "3 3"]:
    return next((turn.rotation for turn in turns if turn.view == view), torch.eye(3).double())
