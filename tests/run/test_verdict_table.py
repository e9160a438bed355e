"""Findings survive the tables of a run, and a strict job fails on bad captures alone."""

from mvpose.errors import FailureReason
from mvpose.footage.rig_table import figures_from_table
from mvpose.quality.findings import CheckKind, Finding, Status
from mvpose.quality.judgement import Grade
from mvpose.records import CaptureTasks, Clip, ClipFailure
from mvpose.run.run_end import strict_failures
from mvpose.run.verdict_table import findings_of, judged_table, verdict_rows, without_result

LATE = Finding(
    check=CheckKind.SYNCHRONISATION,
    status=Status.FAIL,
    reason="5 frames late",
    cameras=("cam02",),
    figures={"offset_frames": 5.0},
)
PAIR = Finding(
    check=CheckKind.EPIPOLAR, status=Status.FAIL, reason="", cameras=("a", "b"), figures={"residual_px": 9.0}
)
FLOOR = Finding(
    check=CheckKind.FLOOR, status=Status.WARN, reason="no feet", measured=False, figures={"floor_m": float("nan")}
)
PLAN = CaptureTasks(capture_id="take", clips=(Clip("take", 0, 50), Clip("take", 50, 100)), keypoints="k", poses="p")


def test_findings_and_their_figures_are_stored_with_the_figures_of_the_poses():
    """Fails if a camera's figure loses its camera, if pairs are stored, or if `measured` is lost."""
    table = judged_table("take", {"used_mean_px": 2.0}, [FLOOR, PAIR, LATE])
    figures = figures_from_table(table)
    assert figures["used_mean_px"] == 2.0 and figures["check/camera/cam02/offset_frames"] == 5.0
    assert set(figures) == {"used_mean_px", "check/camera/cam02/offset_frames", "check/floor_m"}
    assert [(f.check, f.measured, f.cameras) for f in findings_of(table)] == [
        (CheckKind.SYNCHRONISATION, True, ("cam02",)),
        (CheckKind.FLOOR, False, ()),
        (CheckKind.EPIPOLAR, True, ("a", "b")),
    ]


def test_the_deciding_finding_is_the_first_row_of_a_capture():
    """Fails if rows are in the order of the checks."""
    failure = ClipFailure(Clip("lost", 0, 0), "catalogue", FailureReason.CALIBRATION, "no calibration")
    verdicts, rows = verdict_rows([("take", [FLOOR, LATE]), ("lost", without_result(failure))])
    assert [(row["capture"], row["verdict"], row["check"]) for row in rows.to_pylist()] == [
        ("take", "bad", "synchronisation"),
        ("take", "bad", "floor"),
        ("lost", "bad", "poses"),
    ]
    assert verdicts["lost"].grade == Grade.BAD and "no calibration" in verdicts["lost"].reason


def test_a_strict_job_fails_on_bad_captures_with_poses():
    """Fails if usable captures are failures, if a job that is not strict has them, or if a capture fails twice."""
    (failure,) = strict_failures(PLAN, [LATE], (), strict=True)
    assert (failure.clip, failure.reason) == (PLAN.whole, FailureReason.BAD_DATA)
    assert not list(strict_failures(PLAN, [LATE], (), strict=False))
    assert not list(strict_failures(PLAN, [FLOOR], (), strict=True))
    lost = [ClipFailure(clip, "tracks", FailureReason.NO_PERSON, "") for clip in PLAN.clips]
    assert not list(strict_failures(PLAN, [LATE], lost, strict=True))
