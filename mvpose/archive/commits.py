"""Create-once files: what makes a result exist exactly once, on a local disk and on S3.

A clip's data file is named by its content, so that a retried clip writes the same file again. It counts only once a
commit names it, and a commit is created once: `os.link` after `fsync` on a local disk, `If-None-Match: *` on S3.
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid

from mvpose.archive.locations import filesystem, is_remote
from mvpose.errors import ResultsError


def create_once(uri: str, data: bytes) -> bool:
    """Write a file that must not exist yet, whole or not at all. False if somebody else was first."""
    with _storage_errors(uri):
        fs, path = filesystem(uri)
        if not is_remote(uri):
            return _link_once(path, data)
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
    with _storage_errors(uri):
        fs, path = filesystem(uri)
        if is_remote(uri):
            fs.pipe_file(path, data)
            return
        with _written_beside(path, data) as temporary:
            os.replace(temporary, path)


def _link_once(path: str, data: bytes) -> bool:
    if os.path.exists(path):
        return False
    with _written_beside(path, data) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
    return True


@contextlib.contextmanager
def _written_beside(path: str, data: bytes):
    """A temporary file in the same folder with `data` on disk; gone at the end unless it was moved."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


@contextlib.contextmanager
def _storage_errors(uri: str):
    """A disk that is full or not writable stops the job with a sentence; what is committed stays."""
    try:
        yield
    except OSError as error:
        advice = "free some space" if error.errno == errno.ENOSPC else "make the output writable"
        raise ResultsError(
            f"cannot write {uri}: {error.strerror or error}. Everything committed so far is kept: {advice}, "
            "then run the same command again."
        ) from error
