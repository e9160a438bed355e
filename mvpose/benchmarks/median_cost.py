"""Medians of a long capture's numbers: radix selection over a file against NumPy, by time and peak memory.

Bone lengths and reprojection errors of two hours of four cameras at 30 frames/s with five people, each contender in a
process of its own.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from mvpose.temporal.medians import NumberSpool, medians
from mvpose.tracking.circumstances import peak_mib

FRAMES, PEOPLE, JOINTS, BONES, VIEWS = 2 * 3600 * 30, 5, 26, 25, 4
PART_FRAMES = 3000
"""Frames that arrive at a time, as parts of a capture do."""

Groups = Sequence[Int[np.ndarray, "_"]]


def bone_parts() -> Iterator[Float[np.ndarray, "n K"]]:
    """Bone lengths in metres of all people side by side."""
    return _parts(PEOPLE * BONES, FRAMES, np.float64)


def error_parts() -> Iterator[Float[np.ndarray, "n K"]]:
    """Reprojection errors in pixels, one row per frame and person, one column per joint and view."""
    return _parts(JOINTS * VIEWS, FRAMES * PEOPLE, np.float32)


def error_groups() -> Groups:
    """All errors, those of each camera, and those of each joint."""
    cells = np.arange(JOINTS * VIEWS).reshape(JOINTS, VIEWS)
    return [cells.ravel(), *cells.T, *cells]


def by_radix(parts: Iterator[Float[np.ndarray, "n K"]], groups: Groups, dtype: type[np.floating]) -> list[float]:
    """As the job does it."""
    spool = NumberSpool(1 + max(int(group.max()) for group in groups), dtype)
    for part in parts:
        spool.add(part)
    return medians(spool, groups).tolist()


def by_numpy(parts: Iterator[Float[np.ndarray, "n K"]], groups: Groups, dtype: type[np.floating]) -> list[float]:
    """All numbers in memory, one group after the other."""
    kept = [part.astype(dtype) for part in parts]
    found = []
    for group in groups:
        some = np.concatenate([part[:, group].ravel() for part in kept])
        found.append(float(np.median(some[np.isfinite(some)], overwrite_input=True)))
    return found


@dataclass(frozen=True)
class MediansBenchmark:
    """Medians of the numbers of a long capture, from a file and in memory: CPU time and memory."""


def run(_config: MediansBenchmark) -> None:
    """Print seconds and MiB of each; the medians must be the same."""
    bones = [np.array([column]) for column in range(PEOPLE * BONES)]
    for what, parts, groups, dtype in (
        ("bone lengths", bone_parts, bones, np.float64),
        ("reprojection errors", error_parts, error_groups(), np.float32),
    ):
        answers = []
        for contender in (by_radix, by_numpy):
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                seconds, mib, answer = pool.apply(_measured, (contender, parts, groups, dtype))
            answers.append(answer)
            print(f"{what:20s} {contender.__name__:9s} {seconds:7.1f} s of CPU {mib:8.0f} MiB", flush=True)
        assert np.array_equal(*answers), "the contenders disagree"


def _measured(
    contender: Callable[..., list[float]],
    parts: Callable[[], Iterator[np.ndarray]],
    groups: Groups,
    dtype: type[np.floating],
) -> tuple[float, float, list[float]]:
    """CPU seconds and MiB above those of the imports; making the numbers is in neither contender's favour."""
    before, started = peak_mib(), time.process_time()
    answer = contender(parts(), groups, dtype)
    return time.process_time() - started, peak_mib() - before, answer


def _parts(columns: int, rows: int, dtype: type[np.floating]) -> Iterator[Float[np.ndarray, "n K"]]:
    rng = np.random.default_rng(0)
    for start in range(0, rows, PART_FRAMES):
        part = rng.random((min(PART_FRAMES, rows - start), columns), np.float32).astype(dtype)
        part[part < 0.1] = np.nan
        yield part
