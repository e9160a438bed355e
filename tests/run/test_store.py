"""Commits: what makes a result exist exactly once."""

import errno
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest

from mvpose.errors import FailureReason, ResultsError
from mvpose.records import Clip, ClipFailure
from mvpose.run.store import ClipStore, parquet_bytes, table_file
from mvpose.storage.commits import create_once, write_whole
from mvpose.storage.locations import join, read_bytes

CLIP = Clip("trial/one", 0, 100)
TABLE = pa.table({"frame": [0, 1, 2]})


@pytest.fixture(params=["local", "s3"])
def run_uri(request: pytest.FixtureRequest, tmp_path) -> str:
    return str(tmp_path / "run") if request.param == "local" else join(request.getfixturevalue("s3"), "run")


def test_of_many_writers_at_once_exactly_one_creates_a_file(run_uri):
    uri = join(run_uri, "race")
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda i: create_once(uri, str(i).encode()), range(8)))
    assert sum(won) == 1
    assert read_bytes(uri) == str(won.index(True)).encode()


def test_writing_whole_replaces_what_was_there(run_uri):
    uri = join(run_uri, "file")
    write_whole(uri, b"first")
    write_whole(uri, b"second")
    assert read_bytes(uri) == b"second"


def test_nothing_temporary_is_left_beside_a_file(tmp_path):
    uri = str(tmp_path / "file")
    write_whole(uri, b"one")
    create_once(uri, b"two")
    assert os.listdir(tmp_path) == ["file"] and read_bytes(uri) == b"one"


def test_a_committed_table_reads_back(run_uri):
    store = ClipStore(run_uri, "poses")
    assert store.committed(CLIP, "f" * 16) is None
    commit = store.commit_table(CLIP, "f" * 16, TABLE, {"reconstruct": 0.5})
    assert store.committed(CLIP, "f" * 16) == commit
    assert store.read(commit).equals(TABLE)
    assert store.commits_of("trial/one") == {f"0000000-0000100.{'f' * 16}"}


def test_a_commit_of_an_older_run_with_a_halo_is_the_same_commit(run_uri):
    store = ClipStore(run_uri, "poses")
    commit = store.commit_table(CLIP, "f" * 16, TABLE, {})
    uri = store.commit_uri(CLIP, "f" * 16)
    record = json.loads(read_bytes(uri))
    assert "halo" not in record
    write_whole(uri, json.dumps(record | {"halo": 0}).encode())
    assert store.committed(CLIP, "f" * 16) == commit


def test_a_table_written_in_parts_is_committed_as_one(run_uri):
    store = ClipStore(run_uri, "filtered")
    parts = [TABLE, TABLE.slice(0, 0), TABLE.slice(1)]
    commit = store.commit_table(CLIP, "f" * 16, table_file(iter(parts)), {})
    assert store.committed(CLIP, "f" * 16) == commit and commit.rows == 5
    assert store.read(commit).equals(pa.concat_tables(parts))
    single, none = (table_file(iter([t])) for t in (TABLE, TABLE.slice(0, 0)))
    assert store.commit_table(CLIP, "a" * 16, single, {}).sha256 == hashlib.sha256(parquet_bytes(TABLE)).hexdigest()
    assert store.read(store.commit_table(CLIP, "b" * 16, none, {})).equals(TABLE.slice(0, 0))


def test_a_table_in_parts_that_finds_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_table", full)
    with pytest.raises(ResultsError, match=r"No space left on device.*free some space"):
        table_file(iter([TABLE]))
    assert os.listdir(tmp_path) == []


def test_other_settings_are_another_result(run_uri):
    store = ClipStore(run_uri, "poses")
    store.commit_table(CLIP, "a" * 16, TABLE, {})
    assert store.committed(CLIP, "b" * 16) is None


def test_the_first_commit_of_a_clip_stands(run_uri):
    store = ClipStore(run_uri, "poses")
    first = store.commit_table(CLIP, "f" * 16, TABLE, {})
    second = store.commit_table(CLIP, "f" * 16, pa.table({"frame": [7]}), {})
    assert second == first and store.read(second).equals(TABLE)


def test_a_retried_clip_writes_the_same_file_again(tmp_path):
    one, two = ClipStore(str(tmp_path / "one"), "poses"), ClipStore(str(tmp_path / "two"), "poses")
    assert one.commit_table(CLIP, "f" * 16, TABLE, {}).file == two.commit_table(CLIP, "f" * 16, TABLE, {}).file


def test_a_failure_is_committed_with_its_reason(run_uri):
    failure = ClipFailure(CLIP, "poses", FailureReason.NO_PERSON, "nobody was seen")
    store = ClipStore(run_uri, "poses")
    store.commit_failure(failure, "f" * 16)
    commit = store.committed(CLIP, "f" * 16)
    assert commit is not None and commit.failure == failure and commit.file == ""


def test_attempts_are_counted_within_one_start_of_the_job(run_uri):
    store = ClipStore(run_uri, "poses")
    assert [store.claim(CLIP, "first", 2) for _ in range(3)] == [1, 2, 0]
    assert store.claim(CLIP, "second", 2)


def test_a_changed_result_file_is_refused(tmp_path):
    store = ClipStore(str(tmp_path), "poses")
    commit = store.commit_table(CLIP, "f" * 16, TABLE, {})
    with open(tmp_path / commit.file, "ab") as file:
        file.write(b"x")
    with pytest.raises(ResultsError, match="changed after it was committed"):
        store.read(commit)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ResultsError, match=r"cannot write .*run the same command again"):
        write_whole(str(tmp_path / "file" / "below"), b"")


def test_a_full_disk_is_one_sentence(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")

    def sync_to_a_full_device(_: int) -> None:
        with open("/dev/full", "wb", 0) as full:
            full.write(b"x")

    store = ClipStore(str(tmp_path), "poses")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", sync_to_a_full_device)
        with pytest.raises(ResultsError, match=r"No space left on device.*free some space"):
            store.commit_table(CLIP, "f" * 16, TABLE, {})
    assert store.committed(CLIP, "f" * 16) is None
    assert not [f for _, _, files in os.walk(tmp_path) for f in files]
