"""Findings of the checks: pass, warn or fail, in words and figures; and what the checks are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mvpose.errors import ConfigError

UNIT_FLAGS = "--catalogue.unit, or --unit of `mvpose import`"
"""The flags that set a calibration's unit: findings are the same for footage and imported 2D joints."""


def use_up(axis: str) -> str:
    """Advice to set the up axis of a calibration's world."""
    return f"use --catalogue.up={axis}, or --up={axis} of `mvpose import`"


class CheckKind(StrEnum):
    """The checks before a job, then those of its poses."""

    SAME_FOOTAGE = "same footage"
    FOOTAGE = "footage"
    PEOPLE = "people"
    NAMES = "camera names"
    ORIENTATION = "image orientation"
    CALIBRATION = "calibration"
    SPACING = "camera spacing"
    FOCAL = "focal length"
    SYNCHRONISATION = "synchronisation"
    MOVED = "camera moved"
    CAMERA = "camera pose"
    EPIPOLAR = "epipolar residual"
    SCALE = "scale"
    UPRIGHT = "upright"
    FLOOR = "floor"
    CAMERA_HEIGHT = "camera height"
    POSES = "poses"
    LEFT_OUT = "left-out camera"
    VIEWS = "views used"
    BONES = "bone lengths"
    SPEED = "speed"


class Status(StrEnum):
    """Severity, in ascending order of the members."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The result of one check."""

    check: CheckKind
    status: Status
    reason: str
    """For a person: what was found and, if it is bad, what to do."""
    cameras: tuple[str, ...] = ()
    """The cameras concerned; empty if it concerns the whole rig."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """The figures behind it, by name; names end in their unit."""
    measured: bool = True
    """Whether the footage allows the check at all; a pass that was not measured says nothing."""


@dataclass(frozen=True)
class Preflight:
    """All findings of one capture."""

    findings: tuple[Finding, ...]

    @property
    def status(self) -> Status:
        """The worst status of all findings."""
        return max((f.status for f in self.findings), key=list(Status).index, default=Status.PASS)

    def of(self, check: CheckKind) -> tuple[Finding, ...]:
        """The findings of one check."""
        return tuple(f for f in self.findings if f.check == check)


def status_by(value: float, warn: float, fail: float) -> Status:
    """Fail above `fail`, warn above `warn`. NaN warns, because nothing could be measured."""
    if value <= warn:
        return Status.PASS
    return Status.FAIL if value > fail else Status.WARN


@dataclass(frozen=True, kw_only=True)
class PreflightConfig:
    """The sample of frames that is checked."""

    runs: int = 4
    """Number of stretches, spread evenly over the capture."""
    run_frames: int = 72
    """Consecutive frames per stretch."""
    max_shift: int = 24
    """Maximum offset in frames of a camera that can be measured. A stretch must be three times as long. In a shorter
    capture, the maximum is a third of its length."""

    def __post_init__(self) -> None:
        if self.runs < 1 or self.max_shift < 1 or self.run_frames < 3 * self.max_shift:
            raise ConfigError(
                f"{self.runs} runs of {self.run_frames} frames with shifts up to {self.max_shift}: at least one run "
                "and one frame of shift are required, and runs must be three times as long as the largest shift"
            )
