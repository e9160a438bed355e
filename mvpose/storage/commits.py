"""Create-once files, on local disk and on S3: the mechanism by which a result exists exactly once.

A clip's data file is named by its content, so a retried clip writes the same file again. It counts only once a commit
names it. A commit is created once: with `os.link` after `fsync` on a local disk, with `If-None-Match: *` on S3.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from typing import IO, TypeVar

from mvpose.errors import ResultsError
from mvpose.storage.locations import filesystem, is_remote

TEMPORARY_SUFFIX = r"\.[0-9a-f]{32}\.tmp"
"""Pattern of the suffix of a file that is still being written. No other file has such a name."""

T = TypeVar("T")

UPLOAD_BYTES = 8 << 20
"""Size of one part of an upload from disk; up to two are in memory. By default, s3fs reads files of 100 MB at once."""

REMOVALS = 64
"""Maximum number of retries after another driver removed the folder; after that the folder is reported as lost."""


def create_once(uri: str, data: bytes) -> bool:
    """Write a file that must not exist yet, atomically. Returns False if it already exists."""
    with storage_errors(uri):
        fs, path = filesystem(uri)
        if not is_remote(uri):
            return _retried_after_removals(lambda: _link_once(path, data))
        try:
            fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            # SeaweedFS and others report the lost race as 412 instead of the exception above (measured).
            answer = getattr(error.__cause__, "response", {})
            if answer.get("Error", {}).get("Code") in ("PreconditionFailed", "ConditionalRequestConflict", "412"):
                return False
            raise
        return True


def write_whole(uri: str, data: bytes) -> None:
    """Write or replace a file atomically: a reader sees the old or the new content, never a part of it."""
    with storage_errors(uri):
        fs, path = filesystem(uri)
        if is_remote(uri):
            fs.pipe_file(path, data)
            return
        _retried_after_removals(lambda: _replace(path, lambda file: file.write(data)))


def write_whole_file(uri: str, path: str) -> None:
    """Like `write_whole`, with the content of a local file, of which only a part is in memory at a time."""
    with storage_errors(uri):
        fs, there = filesystem(uri)
        if is_remote(uri):
            fs.put_file(path, there, chunksize=UPLOAD_BYTES, max_concurrency=1)
            return
        _retried_after_removals(lambda: _replace(there, lambda file: _copy(path, file)))


def remove_file(uri: str) -> None:
    """Delete one file, never a folder. A missing file is not an error: two drivers may both be ending their job."""
    fs, path = filesystem(uri)
    try:
        if is_remote(uri):
            fs.rm_file(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ResultsError(f"{uri} cannot be deleted: {error.strerror or error}.") from error


def _retried_after_removals(write: Callable[[], T]) -> T:
    """The result of `write`, retried if another driver removed a temporary file or a new folder."""
    for _ in range(REMOVALS):
        with contextlib.suppress(FileNotFoundError):
            return write()
    return write()


def _copy(path: str, file: IO[bytes]) -> None:
    with open(path, "rb") as source:
        shutil.copyfileobj(source, file)


def _replace(path: str, fill: Callable[[IO[bytes]], object]) -> None:
    with _temporary_file(path, fill) as temporary:
        os.replace(temporary, path)


def _link_once(path: str, data: bytes) -> bool:
    if os.path.exists(path):
        return False
    with _temporary_file(path, lambda file: file.write(data)) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
    return True


@contextlib.contextmanager
def _temporary_file(path: str, fill: Callable[[IO[bytes]], object]) -> Iterator[str]:
    """A temporary file in the same folder, filled and synced to disk. It is deleted at the end unless it was moved."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    try:
        with open(temporary, "xb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


@contextlib.contextmanager
def storage_errors(uri: str) -> Iterator[None]:
    """Turn a full or read-only disk into a ResultsError with advice. Commits so far remain valid."""
    try:
        yield
    except OSError as error:
        advice = "free some space" if error.errno == errno.ENOSPC else "make the output writable"
        raise ResultsError(
            f"cannot write {uri}: {error.strerror or error}. Everything committed so far is kept: {advice}, "
            "then run the same command again."
        ) from error
