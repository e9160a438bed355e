"""A run folder that two drivers begin, replan and end at once."""

import threading
from functools import partial

import pytest

from mvpose.archive.catalogue import Problem
from mvpose.archive.commits import create_once, write_whole
from mvpose.archive.locations import exists, join
from mvpose.archive.planned import Planned, lay_out
from mvpose.archive.run_end import end_run
from mvpose.archive.run_folder import RunFolder, Settings
from mvpose.errors import ConfigError, FailureReason, ResultsError

pytestmark = pytest.mark.fault


def planned(name: str) -> Planned:
    return lay_out([Problem(name, FailureReason.VIDEO_UNREADABLE, "broken")], lambda capture: pytest.fail(str(capture)))


def settings(name: str) -> Settings:
    return Settings({"clip_frames": name}, planned(name).totals.digest)


def begin(uri: str, name: str, replan: bool = False) -> None:
    RunFolder(uri).begin(settings(name), planned(name), replan=replan)


def at_once(*actions) -> list[Exception]:
    """Run all at the same moment; what they raised."""
    barrier, raised = threading.Barrier(len(actions)), []

    def run(action) -> None:
        barrier.wait()
        try:
            action()
        except (ConfigError, ResultsError) as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path) -> str:
    return str(tmp_path) if request.param == "local" else request.getfixturevalue("s3")


def test_of_first_starts_with_other_settings_one_has_the_folder_and_its_plan(folder):
    for i in range(8):
        uri = join(folder, f"run{i}")
        refused = at_once(*(partial(begin, uri, name) for name in "abc"))
        assert len(refused) == 2 and all("other settings" in str(error) for error in refused)
        run = RunFolder(uri)
        assert run.catalogue().problems[0].capture_id == run.settings().values["clip_frames"]
        assert run.plans(run.settings().plan_digest) == []


def test_first_starts_with_the_same_settings_all_have_the_folder(folder):
    uri = join(folder, "run")
    assert at_once(*(lambda: begin(uri, "a") for _ in range(4))) == []
    assert RunFolder(uri).plans(settings("a").plan_digest) == []


@pytest.mark.parametrize("lost", ["plan.parquet", "catalogue.parquet"])
def test_a_start_that_died_before_its_plan_was_written_is_gone_on_with(tmp_path, lost):
    uri = str(tmp_path / "run")
    begin(uri, "a")
    (tmp_path / "run" / "plan.parquet").unlink()
    (tmp_path / "run" / lost).unlink(missing_ok=True)
    begin(uri, "a")
    assert RunFolder(uri).plans() == [] and exists(join(uri, "catalogue.parquet"))


def test_a_replan_that_died_before_its_plan_was_written_leaves_no_old_plan_in_force(tmp_path):
    uri = str(tmp_path / "run")
    begin(uri, "a")
    old = {name: (tmp_path / "run" / name).read_bytes() for name in ("plan.parquet", "catalogue.parquet")}
    begin(uri, "b", replan=True)
    for name, data in old.items():
        (tmp_path / "run" / name).write_bytes(data)
    with pytest.raises(ResultsError, match="was replanned"):
        RunFolder(uri).plans(settings("b").plan_digest)
    begin(uri, "b")
    assert RunFolder(uri).catalogue().problems[0].capture_id == "b"


def test_a_driver_whose_output_was_replanned_removes_nothing_of_its_successor(tmp_path):
    uri = str(tmp_path / "run")
    begin(uri, "a")
    begin(uri, "b", replan=True)
    write_whole(join(uri, "poses", "one", "made-by-b.parquet"), b"b")
    with pytest.raises(ResultsError, match="was replanned"):
        end_run(RunFolder(uri), planned("a"), {})
    assert exists(join(uri, "poses", "one", "made-by-b.parquet"))


def test_a_driver_that_ends_disturbs_no_other_that_writes(tmp_path):
    uri, over, written = str(tmp_path / "run"), threading.Event(), []
    begin(uri, "a")

    def end_again_and_again() -> None:
        while not over.is_set():
            end_run(RunFolder(uri), planned("a"), {})

    def write() -> None:
        try:
            for i in range(300):
                span = f"{i:07d}-{i + 1:07d}"
                write_whole(join(uri, "poses", "one", f"{span}.{'0' * 12}.parquet"), b"x" * 1000)
                written.append(create_once(join(uri, "attempts", "a" * 12, "poses", "one", span, "0"), b"x"))
        finally:
            over.set()

    assert at_once(end_again_and_again, end_again_and_again, write) == []
    assert written == [True] * 300


@pytest.mark.parametrize("text", ["[" * 100_000, "[1]", "{", ""])
def test_a_run_file_that_holds_no_table_is_a_sentence(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(ResultsError, match=r"run\.json cannot be read"):
        RunFolder(str(tmp_path)).settings()
