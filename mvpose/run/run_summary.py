"""What came of a job: `summary.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mvpose.records import ClipFailure


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What came of a job."""

    captures: int
    clips: int
    frames: int
    """Frames of all planned captures."""
    failures: tuple[ClipFailure, ...] = ()
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Figures of merit by capture; those of a run that has ended are read when they are asked for."""
    notes: tuple[str, ...] = ()
    """What was assumed of the footage and its calibration, and what of it was left out."""
    plan_digest: str = ""
    """Of the plan that this came of."""

    @property
    def failed_share(self) -> float:
        """Failed clips (a capture that could not be planned counts as one) over all."""
        unplanned = sum(f.stage == "catalogue" for f in self.failures)
        return len(self.failures) / max(1, self.clips + unplanned)

    def exit_code(self, max_failed_share: float) -> int:
        """0 complete, 3 complete with few enough failures, 4 with more."""
        if not self.failures:
            return 0
        return 3 if self.failed_share <= max_failed_share else 4
