import pytest

from mvpose.benchmarks.overhead import OverheadBenchmark, Round, Stamp, run


def test_what_workers_wait_between_clips_is_apart_from_the_clips_and_from_the_start():
    """Two workers, the second late; each takes 2 s for a clip and 0.5 s to the next."""
    clips = [
        Stamp(worker, up + 2.5 * i, up + 2.5 * i + 2.0, 1.5)
        for worker, up in ((7.0, 14.0), (8.0, 17.0))
        for i in range(4)
    ]
    clips += [Stamp(9.0, 20.0, 29.0, 9.0), Stamp(9.0, 29.5, 31.5, 1.5)]  # its first clip counts as start alone
    shorter = [Stamp(c.worker, c.started / 2, c.ended / 2, 0.5) for c in clips]
    turn = Round({"keypoints": 10.0, "poses": 5.0}, {"keypoints": clips[::-1], "poses": shorter})
    assert (turn.clip_s(["keypoints"]), turn.between_s(["keypoints"]), turn.start_s(["keypoints"])) == (2.0, 0.5, 7.0)
    both = ["keypoints", "poses"]
    assert turn.processor_s(both) == 2.0
    assert (turn.clip_s(both), turn.between_s(both), turn.start_s(both)) == (3.0, 0.75, 10.5)


def test_too_few_clips_are_refused():
    with pytest.raises(ValueError, match="four or more"):
        run(OverheadBenchmark(clips=7, workers=2))


@pytest.mark.slow
def test_both_do_the_job_and_each_round_has_its_ratio(capsys):
    figures = run(OverheadBenchmark(width=160, height=90, clip_frames=6, clips=8, rounds=2))
    for part in ("decoding and 2D", "all stages"):
        ratios = figures[f"Ray over loop, total, {part}"]
        assert isinstance(ratios, list) and len(ratios) == 2 and min(ratios) > -1
    assert "round 2: Ray over loop, between clips" in capsys.readouterr().out
