import os

import pytest

import mvpose
from mvpose.benchmarks.stage_cost import StagesBenchmark, measured, run

STAGES = ("read", "observe", "associate", "link", "triangulate", "write", "identities", "quality")


def test_each_stage_is_measured():
    # Fails if a stage is left out, or the clip instead of the instants is divided by the captures.
    figures = measured(StagesBenchmark(frames=4, people=2, captures=2, rounds=1))
    assert all(figures[f"clip: {stage}, ms per frame"] > 0 for stage in STAGES)
    assert figures["instants: quality over the rest"] > 0


@pytest.mark.slow
def test_another_checkout_takes_turns_with_this_one(capsys):
    checkout = os.path.dirname(os.path.dirname(os.path.abspath(mvpose.__file__)))
    figures = run(StagesBenchmark(frames=4, people=2, captures=2, rounds=1, against=checkout))
    assert all(figures[f"ratio: clip: {stage}, ms per frame"] > 0 for stage in STAGES)
    assert "other: start: imports after torch, s" in capsys.readouterr().out
