import pytest

from mvpose.benchmarks.overhead import OverheadBenchmark, Round, Stamp, run


def test_figures_of_a_turn_are_those_of_its_stamps():
    """Two workers detect, the second late, 2 s a clip and 0.5 s to its tracks; a third finishes captures."""
    keypoints, tracks, quality = [], [], []
    for worker, up in ((7.0, 14.0), (8.0, 17.0)):
        for i in range(4):
            start = up + 4 * i
            keypoints.append(Stamp(worker, start, start + 2.0, 1.5))
            tracks.append(Stamp(worker, start + 2.5, start + 3.5, 0.5))
            quality.append(Stamp(9.0, start + 4.0, start + 4.5, 0.25))
    turn = Round(10.0, {"keypoints": keypoints[::-1], "tracks": tracks, "quality": quality})
    assert (turn.start_s, turn.span_s, turn.processor_s) == (4.0, 19.5, 2.25)
    # 4 clips of 3 s in 15.5 s, as a worker is not yet there before its first clip, nor still there after its last.
    assert turn.idle_share == pytest.approx(1 - 12 / 15.5)
    assert turn.first_capture_share == pytest.approx(4.5 / 19.5)


def test_too_few_clips_are_refused():
    with pytest.raises(ValueError, match="four or more"):
        run(OverheadBenchmark(clips=7, workers=2))


@pytest.mark.slow
def test_both_do_the_job_and_each_round_has_its_ratio(capsys):
    figures = run(OverheadBenchmark(width=160, height=90, clip_frames=6, clips=8, rounds=2))
    ratios = figures["Ray over loop, total"]
    assert isinstance(ratios, list) and len(ratios) == 2 and min(ratios) > -1
    assert 0 <= min(figures["Ray: share of workers' time outside of stages"]) < 1
    assert 0 < min(figures["Ray: share of the job until the first capture is done"]) <= 1
    assert "round 2: Ray over loop, CPU" in capsys.readouterr().out
