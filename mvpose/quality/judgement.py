"""One verdict per capture: good, usable or bad, from the findings on its 2D joints, its cameras and its poses.

A capture is bad if a check fails, and usable if one warns or cannot be measured: a missing figure never counts as a
good one. The reason is the finding that explains the others, in the order of `CAUSES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from mvpose.quality.findings import CheckKind, Finding, Status

# Causes first, then their symptoms. The residuals of camera pairs are not judged: one faulty camera spoils all of its
# pairs, and the check of the camera itself names it.
CAUSES = (
    CheckKind.SAME_FOOTAGE,
    CheckKind.NAMES,
    CheckKind.ORIENTATION,
    CheckKind.CALIBRATION,
    CheckKind.SPACING,
    CheckKind.SCALE,
    CheckKind.FOCAL,
    CheckKind.MOVED,
    CheckKind.SYNCHRONISATION,
    CheckKind.CAMERA,
    CheckKind.UPRIGHT,
    CheckKind.CAMERA_HEIGHT,
    CheckKind.FLOOR,
    CheckKind.PEOPLE,
    CheckKind.POSES,
    CheckKind.LEFT_OUT,
    CheckKind.VIEWS,
    CheckKind.BONES,
    CheckKind.SPEED,
    CheckKind.FOOTAGE,
)


class Grade(StrEnum):
    """How far the poses of a capture can be trusted, best first."""

    GOOD = "good"
    USABLE = "usable"
    BAD = "bad"


@dataclass(frozen=True)
class Verdict:
    """The grade of a capture, and why."""

    grade: Grade
    reason: str = ""
    """What was found and what to do; empty for a good capture."""

    @property
    def severity(self) -> int:
        """0 for a good capture; the worse, the higher."""
        return list(Grade).index(self.grade)

    def __str__(self) -> str:
        return f"{self.grade}: {self.reason}" if self.reason else self.grade


NOT_JUDGED = Verdict(Grade.USABLE, "not measurable: no check was made")


def ranked(findings: Sequence[Finding]) -> list[Finding]:
    """The findings in order of weight: the one that decides is the first."""
    judged = [f for f in findings if f.check in CAUSES]
    others = [f for f in findings if f.check not in CAUSES]
    return [*sorted(judged, key=lambda f: (-_severity(f), not f.measured, CAUSES.index(f.check))), *others]


def verdict_of(findings: Sequence[Finding]) -> Verdict:
    """The verdict on a capture from all of its findings; usable if there are none."""
    if not findings:
        return NOT_JUDGED
    first = ranked(findings)[0]
    grade = list(Grade)[_severity(first)]
    if grade == Grade.GOOD:
        return Verdict(grade)
    same = [f for f in findings if (f.check, f.status, f.reason) == (first.check, first.status, first.reason)]
    cameras = dict.fromkeys(camera for finding in same for camera in finding.cameras)
    return Verdict(grade, f"{first.check}{' ' if cameras else ''}{', '.join(cameras)}: {first.reason}")


def _severity(finding: Finding) -> int:
    """Position of the grade that the finding allows at best."""
    return list(Status).index(finding.status) if finding.measured else 1
