"""Captures in folders of captures, dead workers, replaced plans, files of the user: what is left over."""

import os
import shutil
from dataclasses import replace

import pyarrow as pa
import pytest

from mvpose.archive.commits import remove_file, write_whole
from mvpose.archive.leftovers import Leftovers, leftovers, remove_attempts, strangers, tidy
from mvpose.archive.locations import exists, join, read_bytes
from mvpose.archive.store import ClipStore, Commit
from mvpose.errors import FailureReason
from mvpose.records import CaptureTasks, Clip, ClipFailure, Kind

KIND = Kind.POSES


@pytest.fixture(params=["local", "s3"])
def run_uri(request: pytest.FixtureRequest, tmp_path) -> str:
    return str(tmp_path) if request.param == "local" else request.getfixturevalue("s3")


def plan(capture_id: str) -> CaptureTasks:
    clips = (Clip(capture_id, 0, 10), Clip(capture_id, 10, 20))
    return CaptureTasks(capture_id=capture_id, clips=clips, keypoints="a" * 16, poses="b" * 16)


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


def test_an_old_commit_and_its_data_are_found_and_data_that_none_names_are_not_known(run_uri):
    own = plan("a")
    store = ClipStore(run_uri, KIND)
    old = store.commit_table(own.clips[0], "0" * 16, pa.table({"frame": [7]}), {})
    orphan = store.commit_table(own.clips[1], "1" * 16, pa.table({"frame": [8]}), {})
    remove_file(store.commit_uri(orphan.clip, orphan.fingerprint))
    commits, data = everything(run_uri, [own])
    assert commits == {f"commits/poses/a/0000000-0000010.{'0' * 16}.json"} and data == {old.file}
    assert leftovers(run_uri, own, KIND, made(run_uri, own)).unknown == (orphan.file,)
    assert not tidy(run_uri, own, KIND)


def test_a_result_that_is_withdrawn_or_was_made_twice_leaves_no_data(run_uri):
    own, store = plan("a"), ClipStore(run_uri, KIND)
    first, second = made(run_uri, own)
    assert store.commit_table(first.clip, first.fingerprint, pa.table({"frame": [9]}), {}) == first
    store.withdraw(second)
    assert [exists(join(run_uri, commit.file)) for commit in (first, second)] == [True, False]
    assert leftovers(run_uri, own, KIND, [first]) == Leftovers()


def test_copies_of_results_under_their_own_names_are_the_user_s_in_the_folder_of_another_kind_or_capture(run_uri):
    """Tracks and poses of a clip have the same columns, metadata and fingerprint: only commits tell them apart."""
    own, other = plan("a"), plan("b")
    commits = [*made(run_uri, own), *made(run_uri, other)]
    failure = ClipFailure(own.clips[0], "poses", FailureReason.NO_PERSON, "nobody")
    ClipStore(run_uri, KIND).commit_failure(failure, "c" * 16)
    failed = f"commits/poses/a/0000000-0000010.{'c' * 16}.json"
    copies = {failed: failed.replace("poses", "tracks"), commits[0].file: commits[0].file.replace("poses", "tracks")}
    copies |= {commits[2].file: commits[2].file.replace("/b/", "/a/")}
    for source, copy in copies.items():
        write_whole(join(run_uri, copy), read_bytes(join(run_uri, source)))
    tracks = leftovers(run_uri, own, Kind.TRACKS, [])
    assert tracks == Leftovers(unknown=(copies[failed], copies[commits[0].file]))
    poses = leftovers(run_uri, own, KIND, commits[:2])
    assert poses.commits == (failed,) and poses.data == ()
    assert poses.unknown in {(), (copies[commits[2].file],)}, "the same bytes are the same result"


def test_data_of_an_old_commit_that_the_user_has_changed_is_the_user_s(run_uri):
    own, store = plan("a"), ClipStore(run_uri, KIND)
    for capture_id in ("a", "gone"):
        old = store.commit_table(Clip(capture_id, 0, 10), "0" * 16, pa.table({"frame": [7]}), {})
        write_whole(join(run_uri, old.file), b"edited")
        found = leftovers(run_uri, own, KIND, []) if capture_id == "a" else strangers(run_uri, KIND, {"a"}, [])
        assert found.data == () and found.unknown == (old.file,) and len(found.commits) == 1


