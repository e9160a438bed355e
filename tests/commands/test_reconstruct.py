"""What is told and recorded of a run does not grow with its captures beyond a page."""

import pytest

from mvpose.commands.reconstruct import MAX_LINES, Reconstruct, outcome_text, recorded_figures
from mvpose.footage.rig_table import figures_to_table
from mvpose.quality.judgement import Grade, Verdict
from mvpose.run.capture_tables import FigureTable, figure_rows, figure_writer
from mvpose.run.run_folder import Summary

EXCHANGED = Verdict(Grade.BAD, "camera names a, b: exchanged")


@pytest.fixture
def summary_of(tmp_path):
    def make(captures: int) -> Summary:
        uri = str(tmp_path / "figures.parquet")
        figures = [figures_to_table(f"take{i:03d}", {"body_used_mean_px": float(i)}) for i in range(captures)]
        with figure_writer(uri) as writer:
            writer.write_table(figure_rows(figures))
        verdicts = {f"take{i:03d}": Verdict(Grade.GOOD) for i in range(captures)} | {"take001": EXCHANGED}
        return Summary(captures=captures, clips=captures, frames=10, figures=FigureTable(uri), verdicts=verdicts)

    return make


def test_a_small_run_is_told_and_recorded_capture_by_capture(summary_of):
    summary = summary_of(3)
    assert recorded_figures(summary) == {f"take{i:03d}/body_used_mean_px": float(i) for i in range(3)}
    said = outcome_text(Reconstruct(archive="a", output="out"), summary, None, worked=True)
    assert "take002: good: reprojection error 2.0 px" in said and "verdicts.parquet" not in said


def test_a_bad_capture_comes_first_with_its_reason_and_without_its_figures(summary_of):
    """Fails if captures are listed by name, or with the error of the views that were kept."""
    said = outcome_text(Reconstruct(archive="a", output="out"), summary_of(3), None, worked=True).splitlines()
    assert said[1] == "  take001: bad: camera names a, b: exchanged"


def test_of_a_large_run_the_first_captures_and_the_medians_are_told(summary_of):
    summary = summary_of(2 * MAX_LINES + 1)
    assert recorded_figures(summary) == {"median/body_used_mean_px": pytest.approx(MAX_LINES)}
    said = outcome_text(Reconstruct(archive="a", output="out"), summary, None, worked=True).splitlines()
    assert sum("reprojection error" in line for line in said) == MAX_LINES - 1
    assert said[-2] == "  ... in total 40 good, 0 usable, 1 bad: all in out/verdicts.parquet"
