"""Create-once files: what makes a result exist exactly once, on a local disk and on S3.

A clip's data file is named by its content, so that a retried clip writes the same file again. It counts only once a
commit names it, and a commit is created once: `os.link` after `fsync` on a local disk, `If-None-Match: *` on S3.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from typing import IO, TypeVar

from mvpose.archive.locations import filesystem, is_remote
from mvpose.errors import ResultsError

TEMPORARY_SUFFIX = r"\.[0-9a-f]{32}\.tmp"
"""What the name of a file ends in, as a pattern, until it is whole: no other file has such a name."""

T = TypeVar("T")

UPLOAD_BYTES = 8 << 20
"""A part of an upload from disk; up to two are in memory. Of its own accord s3fs reads files of 100 MB whole."""

REMOVALS = 64
"""How often a writer begins again because another driver removed its folder, before it reports the folder as lost."""


def create_once(uri: str, data: bytes) -> bool:
    """Write a file that must not exist yet, whole or not at all. False if somebody else was first."""
    with storage_errors(uri):
        fs, path = filesystem(uri)
        if not is_remote(uri):
            return _in_spite_of_removals(lambda: _link_once(path, data))
        try:
            fs.pipe_file(path, data, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            # SeaweedFS and others answer the lost race with 412 instead of the exception above (measured).
            answer = getattr(error.__cause__, "response", {})
            if answer.get("Error", {}).get("Code") in ("PreconditionFailed", "ConditionalRequestConflict", "412"):
                return False
            raise
        return True


def write_whole(uri: str, data: bytes) -> None:
    """Write or replace a file so that a reader sees the old one or the new one, never a part."""
    with storage_errors(uri):
        fs, path = filesystem(uri)
        if is_remote(uri):
            fs.pipe_file(path, data)
            return
        _in_spite_of_removals(lambda: _replace(path, lambda file: file.write(data)))


def write_whole_file(uri: str, path: str) -> None:
    """`write_whole` of the content of a local file, of which only a part is in memory at a time."""
    with storage_errors(uri):
        fs, there = filesystem(uri)
        if is_remote(uri):
            fs.put_file(path, there, chunksize=UPLOAD_BYTES, max_concurrency=1)
            return
        _in_spite_of_removals(lambda: _replace(there, lambda file: _copy(path, file)))


def remove_file(uri: str) -> None:
    """Remove one file, never a folder. One that is gone is fine: two drivers may both be at the end of their job."""
    fs, path = filesystem(uri)
    try:
        if is_remote(uri):
            fs.rm_file(path)
        else:
            os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ResultsError(f"{uri} cannot be removed: {error.strerror or error}.") from error


def _in_spite_of_removals(write: Callable[[], T]) -> T:
    """What `write` gives, begun again where a temporary file or a new folder was removed by another driver."""
    for _ in range(REMOVALS):
        with contextlib.suppress(FileNotFoundError):
            return write()
    return write()


def _copy(path: str, file: IO[bytes]) -> None:
    with open(path, "rb") as source:
        shutil.copyfileobj(source, file)


def _replace(path: str, fill: Callable[[IO[bytes]], object]) -> None:
    with _written_beside(path, fill) as temporary:
        os.replace(temporary, path)


def _link_once(path: str, data: bytes) -> bool:
    if os.path.exists(path):
        return False
    with _written_beside(path, lambda file: file.write(data)) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
    return True


@contextlib.contextmanager
def _written_beside(path: str, fill: Callable[[IO[bytes]], object]) -> Iterator[str]:
    """A temporary file in the same folder with what `fill` writes on disk; gone at the end unless it was moved."""
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
    """A disk that is full or not writable stops the job with a sentence; what is committed stays."""
    try:
        yield
    except OSError as error:
        advice = "free some space" if error.errno == errno.ENOSPC else "make the output writable"
        raise ResultsError(
            f"cannot write {uri}: {error.strerror or error}. Everything committed so far is kept: {advice}, "
            "then run the same command again."
        ) from error
