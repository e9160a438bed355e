"""The work that a job has still to do: captures without their last results, and those of their clips to detect."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeVar

import pyarrow as pa

from mvpose.records import CaptureTasks, Clip, Kind, Task
from mvpose.run.store import ClipStore

T = TypeVar("T")

LISTERS = 16
"""Parallel listings: they mostly wait for storage."""
CAPTURES_AT_ONCE = 256
ROWS_AT_ONCE = 4096
SCHEMA = pa.schema(
    {
        "capture_id": pa.dictionary(pa.int32(), pa.string()),
        "start": pa.int64(),
        "stop": pa.int64(),
        "fingerprints": pa.dictionary(pa.int32(), pa.string()),
    }
)
"""One row per clip; its fingerprints by stage, in order, are separated by spaces."""


@dataclass(frozen=True, eq=False)
class OpenWork:
    """The clips to run the stages of clips on, 24 bytes each, and the captures to run all other stages on."""

    clips_left: dict[str, int]
    """Open captures in the order of the plan, with their number of rows. It is 0 where only the stages after them are
    to do."""
    tables: tuple[pa.Table, ...]
    """The clips in the order of the plan, in tables of `SCHEMA`."""
    frames: int
    """Frames of these clips."""

    @property
    def clips(self) -> int:
        """Number of clips to run the stages of clips on."""
        return sum(self.clips_left.values())

    @classmethod
    def of(cls, run_uri: str, plans: Iterable[CaptureTasks], kinds: Sequence[Kind]) -> OpenWork:
        """Find the open captures, and the clips that lack a result of `kinds`, by listings of the commits."""
        clips_left: dict[str, int] = {}
        tables, rows, frames = [], list[tuple[str, int, int, str]](), 0
        for plan, clips in _in_parallel(partial(_to_do, run_uri, kinds), plans):
            if clips is None:
                continue
            clips_left[plan.capture_id] = len(clips)
            frames += sum(clip.stop - clip.start for clip, _ in clips)
            rows += [(clip.capture_id, clip.start, clip.stop, fingerprints) for clip, fingerprints in clips]
            while len(rows) >= ROWS_AT_ONCE:
                tables.append(_table(rows[:ROWS_AT_ONCE]))
                rows = rows[ROWS_AT_ONCE:]
        return cls(clips_left, (*tables, _table(rows)) if rows else tuple(tables), frames)


def _table(rows: Sequence[tuple[str, int, int, str]]) -> pa.Table:
    columns = zip(zip(*rows, strict=True), SCHEMA, strict=True)
    return pa.table([pa.array(column, field.type) for column, field in columns], schema=SCHEMA)


def _to_do(run_uri: str, kinds: Sequence[Kind], plan: CaptureTasks) -> list[tuple[Clip, str]] | None:
    """The clips that lack one of `kinds`, with their fingerprints; None if a capture has its last results."""
    if not any(_uncommitted(run_uri, kind, plan) for kind in (Kind.QUALITY, Kind.FILTERED)):
        return None
    lacking = {task.clip for kind in kinds for task in _uncommitted(run_uri, kind, plan)}
    of_clips = zip(*(plan.tasks(kind) for kind in kinds), strict=True)
    return [
        (tasks[0].clip, " ".join(task.fingerprint for task in tasks)) for tasks in of_clips if tasks[0].clip in lacking
    ]


def uncommitted(run_uri: str, kind: Kind, plans: Iterable[CaptureTasks]) -> Iterator[Task]:
    """The tasks of a kind without a commit, with one listing per capture."""
    for _, tasks in _in_parallel(partial(_uncommitted, run_uri, kind), plans):
        yield from tasks


def _uncommitted(run_uri: str, kind: Kind, plan: CaptureTasks) -> list[Task]:
    tasks = plan.tasks(kind)
    done = ClipStore(run_uri, kind).commits_of(plan.capture_id) if tasks else set()
    return [task for task in tasks if task.name not in done]


def _in_parallel(work: Callable[[CaptureTasks], T], plans: Iterable[CaptureTasks]) -> Iterator[tuple[CaptureTasks, T]]:
    upcoming = iter(plans)
    with ThreadPoolExecutor(LISTERS) as pool:
        while some := list(islice(upcoming, CAPTURES_AT_ONCE)):
            yield from zip(some, pool.map(work, some), strict=True)
