"""Progress of long work: a live line on a terminal, an occasional line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

SECONDS_BETWEEN_LINES = 10.0


@dataclass(kw_only=True)
class Progress:
    """Progress of a stage through the whole job, over all its waves."""

    label: str
    clips: int
    """Clips to do in this start of the job."""
    frames: int
    clips_done: int = 0
    frames_done: int = 0
    failed: int = 0
    seconds: float = 0.0
    """Time spent on finished waves."""

    def without(self, clips: int, frames: int) -> None:
        """Subtract clips and frames that turned out to be done already."""
        self.clips -= clips
        self.frames -= frames

    def counted(self, receipts: Iterable[dict[str, Any]], clips: int) -> Iterator[dict[str, Any]]:
        """Pass through the receipts of a wave of `clips` clips, printing progress, frames per second and time left."""
        started = last = time.monotonic()
        live, end_of_part = sys.stderr.isatty(), self.clips_done + clips
        for receipt in receipts:
            self.clips_done += 1
            self.frames_done += int(receipt["frames"])
            self.failed += bool(receipt["failure"])
            now = time.monotonic()
            ended = self.clips_done == end_of_part
            if live or self.clips_done == self.clips or now - last > SECONDS_BETWEEN_LINES:
                last = now
                line = self._line(self.seconds + now - started)
                end = "\n" if ended or not live else ""
                print(f"\r\033[K{line}" if live else line, end=end, file=sys.stderr, flush=True)
            yield receipt
        self.seconds += time.monotonic() - started

    def _line(self, seconds: float) -> str:
        rate = max(self.frames_done, 1) / max(seconds, 1e-9)
        return (
            f"{self.label}: {self.clips_done}/{self.clips} clips, {self.frames_done}/{self.frames} frames, "
            f"{rate:.1f} frames/s, {(self.frames - self.frames_done) / rate:.0f} s left"
            + (f", {self.failed} failed" if self.failed else "")
        )
