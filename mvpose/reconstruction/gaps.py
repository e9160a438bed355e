"""Unbroken runs of a track, and gaps filled between them: every filled value is flagged, none is extrapolated."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float
from scipy.interpolate import PchipInterpolator

Run = tuple[int, int]
"""Frames [start, stop)."""


def present(xyz: Float[np.ndarray, "*n 3"]) -> Bool[np.ndarray, "*n"]:
    """Where a joint is: all of its coordinates are numbers."""
    return np.asarray(np.isfinite(xyz).all(axis=-1))


def unbroken_runs(there: Bool[np.ndarray, "T"]) -> list[Run]:
    """The longest runs of frames without a gap, in order."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], there, [False]])))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def gaps_filled(
    xyz: Float[np.ndarray, "T K 3"], limit: int
) -> tuple[Float[np.ndarray, "T K 3"], Bool[np.ndarray, "T K"]]:
    """Gaps of at most `limit` frames between two known values filled, and where.

    Piecewise cubic Hermite interpolation (Fritsch and Butland, SIAM J. Sci. Stat. Comput. 1984) through all known
    values of a joint: constant and linear motion is continued exactly, and no filled coordinate overshoots the two at
    the ends of its gap. Longer gaps, and those at the start and the end of the track, stay NaN.
    """
    out, filled = xyz.copy(), np.zeros(xyz.shape[:2], dtype=bool)
    there = present(xyz)
    for k in range(xyz.shape[1]):
        known = unbroken_runs(there[:, k])
        gaps = [(a[1], b[0]) for a, b in pairwise(known) if b[0] - a[1] <= limit]
        if not gaps:
            continue
        frames = np.flatnonzero(there[:, k])
        curve = PchipInterpolator(frames, xyz[frames, k], axis=0)
        inside = np.concatenate([np.arange(*gap) for gap in gaps])
        out[inside, k] = curve(inside)
        filled[inside, k] = True
    return out, filled
