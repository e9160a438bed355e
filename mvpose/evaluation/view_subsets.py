"""Which cameras are used when fewer than all are asked for: the same ones always, and every set somewhere."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from mvpose.datasets.sample import Sample

FEWER = (4, 3, 2)


def chosen_cameras(sample: Sample, count: int, seed: int = 0) -> tuple[str, ...]:
    """`count` of a sample's cameras, in the order of its rig.

    Cameras are ranked by a digest of seed, sample and camera: the choice depends on nothing else (not on the order of
    the table, nor on the other cameras), the sets for falling counts are nested, so that counts are compared on like
    terms, and over many samples every set is drawn equally often.
    """
    key = f"{seed}/{sample.capture_id}/{sample.frame}/{sample.person}"
    ranked = sorted(sample.rig.names, key=lambda name: hashlib.sha256(f"{key}/{name}".encode()).digest())
    kept = set(ranked[:count])
    return tuple(name for name in sample.rig.names if name in kept)


def view_counts(cameras: int, wanted: Sequence[int]) -> list[int]:
    """The numbers of views that a rig of so many cameras is judged with, most first.

    Those `wanted` that it has, or, where none are named, all cameras and each of 4, 3, 2 below that.
    """
    numbers = wanted or [cameras, *FEWER]
    return sorted({n for n in numbers if n <= cameras}, reverse=True)
