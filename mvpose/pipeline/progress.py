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
    """Progress of a job over its whole archive: clips through their first stage, captures through their last."""

    first: str
    """The first stage of a clip."""
    last: str
    """The last stage of a capture."""
    clips: int
    """Clips to do in this start of the job."""
    frames: int
    captures: int
    clips_done: int = 0
    frames_done: int = 0
    captures_done: int = 0
    failed: int = 0
    """Clips and captures on which a stage failed; the stages after it are not counted."""

    def counted(self, receipts: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Pass receipts through, printing progress, frames per second and time left."""
        started = last = time.monotonic()
        live = sys.stderr.isatty()
        for receipt in receipts:
            stage = receipt["stage"]
            self.clips_done += stage == self.first
            self.frames_done += receipt["frames"] * (stage == self.first)
            self.captures_done += stage == self.last
            self.failed += bool(receipt["failure"]) and receipt["failed_stage"] == stage
            now = time.monotonic()
            ended = stage == self.last and self.captures_done == self.captures
            if live or ended or now - last > SECONDS_BETWEEN_LINES:
                last = now
                line, end = self._line(now - started), "\n" if ended or not live else ""
                print(f"\r\033[K{line}" if live else line, end=end, file=sys.stderr, flush=True)
            yield receipt

    def _line(self, seconds: float) -> str:
        rate = max(self.frames_done, 1) / max(seconds, 1e-9)
        clips = (
            f"{self.clips_done}/{self.clips} clips, {self.frames_done}/{self.frames} frames, {rate:.1f} frames/s, "
            f"{(self.frames - self.frames_done) / rate:.0f} s left; "
        )
        done = f"{self.captures_done}/{self.captures} captures done"
        return (clips if self.clips else "") + done + (f", {self.failed} failed" if self.failed else "")
