"""The joints that one camera's files hold, and those of all cameras brought to one skeleton."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from mvpose.errors import ConfigError
from mvpose.records import Keypoints2D
from mvpose.skeleton import Skeleton

HIGHEST_CONFIDENCE = 10.0
"""Scores of SLEAP and RTMPose exceed 1 a little; what exceeds this is a percentage or no confidence at all."""


@dataclass(frozen=True, eq=False)
class ViewKeypoints:
    """What the files of one camera say; a joint that was not found is NaN with confidence 0."""

    joints: tuple[str, ...]
    frame: Int[np.ndarray, " T"]
    """The frame that each row is, by the number in the files; rising, with gaps where a file says nothing."""
    xy: Float[np.ndarray, "T P J 2"]
    confidence: Float[np.ndarray, "T P J"]


def view_of(
    joints: Sequence[str],
    frame: Int[np.ndarray, " T"],
    xy: Float[np.ndarray, "T P J 2"],
    confidence: Float[np.ndarray, "T P J"],
) -> ViewKeypoints:
    """Rows in the order of their frames, confidence cut to 0..1, and what is NaN or without confidence missing in both.

    ConfigError for two rows of one frame, and for values that are no pixels or no confidences.
    """
    order = np.argsort(frame, kind="stable")
    frame, xy, confidence = frame[order], xy[order], confidence[order]
    if len(twice := frame[1:][np.diff(frame) == 0]):
        raise ConfigError(f"frame {twice[0]} is there twice: keep one of the two.")
    if len(frame) and frame[0] < 0:
        raise ConfigError(f"it has a frame {frame[0]}, and frames are counted from 0.")
    there = np.isfinite(xy).all(axis=-1) & (confidence > 0)
    if there.any() and confidence[there].max() > HIGHEST_CONFIDENCE:
        raise ConfigError(
            f"it has confidences up to {confidence[there].max():g}, and 0 to 1 is needed: divide percentages by 100."
        )
    if there.any() and np.abs(xy[there]).max() <= 1.0:
        raise ConfigError(
            "all coordinates lie between -1 and 1, and pixels of the picture are needed: they are normalised. Write "
            "them again in pixels (OpenPose: --keypoint_scale 0)."
        )
    return ViewKeypoints(
        tuple(joints),
        frame,
        np.where(there[..., None], xy, np.nan),
        np.where(there, np.clip(confidence, 0.0, 1.0), 0.0),
    )


def stacked(views: Sequence[ViewKeypoints], skeleton: Skeleton, names: Mapping[str, str], frames: range) -> Keypoints2D:
    """The given frames of all cameras as float32; where a camera lacks a frame nobody is seen.

    `names` renames joints of the files to those of the skeleton; joints that it does not have are left out. The box of
    a person is what the joints span, the score their mean confidence.
    """
    most = max(view.xy.shape[1] for view in views)
    xy = np.full((len(views), len(frames), most, len(skeleton.joints), 2), np.nan, np.float32)
    confidence = np.zeros(xy.shape[:-1], np.float32)
    for v, view in enumerate(views):
        renamed = [names.get(joint, joint) for joint in view.joints]
        known = [j for j, joint in enumerate(renamed) if joint in skeleton.joints]
        to = skeleton.indices(*(renamed[j] for j in known))
        rows = slice(*np.searchsorted(view.frame, [frames.start, frames.stop]))
        t = view.frame[rows] - frames.start
        at = (v, t[:, None, None], np.arange(view.xy.shape[1])[:, None], to)
        xy[at], confidence[at] = view.xy[rows][:, :, known], view.confidence[rows][:, :, known]
    found = confidence > 0
    score = confidence.sum(axis=-1) / np.maximum(found.sum(axis=-1), 1)
    return Keypoints2D(xy, confidence, _boxes(xy, found), score, skeleton)


def _boxes(xy: np.ndarray, found: np.ndarray) -> np.ndarray:
    low = np.where(found[..., None], xy, np.inf).min(axis=-2)
    high = np.where(found[..., None], xy, -np.inf).max(axis=-2)
    return np.where(found.any(axis=-1, keepdims=True), np.concatenate([low, high], axis=-1), 0.0).astype(np.float32)
