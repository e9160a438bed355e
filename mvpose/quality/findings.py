"""What a check found: pass, warn or fail, in words and figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


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
