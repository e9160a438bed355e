"""Progress of long work: a live line on a terminal, a line now and then elsewhere, silence on request."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

SECONDS_BETWEEN_LINES = 10.0


def with_progress(receipts: Iterable[dict[str, Any]], label: str, clips: int, frames: int) -> Iterator[dict[str, Any]]:
    """Pass receipts on, telling clips, failures, frames a second and time left."""
    started = last = time.monotonic()
    done = failed = frames_done = 0
    live = sys.stderr.isatty()
    for receipt in receipts:
        done, frames_done = done + 1, frames_done + int(receipt["frames"])
        failed += bool(receipt["failure"])
        now = time.monotonic()
        if live or done == clips or now - last > SECONDS_BETWEEN_LINES:
            last = now
            rate = max(frames_done, 1) / max(now - started, 1e-9)
            line = (
                f"{label}: {done}/{clips} clips, {frames_done}/{frames} frames, {rate:.1f} frames/s, "
                f"{(frames - frames_done) / rate:.0f} s left" + (f", {failed} failed" if failed else "")
            )
            end = "\n" if done == clips or not live else ""
            print(f"\r\033[K{line}" if live else line, end=end, file=sys.stderr, flush=True)
        yield receipt