def test_a_capture_is_tidy_only_if_each_task_has_one_commit_and_one_file(tmp_path):
    own = plan("a")
    first, second = made(str(tmp_path), own)
    assert tidy(str(tmp_path), own, KIND) and not tidy(str(tmp_path), replace(own, poses="c" * 16), KIND)
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


def snapshot(folder: str) -> dict[str, bytes]:
    found = {}
    for where, _, files in os.walk(folder):
        for file in files:
            with open(os.path.join(where, file), "rb") as opened:
                found[os.path.relpath(os.path.join(where, file), folder)] = opened.read()
    return found


def test_no_file_of_the_user_is_taken_for_one_of_mvpose_however_it_is_named(tmp_path):
    uri, own = str(tmp_path), plan("a")
    commits = made(uri, own)
    data, record = commits[0].file, f"commits/poses/{commits[0].clip.clip_id}.{commits[0].fingerprint}.json"
    named = "0000000-0000010.0123456789ab"
    mine = {
        "poses/a/sheet.xlsx": b"x", "poses/mine.txt": b"x", "poses/a/deep/down.csv": b"x", "poses/b/x.parquet": b"x",
        f"poses/a/{named}.parquet": b"named as by mvpose, of other content", f"poses/b/{named}.parquet": b"x",
        f"commits/poses/a/{named}cdef.json": b"{}", "commits/poses/git.txt": b"x",
    }  # fmt: skip
    for path, content in mine.items():
        os.makedirs(os.path.dirname(tmp_path / path), exist_ok=True)
        (tmp_path / path).write_bytes(content)
    # Copies that a user makes of folders and of single files.
    shutil.copytree(tmp_path / "poses/a", tmp_path / "poses/a_before", ignore=lambda *_: ["deep"])
    shutil.copytree(tmp_path / "commits/poses/a", tmp_path / "commits/poses/a_before")
    shutil.copy(tmp_path / data, f"{tmp_path / data}.bak")
    shutil.copy(tmp_path / record, f"{tmp_path / record}.bak")
    before = snapshot(uri)
    assert everything(uri, [own]) == (set(), set())
    beside = leftovers(uri, own, KIND, commits)
    others = strangers(uri, KIND, {"a"}, beside.folders)
    results = {
        *(c.file for c in commits),
        *(f"commits/poses/{t.clip.capture_id}/{t.name}.json" for t in own.tasks(KIND)),
    }
    assert {*beside.unknown, *others.unknown} == before.keys() - results


def test_links_and_folders_that_cannot_be_read_are_not_looked_into(tmp_path):
    uri, own = str(tmp_path / "run"), plan("a")
    made(str(tmp_path / "other"), plan("b"))
    commits = made(uri, own)
    os.symlink(tmp_path / "other/poses/b", tmp_path / "run/poses/b")
    os.symlink(tmp_path / "other/commits/poses/b", tmp_path / "run/commits/poses/b")
    os.symlink(".", tmp_path / "run/poses/loop")
    others = strangers(uri, KIND, {"a"}, leftovers(uri, own, KIND, commits).folders)
    assert (others.commits, others.data) == ((), ())
    assert others.unknown == ("commits/poses/b", "poses/b", "poses/loop")


def test_only_attempts_are_removed_from_the_folder_of_attempts(run_uri):
    store, clip = ClipStore(run_uri, KIND), Clip("a/b", 0, 10)
    assert [store.claim(clip, "0123456789ab", 3), store.claim(clip, "0123456789ab", 3)] == [1, 2]
    mine = ["1.txt", "mine/0123456789ab/0", "0123456789ab/poses/a/b/0000000-0000010/notes.txt"]
    for path in mine:
        write_whole(join(run_uri, "attempts", path), b"x")
    notes = "0123456789ab/poses/a/b/0000010-0000020/0"
    assert remove_attempts(run_uri) == sorted(f"attempts/{path}" for path in mine)
    write_whole(join(run_uri, "attempts", notes), b"years of work")
    mine.append(notes)
    assert remove_attempts(run_uri) == sorted(f"attempts/{path}" for path in mine)
    assert store.claim(clip, "0123456789ab", 3) == 1


def test_the_folder_of_attempts_goes_with_the_last_of_them(tmp_path):
    ClipStore(str(tmp_path), KIND).claim(Clip("a", 0, 10), "0123456789ab", 3)
    assert remove_attempts(str(tmp_path)) == [] and os.listdir(tmp_path) == []
