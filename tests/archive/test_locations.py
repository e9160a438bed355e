import os

import boto3
import pytest
from s3fs import S3FileSystem

from mvpose.archive.locations import (
    absolute,
    entries,
    exists,
    filesystem,
    is_folder,
    is_remote,
    join,
    list_folder,
    name,
    parent,
    read_bytes,
    read_text,
    reading,
    stamp,
)
from mvpose.errors import ConfigError


@pytest.fixture(params=["local", "file uri", "s3"])
def root(request: pytest.FixtureRequest, tmp_path) -> str:
    return {
        "local": lambda: str(tmp_path),
        "file uri": lambda: f"file://{tmp_path}",
        "s3": lambda: request.getfixturevalue("s3"),
    }[request.param]()


def put(uri: str, data: bytes) -> None:
    fs, path = filesystem(uri)
    fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    fs.pipe_file(path, data)


def test_what_was_put_is_listed_and_read(root):
    put(join(root, "a b", "ü.txt"), "käse".encode())
    put(join(root, "a b", "c", "d.txt"), b"12345")
    assert list_folder(root) == [join(root, "a b")]
    assert list_folder(join(root, "a b")) == [join(root, "a b", "c"), join(root, "a b", "ü.txt")]
    assert [e.is_folder for e in entries(join(root, "a b"))] == [True, False]
    assert read_text(join(root, "a b", "ü.txt")) == "käse"
    assert read_bytes(join(root, "a b/c/d.txt"), 5) == b"12345"
    for read in (read_bytes, read_text):
        with pytest.raises(OSError, match=r"is larger than"):
            read(join(root, "a b/c/d.txt"), 4)
    assert is_folder(join(root, "a b")) and is_folder(join(root, "a b/"))
    assert not is_folder(join(root, "a b", "ü.txt")) and exists(join(root, "a b", "ü.txt"))


def test_what_is_not_there_is_said_with_its_location(root):
    missing = join(root, "nowhere", "x")
    assert not exists(missing) and not is_folder(missing)
    for look in (read_bytes, entries, stamp):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            look(missing)


def test_a_file_cannot_be_listed(root):
    put(join(root, "file"), b"1")
    with pytest.raises(NotADirectoryError):
        entries(join(root, "file"))


def test_an_object_at_the_folder_s_own_key_is_not_listed(s3):
    put(join(s3, "folder", "x"), b"1")
    fs, path = filesystem(join(s3, "folder"))
    assert isinstance(fs, S3FileSystem)
    fs.call_s3("put_object", Bucket=path.split("/")[0], Key="folder/", Body=b"")
    assert list_folder(join(s3, "folder")) == [join(s3, "folder", "x")]


def test_a_stamp_changes_with_the_content_and_only_then(root):
    file, folder = join(root, "f", "x"), join(root, "f")
    put(file, b"one")
    before = stamp(file), stamp(folder)
    assert (stamp(file), stamp(folder)) == before
    put(file, b"two")
    if not is_remote(root):
        os.utime(filesystem(file)[1], (1, 1))
    assert stamp(file) != before[0] and stamp(folder) != before[1]


def test_a_listing_is_never_out_of_date(root):
    put(join(root, "f", "a"), b"")
    assert len(list_folder(join(root, "f"))) == 1
    if is_remote(root):  # as another machine does it
        boto3.client("s3").put_object(Bucket=name(root), Key="f/b", Body=b"")
    else:
        put(join(root, "f", "b"), b"")
    assert len(list_folder(join(root, "f"))) == 2


def test_names_and_parents():
    assert name("s3://bucket/a/b/") == "b" and name("/a/b.mp4") == "b.mp4"
    assert parent("s3://bucket/a/b/") == "s3://bucket/a" and parent("/a/b.mp4") == "/a"
    assert join("/", "a") == "/a" and join("s3://b/", "c/", "d") == "s3://b/c/d"


@pytest.mark.parametrize("planted", ["../../x", "a/../../b", "/etc/x", "..", "a/..", "a\nb", "a\0", "\0", "../"])
def test_no_name_leads_out_of_its_folder(planted):
    for parts in ((planted,), ("poses", planted), ("poses", f"x/{planted}" if planted[0] != "/" else planted, "y")):
        with pytest.raises(ConfigError, match="is no name inside a folder"):
            join("/run", *parts)
    assert join("/run", "..a/b..", "c d") == "/run/..a/b../c d"


def test_an_absolute_location_is_the_same_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute("a/b") == absolute(f"file://{tmp_path}/a/b") == absolute("./a/b/") == f"{tmp_path}/a/b"
    assert absolute("s3://bucket/a/") == "s3://bucket/a"


def test_text_that_is_not_utf8_is_an_os_error(tmp_path):
    (tmp_path / "x").write_bytes(b"\xff\xfe")
    with pytest.raises(OSError, match="UTF-8"):
        read_text(str(tmp_path / "x"))


def test_other_kinds_of_location_are_refused_by_name():
    with pytest.raises(ConfigError, match="http://"):
        filesystem("http://example.org/x")


def test_a_server_that_does_not_answer_is_an_os_error(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(S3FileSystem, "retries", 1)
    S3FileSystem.clear_instance_cache()
    with pytest.raises(OSError, match="s3://"):
        read_bytes(join(s3, "x"))


def test_a_link_to_a_folder_is_a_folder_unless_it_leads_back_up(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "trial").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "archive" / "loop").symlink_to(tmp_path)
    (tmp_path / "archive" / "gone").symlink_to(tmp_path / "nowhere")
    folders = {name(e.uri): e.is_folder for e in entries(str(tmp_path / "archive"))}
    assert folders == {"trial": True, "loop": False, "gone": False}


def test_a_file_above_a_limit_is_refused_by_its_size(tmp_path):
    """A terabyte that takes no room on the disk: to read it would take all memory."""
    with open(tmp_path / "large.json", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="it is larger than 1024 MiB"):
        read_text(str(tmp_path / "large.json"))


def test_what_is_no_regular_file_is_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    os.symlink("/dev/zero", tmp_path / "device")
    (tmp_path / "file").write_bytes(b"1")
    os.symlink("file", tmp_path / "link")
    for name_ in ("pipe", "device"):
        with pytest.raises(OSError, match="it is a pipe, socket or device"):
            read_bytes(str(tmp_path / name_))
        with pytest.raises(OSError, match="it is a pipe, socket or device"), reading(str(tmp_path / name_)):
            pass
    assert read_bytes(str(tmp_path / "link")) == b"1"


def test_credentials_in_a_location_are_refused_and_not_repeated():
    with pytest.raises(ConfigError, match=r"^s3://bucket/archive was given with credentials") as error:
        exists("s3://key:se/cret@bucket/archive")
    assert "cret" not in str(error.value)
