"""What a check found: pass, warn or fail, in words and figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mvpose.errors import ConfigError


class CheckKind(StrEnum):
    """What is looked at before a job."""

    FOOTAGE = "footage"
    PEOPLE = "people"
    NAMES = "camera names"
    SYNCHRONISATION = "synchronisation"
    CAMERA = "camera pose"
    EPIPOLAR = "epipolar residual"
    SCALE = "scale"
    UPRIGHT = "upright"
    FLOOR = "floor"
    CAMERA_HEIGHT = "camera height"


class Status(StrEnum):
    """How bad it is; the order of the members is the order of badness."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    check: CheckKind
    status: Status
    reason: str
    """In words for a person: what was found and, if it is bad, what to do."""
    cameras: tuple[str, ...] = ()
    """Whom it is about; none where it is about the whole rig."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """What it rests on, by name; names end in their unit."""


@dataclass(frozen=True)
class Preflight:
    """All that was found of one capture."""

    findings: tuple[Finding, ...]

    @property
    def status(self) -> Status:
        """The worst of all findings."""
        return max((f.status for f in self.findings), key=list(Status).index, default=Status.PASS)

    def of(self, check: CheckKind) -> tuple[Finding, ...]:
        """The findings of one check."""
        return tuple(f for f in self.findings if f.check == check)


def status_by(value: float, warn: float, fail: float) -> Status:
    """Above `fail` it fails, above `warn` it warns; NaN warns, because nothing could be measured."""
    if value <= warn:
        return Status.PASS
    return Status.FAIL if value > fail else Status.WARN


@dataclass(frozen=True, kw_only=True)
class PreflightConfig:
    """What is looked at."""

    runs: int = 4
    """Stretches of time, evenly spread over the capture."""
    run_frames: int = 72
    """Consecutive frames of each."""
    max_shift: int = 24
    """Frames by which a camera may be early or late and still be found so; a run must be three times as long. Of a
    shorter capture it is a third."""

    def __post_init__(self) -> None:
        if self.runs < 1 or self.max_shift < 1 or self.run_frames < 3 * self.max_shift:
            raise ConfigError(
                f"{self.runs} runs of {self.run_frames} frames with shifts up to {self.max_shift}: give at least one "
                "run and one frame of shift, and runs three times as long as the largest shift"
            )
