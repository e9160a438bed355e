"""What a user keeps in the output of a job, or had there before: nothing is lost, and no job begins over it."""

import json
import os

import pytest

from mvpose.cli import run as mvpose
from mvpose.errors import ConfigError
from mvpose.models.detection.detector_settings import DetectorConfig
from mvpose.pipeline.engine import EngineConfig
from mvpose.pipeline.job import ReconstructJob, reconstruct_archive
from mvpose.records import Kind
from mvpose.run.run_folder import RunFolder
from mvpose.run.store import ClipStore
from tests.pipeline import coded_footage


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> str:
    folder = str(tmp_path_factory.mktemp("own") / "archive")
    coded_footage.write_capture(f"{folder}/trial", 12)
    return folder


def job(archive: str, output: str, **changes) -> ReconstructJob:
    detector = DetectorConfig(detector=coded_footage.DETECTOR)
    return ReconstructJob(archive=archive, output=output, detector=detector, engine=EngineConfig(local=True), **changes)


def put(path: str, content: str = "years of work") -> str:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(content)
    return path


def test_files_of_the_user_in_a_run_survive_a_replan_and_are_a_note(archive, tmp_path):
    output = str(tmp_path / "run")
    reconstruct_archive(job(archive, output))
    paths = ["poses/trial/sheet.xlsx", "poses/mine.txt", "attempts/1.txt", "commits/poses/git.txt", "tracks/old/a.csv"]
    mine = [put(f"{output}/{path}") for path in paths]
    put(f"{output}/poses/trial/.DS_Store")
    summary = reconstruct_archive(job(archive, output, clip_frames=6, replan=True))
    (note,) = [note for note in summary.notes if "belong to no result" in note]
    assert note.startswith(f"5 files in {output} ") and "'poses/trial/sheet.xlsx'" in note
    assert all(os.path.exists(path) for path in mine)
    assert {name for name in os.listdir(f"{output}/poses/trial") if name.startswith("0")} == {
        os.path.basename(commit.file) for plan in RunFolder(output).plans() for commit in _poses(output, plan)
    }, "what is mvpose's own and of the old plan is removed"


def _poses(output, plan):
    tasks, store = plan.tasks(Kind.POSES), ClipStore(output, Kind.POSES)
    return [commit for task in tasks if (commit := store.committed(task.clip, task.fingerprint))]


@pytest.mark.parametrize("replan", [False, True])
@pytest.mark.parametrize("file", ["notes.txt", "poses/mine.txt", "catalogue.parquet", "run.json"])
def test_an_output_with_files_of_others_is_refused_before_any_work(archive, tmp_path, file, replan):
    path = put(str(tmp_path / "run" / file), json.dumps({"run_id": "a training's", "settings": {}}))
    with pytest.raises(ConfigError, match="Results need their own folder"):
        reconstruct_archive(job(archive, str(tmp_path / "run"), replan=replan))
    assert [os.path.join(where, f) for where, _, files in os.walk(tmp_path) for f in files] == [path]


@pytest.mark.parametrize("place", ["trial", "trial/results", "trial/videos", "trial/videos/deep/down"])
def test_an_output_in_a_capture_is_refused_and_the_capture_stays(archive, place):
    with pytest.raises(ConfigError, match=r"in the folder of a capture, .*/trial:"):
        reconstruct_archive(job(archive, f"{archive}/{place}"))
    assert not os.path.exists(f"{archive}/trial/run.json") and not os.path.exists(f"{archive}/trial/results")


@pytest.mark.parametrize("left", [".DS_Store", f"run.json.{'a' * 32}.tmp"])
def test_an_output_with_nothing_but_hidden_files_or_a_start_that_died_at_once_is_empty(archive, tmp_path, left):
    put(str(tmp_path / "run" / left))
    assert not reconstruct_archive(job(archive, str(tmp_path / "run"))).failures
    os.remove(tmp_path / "run" / "run.json")  # a run that has lost it is one all the same
    assert not reconstruct_archive(job(archive, str(tmp_path / "run"), replan=True)).failures


def test_a_job_whose_record_cannot_be_written_says_so_first_and_ends_by_its_own_rule(
    archive, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", put(str(tmp_path / "a_file")))
    words = ["reconstruct", archive, "--output", "run", "--local", "--detector.detector", coded_footage.DETECTOR]
    assert mvpose(words) == 0
    said = capsys.readouterr().out
    assert said.index("not recorded in MLflow") < said.index("1 clips of 1 captures")
    assert sorted(os.listdir(tmp_path)) == ["a_file", "run"], "nothing is written into the working directory"


def test_a_damaged_note_of_the_record_does_not_fail_a_finished_job(archive, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    words = ["reconstruct", archive, "--output", "run", "--local", "--detector.detector", coded_footage.DETECTOR]
    reconstruct_archive(job(archive, str(tmp_path / "run")))
    put(str(tmp_path / "run" / "tracking.json"), "{")
    assert mvpose(words) == 0
    assert "not recorded in MLflow" in capsys.readouterr().out
    assert not os.path.exists("mlflow.db") and not os.path.exists("mlruns") and not os.path.exists("tracking")
