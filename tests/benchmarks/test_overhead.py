import pytest

from mvpose.benchmarks.overhead import OverheadBenchmark, Turn, run


def test_a_clip_s_time_is_counted_when_all_workers_are_up():
    """Two workers; one is up after 4 s, the other after 7. Each needs 1.9 s for a clip and waits 0.1 for the next."""
    done = sorted([(4 + 2.0 * i, 1.9) for i in range(1, 8)] + [(7 + 2.0 * i, 1.9) for i in range(1, 6)])
    assert len(done) == 12
    turn = Turn({"keypoints": done, "poses": [(t / 2, w / 2) for t, w in done]}, workers=2)
    assert turn.clip_s(["keypoints"]) == pytest.approx(1.0) and turn.clip_s(["keypoints", "poses"]) == pytest.approx(
        1.5
    )
    assert turn.between_s(["keypoints"]) == pytest.approx(0.1)
    assert turn.between_s(["keypoints", "poses"]) == pytest.approx(0.15)
    assert turn.start_s(["keypoints"]) == pytest.approx(done[-1][0] - 12)


def test_too_few_clips_are_refused():
    with pytest.raises(ValueError, match="four or more"):
        run(OverheadBenchmark(clips=7, workers=2))


@pytest.mark.slow
def test_both_do_the_job_and_each_round_has_its_ratio(capsys):
    figures = run(OverheadBenchmark(width=160, height=90, clip_frames=6, clips=8, rounds=2))
    for part in ("decoding and 2D", "all stages"):
        ratios = figures[f"Ray over loop, {part}"]
        assert isinstance(ratios, list) and len(ratios) == 2 and min(ratios) > -1
    assert "round 2: Ray over loop" in capsys.readouterr().out
