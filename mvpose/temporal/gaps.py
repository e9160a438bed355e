"""Unbroken runs of a track, and filling the gaps between them. Filled values are flagged; nothing is extrapolated."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float

Run = tuple[int, int]
"""Frames [start, stop)."""


def present(xyz: Float[np.ndarray, "*n 3"]) -> Bool[np.ndarray, "*n"]:
    """Whether a joint is present: all of its coordinates are finite."""
    return np.asarray(np.isfinite(xyz).all(axis=-1))


def unbroken_runs(there: Bool[np.ndarray, "T"]) -> list[Run]:
    """The maximal runs of frames without a gap, in order."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], there, [False]])))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def gaps_filled(
    xyz: Float[np.ndarray, "T K 3"], limit: int
) -> tuple[Float[np.ndarray, "T K 3"], Bool[np.ndarray, "T K"]]:
    """Fill gaps of at most `limit` frames between two known values; returns the values, and where they were filled.

    Piecewise cubic Hermite interpolation (Fritsch and Butland, SIAM J. Sci. Stat. Comput. 1984): constant and linear
    motion is continued exactly, and no filled coordinate overshoots the two at the ends of its gap. Longer gaps, and
    those at the start and the end of the track, stay NaN, and no curve crosses one. A curve depends on two values on
    either side of its gap, so a filled value depends on nothing farther than `gap_reach`.
    """
    from scipy.interpolate import PchipInterpolator

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
    """Number of frames on either side that decide whether a value is filled, and with what."""
    return 2 * limit + 2 if limit else 0


def _stretches(known: list[Run], limit: int) -> list[list[Run]]:
    """Group runs separated by gaps of at most `limit` frames; a run without such a neighbour is omitted."""
    stretches: list[list[Run]] = []
    for run in known:
        if stretches and run[0] - stretches[-1][-1][1] <= limit:
            stretches[-1].append(run)
        else:
            stretches.append([run])
    return [stretch for stretch in stretches if len(stretch) > 1]
