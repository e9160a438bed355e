from mvpose.pipeline.progress import Progress


def receipts(number: int, frames: int = 10, failure: str = "") -> list[dict]:
    return [{"frames": frames, "failure": failure} for _ in range(number)]


def test_a_stage_that_is_done_in_parts_counts_over_the_whole_job(capsys, monkeypatch):
    monkeypatch.setattr("mvpose.pipeline.progress.SECONDS_BETWEEN_LINES", -1.0)
    progress = Progress(label="poses", clips=5, frames=50)
    list(progress.counted(receipts(2), 2))
    progress.without(1, 10)
    list(progress.counted(receipts(2, failure="nobody"), 2))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("poses: 1/5 clips, 10/50 frames") and lines[1].startswith("poses: 2/5 clips")
    assert lines[-1].startswith("poses: 4/4 clips, 40/40 frames") and lines[-1].endswith("0 s left, 2 failed")


def test_elsewhere_than_on_a_terminal_a_short_job_says_one_line(capsys):
    list(Progress(label="poses", clips=3, frames=30).counted(receipts(3), 3))
    assert capsys.readouterr().err.count("\n") == 1


def test_on_a_terminal_the_line_ends_with_each_part(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    progress = Progress(label="poses", clips=4, frames=40)
    list(progress.counted(receipts(2), 2))
    list(progress.counted(receipts(2), 2))
    assert capsys.readouterr().err.count("\n") == 2


def test_nothing_to_do_says_nothing(capsys):
    list(Progress(label="poses", clips=0, frames=0).counted([], 0))
    assert capsys.readouterr().err == ""
