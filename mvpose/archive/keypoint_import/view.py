"""The joints that one camera's file holds, and several of them brought to one skeleton."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from mvpose.errors import ConfigError
from mvpose.records import Keypoints2D
from mvpose.skeleton import Skeleton


@dataclass(frozen=True, eq=False)
class ViewKeypoints:
    """What one file says; a joint that was not found is NaN with confidence 0."""

    joints: tuple[str, ...]
    xy: Float[np.ndarray, "T P J 2"]
    confidence: Float[np.ndarray, "T P J"]


def view_of(
    joints: Sequence[str], xy: Float[np.ndarray, "T P J 2"], confidence: Float[np.ndarray, "T P J"]
) -> ViewKeypoints:
    """Confidence brought to 0..1, and what is NaN or without confidence missing in both."""
    there = np.isfinite(xy).all(axis=-1) & (confidence > 0)
    sure = np.where(there, np.clip(confidence, 0.0, 1.0), 0.0)
    return ViewKeypoints(tuple(joints), np.where(there[..., None], xy, np.nan), sure)


def stacked(
    views: Sequence[ViewKeypoints], skeleton: Skeleton, names: Mapping[str, str], num_frames: int | None
) -> Keypoints2D:
    """All cameras in one record of float32; a person's box is what her joints span, its score their mean confidence."""
    frames = max(len(view.xy) for view in views) if num_frames is None else num_frames
    most = max(view.xy.shape[1] for view in views)
    xy = np.full((len(views), frames, most, len(skeleton.joints), 2), np.nan, np.float32)
    confidence = np.zeros(xy.shape[:-1], np.float32)
    for v, view in enumerate(views):
        renamed = [names.get(joint, joint) for joint in view.joints]
        known = [j for j, joint in enumerate(renamed) if joint in skeleton.joints]
        if not known:
            raise ConfigError(
                f"camera {v} has the joints {', '.join(view.joints)}, none of which {skeleton.name} has: "
                f"say with `names` which of {', '.join(skeleton.joints)} they are."
            )
        to = skeleton.indices(*(renamed[j] for j in known))
        t, p = min(frames, len(view.xy)), view.xy.shape[1]
        xy[v, :t, :p, to] = np.moveaxis(view.xy[:t, :, known], 2, 0)
        confidence[v, :t, :p, to] = np.moveaxis(view.confidence[:t, :, known], 2, 0)
    found = confidence > 0
    count = found.sum(axis=-1)
    score = confidence.sum(axis=-1) / np.maximum(count, 1)
    return Keypoints2D(xy, confidence, _boxes(xy, found), score, skeleton)


def _boxes(xy: np.ndarray, found: np.ndarray) -> np.ndarray:
    low = np.where(found[..., None], xy, np.inf).min(axis=-2)
    high = np.where(found[..., None], xy, -np.inf).max(axis=-2)
    return np.where(found.any(axis=-1, keepdims=True), np.concatenate([low, high], axis=-1), 0.0).astype(np.float32)
