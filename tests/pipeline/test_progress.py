from mvpose.pipeline.progress import Progress


def receipts(*stages: str, failure: str = "", failed_stage: str = "") -> list[dict]:
    return [{"stage": s, "frames": 10, "failure": failure, "failed_stage": failed_stage} for s in stages]


def progress(clips: int, captures: int) -> Progress:
    return Progress(first="keypoints", last="quality", clips=clips, frames=10 * clips, captures=captures)


def test_clips_and_captures_are_counted_over_the_whole_job_and_a_failed_clip_once(capsys, monkeypatch):
    monkeypatch.setattr("mvpose.pipeline.progress.SECONDS_BETWEEN_LINES", -1.0)
    failed = receipts("keypoints", "tracks", failure="nobody", failed_stage="keypoints")
    passed = receipts("keypoints", "tracks", "quality", "keypoints", "tracks")
    list(progress(3, 2).counted([*passed, *failed, *receipts("poses", "quality")]))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("1/3 clips, 10/30 frames") and lines[0].endswith("; 0/2 captures done")
    assert lines[2].startswith("1/3 clips") and lines[2].endswith("; 1/2 captures done")
    assert lines[-1].startswith("3/3 clips, 30/30 frames")
    assert lines[-1].endswith(" 0 s left; 2/2 captures done, 1 failed")


def test_elsewhere_than_on_a_terminal_a_short_job_prints_one_line(capsys):
    list(progress(1, 1).counted(receipts("keypoints", "poses", "quality")))
    assert capsys.readouterr().err.count("\n") == 1


def test_on_a_terminal_the_line_is_overwritten_until_the_last_capture(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    list(progress(2, 2).counted(receipts("keypoints", "quality", "keypoints", "quality")))
    said = capsys.readouterr().err
    assert said.count("\r") == 4 and said.count("\n") == 1 and said.endswith("\n")


def test_a_start_that_only_finishes_captures_counts_no_clips(capsys):
    list(progress(0, 1).counted(receipts("poses", "quality")))
    assert capsys.readouterr().err == "1/1 captures done\n"


def test_nothing_to_do_prints_nothing(capsys):
    list(progress(0, 0).counted([]))
    assert capsys.readouterr().err == ""
