"""One pass over the clips of a job. Each capture whose clips are done runs through the stages of captures at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from mvpose.pipeline.open_work import OpenWork
from mvpose.pipeline.worker import ClipStages, JobStages, Receipt, finished


@dataclass
class Finishing:
    """The captures whose clips are done, in order; `start` begins the work on one, of which `at_once` may run."""

    start: Callable[[str], Any]
    """From the ID of a capture to what `done` and `receipts_of` know it by."""
    done: Callable[[list[Any], bool], list[Any]]
    """Those of the running captures that are done; if true is passed, it waits until there is one."""
    receipts_of: Callable[[Any], list[Receipt]]
    at_once: int
    waiting: deque[str] = field(default_factory=deque)
    running: list[Any] = field(default_factory=list)

    def receipts(self, *, of_all: bool = False) -> Iterator[Receipt]:
        """Start captures as far as allowed; receipts of those that are done, or of all of them."""
        while True:
            while self.waiting and len(self.running) < self.at_once:
                self.running.append(self.start(self.waiting.popleft()))
            done = self.done(self.running, of_all) if self.running else []
            if not done:
                return
            for each in done:
                self.running.remove(each)
                yield from self.receipts_of(each)


def one_pass(clips: Iterable[list[Receipt]], clips_left: Mapping[str, int], finishing: Finishing) -> Generator[Receipt]:
    """Receipts of all stages. `clips` yields those of one clip at a time, in any order, `clips_left` for each capture.

    The driver never waits for captures while there are clips to do: workers that hold all CPUs end with the last clip.
    """
    left = dict(clips_left)
    finishing.waiting += [capture_id for capture_id, clips in left.items() if not clips]
    yield from finishing.receipts()
    for receipts in clips:
        yield from receipts
        capture_id = str(receipts[0]["capture_id"])
        left[capture_id] -= 1
        if not left[capture_id]:
            finishing.waiting.append(capture_id)
        yield from finishing.receipts()
    yield from finishing.receipts(of_all=True)


def plain_loop(stages: JobStages, work: OpenWork) -> Generator[Receipt]:
    """The pass in this process, capture by capture."""
    of_clips = ClipStages(stages.of_clips)
    rows = (row for table in work.tables for row in table.to_pylist())
    here = Finishing(partial(finished, stages), lambda running, _: list(running), list, at_once=1)
    return one_pass(map(of_clips.receipts, rows), work.clips_left, here)
