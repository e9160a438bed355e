"""The captures that a job has still to do, in waves of whole captures with a given number of clips.

For an archive of a million clips, the driver holds the tasks of one wave only, and the first captures finish early.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import compress, groupby, islice

from mvpose.records import CaptureTasks, Kind, Task
from mvpose.run.store import ClipStore

LISTERS = 16
"""Parallel listings: they mostly wait for storage."""
CAPTURES_AT_ONCE = 256


@dataclass(frozen=True)
class OpenWork:
    """Incomplete captures: filtered poses or quality, the last results, are not committed."""

    is_open: bytearray
    """One flag per capture, in the order of the plan."""
    num_captures: int
    num_clips: int
    num_frames: int

    @classmethod
    def of(cls, run_uri: str, plans: Iterable[CaptureTasks]) -> OpenWork:
        """Find the incomplete captures, with two listings per capture."""
        is_open, captures, clips, frames = bytearray(), 0, 0, 0
        upcoming = iter(plans)
        with ThreadPoolExecutor(LISTERS) as pool:
            while some := list(islice(upcoming, CAPTURES_AT_ONCE)):
                for plan, unmade in zip(some, pool.map(partial(_is_open, run_uri), some), strict=True):
                    is_open.append(unmade)
                    captures, clips, frames = (
                        captures + unmade, clips + unmade * len(plan.clips), frames + unmade * plan.whole.stop
                    )  # fmt: skip
        return cls(is_open, captures, clips, frames)

    def captures(self, plans: Iterable[CaptureTasks]) -> Iterator[CaptureTasks]:
        """The incomplete captures of a plan; a plan without any is not read."""
        return compress(plans, self.is_open) if self.num_captures else iter(())

    def totals(self, kind: Kind) -> dict[str, int]:
        """Number of tasks of a kind, as `clips`, and of their frames, including those already done."""
        return {"clips": self.num_captures if kind.of_whole_captures else self.num_clips, "frames": self.num_frames}


def _is_open(run_uri: str, plan: CaptureTasks) -> bool:
    return any(
        task.name not in ClipStore(run_uri, kind).commits_of(plan.capture_id)
        for kind in (Kind.QUALITY, Kind.FILTERED)
        for task in plan.tasks(kind)
    )


def waves(captures: Iterable[CaptureTasks], clips: int) -> Iterator[list[CaptureTasks]]:
    """Group captures in order into waves of at least `clips` clips; the last wave may have fewer."""
    wave: list[CaptureTasks] = []
    size = 0
    for capture in captures:
        wave.append(capture)
        size += len(capture.clips)
        if size >= clips:
            yield wave
            wave, size = [], 0
    if wave:
        yield wave


def uncommitted(store: ClipStore, tasks: Sequence[Task]) -> list[Task]:
    """The tasks without a commit, with one listing per capture; tasks of one capture must be adjacent."""

    def undone(own: list[Task]) -> list[Task]:
        done = store.commits_of(own[0].clip.capture_id)
        return [task for task in own if task.name not in done]

    captures = [list(own) for _, own in groupby(tasks, key=lambda task: task.clip.capture_id)]
    with ThreadPoolExecutor(LISTERS) as pool:
        return [task for left in pool.map(undone, captures) for task in left]
