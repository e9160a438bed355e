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

    Piecewise cubic Hermite interpolation (Fritsch and Butland, SIAM J. Sci. Stat. Comput. 1984): constant and linear
    motion is continued exactly, and no filled coordinate overshoots the two at the ends of its gap. Longer gaps, and
    those at the start and the end of the track, stay NaN, and no curve looks across one. A curve depends on two values
    on either side of its gap, so that a filled value depends on nothing farther than `gap_reach`.
    """
    out, filled = xyz.copy(), np.zeros(xyz.shape[:2], dtype=bool)
    there = present(xyz)
    for k in range(xyz.shape[1]):
        for stretch in _stretches(unbroken_runs(there[:, k]), limit):
            frames = np.concatenate([np.arange(*run) for run in stretch])
            inside = np.concatenate([np.arange(a[1], b[0]) for a, b in pairwise(stretch)])
            out[inside, k] = PchipInterpolator(frames, xyz[frames, k], axis=0)(inside)
            filled[inside, k] = True
    return out, filled


def gap_reach(limit: int) -> int:
    """Frames on either side that decide whether a value is filled, and with what."""
    return 2 * limit + 2 if limit else 0


def _stretches(known: list[Run], limit: int) -> list[list[Run]]:
    """Runs with gaps of at most `limit` frames between them together; a run that has none beside it is left out."""
    stretches: list[list[Run]] = []
    for run in known:
        if stretches and run[0] - stretches[-1][-1][1] <= limit:
            stretches[-1].append(run)
        else:
            stretches.append([run])
    return [stretch for stretch in stretches if len(stretch) > 1]
