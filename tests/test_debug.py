"""`--debug`: a traceback where there is one sentence without it, in the command and in workers."""

import logging

import pytest

from mvpose.cli import run
from mvpose.errors import MvposeError, VideoError, is_debugging, set_debugging
from mvpose.pipeline.worker import ClipWorker, Outcome, StageSpec
from mvpose.records import Clip, Task


@pytest.fixture(autouse=True)
def not_debugging():
    yield
    set_debugging(False)


MISTAKES = {
    "verify": ["verify", "nowhere"],
    "index": ["index", "nowhere"],
    "reconstruct": ["reconstruct"],
    "train": ["train", "--data", "nowhere", "--output", "out"],
    "tune": ["tune"],
    "import": ["import", "openpose"],
    "evaluate": ["evaluate"],
    "file": ["reconstruct", "--config", "nowhere.toml"],
}


@pytest.mark.parametrize("what", MISTAKES)
def test_a_mistake_is_one_sentence_and_with_debug_its_traceback_too(what, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = MISTAKES[what]
    assert run(arguments) == 1
    sentence = capsys.readouterr().err
    assert sentence.startswith("mvpose: ") and sentence.count("\n") == 1 and not is_debugging()
    for position in (0, 1, len(arguments)):
        assert run([*arguments[:position], "--debug", *arguments[position:]]) == 1
        said = capsys.readouterr().err
        assert said.startswith("Traceback (most recent call last)") and said.endswith(sentence)
        assert is_debugging() and logging.getLogger("mvpose.run").isEnabledFor(logging.DEBUG)


def test_usage_names_the_flag(capsys):
    assert run(["--help", "--debug"]) == 0
    assert "--debug" in capsys.readouterr().out


def refused(task: Task) -> Outcome:
    try:
        raise OSError("no answer from https://user:secret@host/video.mp4")
    except OSError as error:
        raise VideoError("cannot be read") from error


def broken(task: Task) -> Outcome:
    raise RuntimeError("s3://key:secret@bucket/a")


def not_made() -> None:
    raise MvposeError("no weights")


@pytest.mark.parametrize("debugging", [False, True])
def test_workers_log_tracebacks_without_credentials_while_debugging_alone(debugging, tmp_path, caplog):
    set_debugging(debugging)
    for number, make in enumerate((lambda: refused, lambda: broken, not_made)):
        run_uri = str(tmp_path / f"{number}")
        worker = ClipWorker(StageSpec(kind="poses", make=make, arguments={}, run_uri=run_uri, invocation="one"))
        receipt = worker.receipt(Task(Clip("a", 0, 10), "f" * 16))
        assert receipt["unmade"] or receipt["failure"]
    assert len(caplog.records) == (3 if debugging else 0)
    if debugging:
        first, second, third = (record.getMessage() for record in caplog.records)
        assert "poses of a/0000000-0000010: Traceback" in first and "no answer from https://host" in first
        assert "in broken" in second and "poses cannot be created: Traceback" in third
        assert "secret" not in first + second + third
