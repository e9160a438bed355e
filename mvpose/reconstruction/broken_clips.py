"""Reconstruct clips with breaks in time: each segment separately, since motion cannot be tracked across a break."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mvpose.errors import NoPersonError
from mvpose.reconstruction.view_errors import keypoints_at
from mvpose.records import Keypoints2D, Poses3D


def reconstruct_segments(
    keypoints: Keypoints2D, parts: Sequence[slice], reconstruct: Callable[[Keypoints2D], Poses3D]
) -> Poses3D:
    """The people of a clip whose frames are successive only within each of `parts`, which tile it.

    A track belongs to one part. Raises like `reconstruct`; NoPersonError only if it is raised for every part.
    """
    if len(parts) == 1:
        return reconstruct(keypoints)
    found: list[tuple[slice, Poses3D]] = []
    errors: list[NoPersonError] = []
    for part in parts:
        try:
            found.append((part, reconstruct(keypoints_at(keypoints, part))))
        except NoPersonError as error:
            errors.append(error)
    if not found:
        raise errors[0]
    return _side_by_side(found, keypoints.xy.shape[1])


def _side_by_side(found: Sequence[tuple[slice, Poses3D]], num_frames: int) -> Poses3D:
    """The tracks of all parts, each with its own frames filled and the others empty."""
    count = sum(len(poses.track_id) for _, poses in found)

    def joined(values: Sequence[np.ndarray], empty: float | int) -> np.ndarray:
        out = np.full((num_frames, count, *values[0].shape[2:]), empty, values[0].dtype)
        first = 0
        for (part, _), own in zip(found, values, strict=True):
            out[part, first : first + own.shape[1]] = own
            first += own.shape[1]
        return out

    poses = [own for _, own in found]
    return Poses3D(
        xyz=joined([own.xyz for own in poses], np.nan),
        confidence=joined([own.confidence for own in poses], 0.0),
        error_px=joined([own.error_px for own in poses], np.nan),
        sigma_mm=joined([own.sigma_mm for own in poses], np.nan),
        num_views=joined([own.num_views for own in poses], 0),
        views_used=joined([own.views_used for own in poses], False),
        track_id=np.arange(count),
        skeleton=poses[0].skeleton,
    )
