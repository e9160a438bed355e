"""Captures in folders of captures, workers that died, plans that were given up: what lies there and counts for none."""

import os
from dataclasses import replace

import pyarrow as pa
import pytest

from mvpose.archive.leftovers import leftovers, strangers, tidy
from mvpose.archive.store import ClipStore, Commit
from mvpose.errors import FailureReason
from mvpose.records import CaptureTasks, Clip, ClipFailure, Kind

KIND = Kind.POSES


@pytest.fixture(params=["local", "s3"])
def run_uri(request: pytest.FixtureRequest, tmp_path) -> str:
    return str(tmp_path) if request.param == "local" else request.getfixturevalue("s3")


def plan(capture_id: str) -> CaptureTasks:
    clips = (Clip(capture_id, 0, 10), Clip(capture_id, 10, 20))
    return CaptureTasks(capture_id=capture_id, clips=clips, keypoints="k" * 16, poses="p" * 16)


def made(run_uri: str, own: CaptureTasks) -> list[Commit]:
    store = ClipStore(run_uri, KIND)
    return [store.commit_table(t.clip, t.fingerprint, pa.table({"frame": [t.clip.start]}), {}) for t in own.tasks(KIND)]


def everything(run_uri: str, plans: list[CaptureTasks]) -> tuple[set[str], set[str]]:
    """What lies beside the results of captures, each of which is made."""
    commits, data, folders = [], [], []
    for own in plans:
        beside = leftovers(run_uri, own, KIND, made(run_uri, own))
        commits, data, folders = [*commits, *beside.commits], [*data, *beside.data], [*folders, *beside.folders]
    others = strangers(run_uri, KIND, {own.capture_id for own in plans}, folders)
    found = [*commits, *others.commits], [*data, *others.data]
    assert all(len(set(paths)) == len(paths) for paths in found), "told once"
    return set(found[0]), set(found[1])


def test_nothing_lies_beside_whole_captures_whose_folders_lie_in_each_other(run_uri):
    assert everything(run_uri, [plan(name) for name in ("a", "a/a", "a/b", "a/b/c", "b/deep/down")]) == (set(), set())


def test_all_of_a_capture_that_is_not_planned_is_found_wherever_it_lies(run_uri):
    plans = [plan(name) for name in ("a", "a/b/c", "d")]
    strange = [plan(name) for name in ("a/b", "a/x/y", "e", "d2")]
    commits = [commit for own in strange for commit in made(run_uri, own)]
    found = everything(run_uri, plans)
    assert found[1] == {commit.file for commit in commits}
    assert len(found[0]) == len(commits) and all(path.startswith("commits/poses/") for path in found[0])


def test_an_old_commit_and_the_data_of_a_dead_worker_are_found(run_uri):
    own = plan("a")
    store = ClipStore(run_uri, KIND)
    old = store.commit_table(own.clips[0], "0" * 16, pa.table({"frame": [7]}), {})
    orphan = store.commit_table(own.clips[1], "1" * 16, pa.table({"frame": [8]}), {})
    store.withdraw(orphan.clip, orphan.fingerprint)
    commits, data = everything(run_uri, [own])
    assert commits == {f"commits/poses/a/0000000-0000010.{'0' * 16}.json"} and data == {old.file, orphan.file}
    assert not tidy(run_uri, own, KIND)


def test_a_capture_is_tidy_only_if_each_task_has_one_commit_and_one_file(tmp_path):
    own = plan("a")
    first, second = made(str(tmp_path), own)
    assert tidy(str(tmp_path), own, KIND) and not tidy(str(tmp_path), replace(own, poses="q" * 16), KIND)
    data = (tmp_path / second.file).read_bytes()
    os.remove(tmp_path / second.file)
    assert not tidy(str(tmp_path), own, KIND)
    (tmp_path / second.file.replace(".", ".0", 1)).write_bytes(data)
    (tmp_path / first.file.replace(".", ".0", 1)).write_bytes(data)
    assert not tidy(str(tmp_path), own, KIND), "two files of one clip"


def test_failures_have_no_data_and_are_no_leftovers(run_uri):
    own, store = plan("a"), ClipStore(run_uri, KIND)
    failed = [
        store.commit_failure(ClipFailure(clip, "poses", FailureReason.NO_PERSON, "nobody"), own.poses)
        for clip in own.clips
    ]
    beside = leftovers(run_uri, own, KIND, failed)
    assert (beside.commits, beside.data) == ((), ())
