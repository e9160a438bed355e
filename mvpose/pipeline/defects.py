"""A stage that raises the same on every clip is at fault itself: the job stops before it has tried them all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from mvpose.errors import StageError

ENOUGH = 5
"""First clips that raise alike. All clips of one capture of an odd kind may do so too: where the job has two captures,
the clips are of two at least."""
_NUMBERS = re.compile(r"0x[0-9a-f]+|\d+", re.IGNORECASE)


@dataclass
class FirstClips:
    """What one stage made of the first clips of this start of the job, seen by the driver from their receipts.

    It is decided once one clip has a result, has failed for a reason of its own, or has raised something else.
    """

    kind: str
    decided: bool = False
    alike: set[str] = field(default_factory=set)
    """Tracebacks without their numbers."""
    captures: set[str] = field(default_factory=set)
    clips: int = 0

    def watched(self, receipts: Iterable[dict[str, Any]], *, several: bool) -> Iterator[dict[str, Any]]:
        """Pass receipts on; StageError once enough first clips have raised alike. `several`: the job has captures."""
        for receipt in receipts:
            yield receipt
            if self.decided:
                continue
            self.alike.add(_NUMBERS.sub("", str(receipt["traceback"])))
            self.captures.add(str(receipt["capture_id"]))
            self.clips += 1
            self.decided = not receipt["traceback"] or len(self.alike) > 1
            if not self.decided and self.clips >= ENOUGH and len(self.captures) > several:
                raise StageError(
                    f"{self.kind} failed alike on each of the first {self.clips} clips, so the job has stopped: "
                    f"{receipt['failure']} When its cause is mended, run the same command with --retry-failed, which "
                    "does these clips again; without it they stay failed and the others are tried."
                )
