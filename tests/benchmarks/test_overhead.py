import pytest

from mvpose.benchmarks.overhead import OverheadBenchmark, Turn, run


def test_a_clip_s_time_is_counted_once_every_worker_has_done_one():
    turn = Turn({"keypoints": [10.0, 10.5, 12.0, 12.5, 14.0, 14.5], "poses": [5.0, 5.0, 5.5, 5.5, 6.0, 6.0]}, workers=2)
    assert turn.clip_s(["keypoints"]) == 1.0 and turn.clip_s(["poses"]) == 0.25
    assert turn.clip_s(["keypoints", "poses"]) == 1.25
    assert turn.start_s(["keypoints"]) == 14.5 - 6 and turn.start_s(["poses"]) == 6 - 1.5


def test_too_few_clips_are_refused():
    with pytest.raises(ValueError, match="two or more"):
        run(OverheadBenchmark(clips=3, workers=2))


@pytest.mark.slow
def test_both_do_the_job_and_each_round_has_its_ratio(capsys):
    figures = run(OverheadBenchmark(width=160, height=90, clip_frames=6, clips=4, rounds=2))
    for part in ("decoding and 2D", "all stages"):
        ratios = figures[f"Ray over loop, {part}"]
        assert isinstance(ratios, list) and len(ratios) == 2 and min(ratios) > -1
    assert "round 2: Ray over loop" in capsys.readouterr().out
