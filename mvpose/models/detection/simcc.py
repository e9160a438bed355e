"""SimCC: a joint's place as two one-dimensional classifications, one over columns and one over rows.

Li et al., "SimCC: a Simple Coordinate Classification Perspective for Human Pose Estimation", ECCV 2022;
Jiang et al., "RTMPose: Real-Time Multi-Person Pose Estimation based on MMPose", 2023.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float


def decode_simcc(
    columns: Float[np.ndarray, "N J W"], rows: Float[np.ndarray, "N J H"], bins_per_pixel: float
) -> tuple[Float[np.ndarray, "N J 2"], Float[np.ndarray, "N J"]]:
    """Positions in pixels of the network's input, and confidences in 0 .. 1.

    Bin i of an axis stands for i / bins_per_pixel. Confidence is RTMPose's rule: the smaller of the two peaks of the
    raw outputs, which were trained towards Gaussians of height 1; the few above 1 are cut off.
    """
    x, x_peak = peaks(columns)
    y, y_peak = peaks(rows)
    return np.stack([x, y], axis=-1) / bins_per_pixel, np.clip(np.minimum(x_peak, y_peak), 0, 1)


def peaks(scores: Float[np.ndarray, "*batch n"]) -> tuple[Float[np.ndarray, "*batch"], Float[np.ndarray, "*batch"]]:
    """Where a row is highest, between bins by a parabola through the peak and its neighbours, and the highest score.

    The parabola moves a peak by half a bin at most. On the single-person demo it lowers the reprojection error from
    8.75 to 8.72 px and the second difference of the 2D tracks from 3.65 to 3.41 px. A peak on the border stays.
    """
    peak = scores.argmax(axis=-1)
    middle = np.clip(peak, 1, scores.shape[-1] - 2)
    before, at, after = (np.take_along_axis(scores, (middle + k)[..., None], axis=-1)[..., 0] for k in (-1, 0, 1))
    curvature = before - 2 * at + after
    refined = (peak == middle) & (curvature < 0)
    shift = np.where(refined, (before - after) / (2 * np.where(refined, curvature, 1)), 0)
    return peak + shift, scores.max(axis=-1)
