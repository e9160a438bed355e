"""Where things are: `str` URIs of a local disk (`/a/b`, `a/b`, `file:///a/b`) or of S3 (`s3://bucket/key`).

S3 credentials, region and endpoint come from the environment alone (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
`AWS_ENDPOINT_URL`, ... or the machine's role), never from a URI or a setting. What goes wrong at a location is an
`OSError` that names it (FileNotFoundError, PermissionError, ...); a kind of location that is not known is a
`ConfigError`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat as file_modes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import fsspec
from botocore.exceptions import BotoCoreError
from fsspec import AbstractFileSystem

from mvpose.errors import ConfigError
from mvpose.redaction import redacted

MAX_TEXT_BYTES = 1 << 30
"""Of a text that is read whole, where its reader states no limit of its own. A summary of a million failed clips has
a third of it."""

_LEADS_OUTSIDE = re.compile(r"^/|(?:^|/)\.\.(?:/|$)|[\x00-\x1f]")


@dataclass(frozen=True, order=True)
class Entry:
    """What stands in a folder."""

    uri: str
    is_folder: bool
    stamp: str
    """Changes when the content does: size with modification time (local) or ETag (S3); empty for a folder."""
    dead_link: str = ""
    """Why a link cannot be followed; empty for everything else."""


CLUTTER = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "system volume information"}
"""What operating systems leave in folders, beside files whose name begins with a dot."""


def filesystem(uri: str) -> tuple[AbstractFileSystem, str]:
    """The fsspec file system that holds `uri` and the path there: absolute on a local disk, bucket/key on S3."""
    scheme, separator, _ = uri.partition("://")
    if not separator or scheme == "file":
        fs = fsspec.filesystem("file")
    elif scheme == "s3":
        refuse_credentials(uri)
        # Other machines write to the bucket while this one runs: a listing kept in memory would be out of date.
        fs = fsspec.filesystem("s3", use_listings_cache=False)
    else:
        raise ConfigError(f"{uri}: locations of kind {scheme}:// are not known; name a local path or an s3:// URI.")
    return fs, str(fs._strip_protocol(uri))


def refuse_credentials(uri: str) -> None:
    """ConfigError, without them, where an S3 location has credentials in it."""
    if is_remote(uri) and redacted(uri) != uri:
        raise ConfigError(
            f"{uri} was given with credentials, and none are taken from a location: name it without them and set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )


def is_remote(uri: str) -> bool:
    """Whether the location is in an object store."""
    return uri.startswith("s3://")


def absolute(uri: str) -> str:
    """The same location for every process, wherever it runs: a local path from the root on, without `file://`."""
    refuse_credentials(uri)
    return uri.rstrip("/") if is_remote(uri) else os.path.normpath(filesystem(uri)[1])


def join(uri: str, *parts: str) -> str:
    """A location below another. Names may come from files of others: ConfigError for one that leads outside `uri`."""
    return "/".join([uri.rstrip("/"), *(inside(part, uri).rstrip("/") for part in parts)])


def inside(path: str, where: str) -> str:
    """A relative path as it is; ConfigError if it is absolute, goes up, or has a control character in it."""
    if _LEADS_OUTSIDE.search(path):
        raise ConfigError(
            f"{where}: {path!r} is no name inside a folder: it is absolute, or has `..` or control characters."
        )
    return path


def name(uri: str) -> str:
    """The last part of a location."""
    return uri.rstrip("/").rpartition("/")[2]


def parent(uri: str) -> str:
    """The folder that holds a location."""
    return uri.rstrip("/").rpartition("/")[0]


@contextmanager
def reading(uri: str) -> Iterator[Any]:
    """A file opened to be read. OSError, naming it, where it is a pipe, a socket or a device: one may block or never
    end. A link to a regular file is one."""
    with _opened(uri) as file:
        yield file


def _opened(uri: str) -> Any:
    fs, path = filesystem(uri)
    with _named_errors(uri):
        if is_remote(uri):
            return fs.open(path, "rb")
        # Not through fsspec: a run of a million clips is ended by reading as many small files, 20 us each, 60 there.
        return open(path, "rb", opener=_regular)


def read_bytes(uri: str, most: int | None = None) -> bytes:
    """The content of a file; OSError where it has more than `most` bytes, of which no more than that are read."""
    if is_remote(uri):
        fs, path = filesystem(uri)
        with _named_errors(uri):
            try:
                content = fs.cat_file(path, end=None if most is None else most + 1)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                content = b""  # S3 has no range in an empty object
        assert isinstance(content, bytes)
    else:
        with reading(uri) as file:
            if most is not None:
                _check_size(os.fstat(file.fileno()).st_size, most, uri)
            content = file.read(-1 if most is None else most + 1)
    if most is not None:
        _check_size(len(content), most, uri)
    return content


def read_text(uri: str, most: int = MAX_TEXT_BYTES) -> str:
    """The content of a UTF-8 file of at most so many bytes, without the byte-order mark that some editors put first."""
    try:
        return read_bytes(uri, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise OSError(errno.EILSEQ, f"byte {error.start} is not UTF-8 text: save it as UTF-8", uri) from error


def refuse_irregular(uri: str) -> None:
    """OSError where a local file, which another library is about to open by its name, is a pipe, socket or device."""
    if not is_remote(uri):
        path = filesystem(uri)[1]
        _check_regular(os.stat(path).st_mode, path)


def _regular(path: str, flags: int) -> int:
    # A pipe without a writer would block here.
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        _check_regular(os.fstat(descriptor).st_mode, path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _check_size(size: int, most: int, uri: str) -> None:
    if size > most:
        raise OSError(errno.EFBIG, f"it is larger than {most / 2**20:g} MiB", uri)


def _check_regular(mode: int, path: str) -> None:
    """A folder is left to `open` to refuse in its own words."""
    if not (file_modes.S_ISREG(mode) or file_modes.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is a pipe, socket or device, and not a regular file", path)


def exists(uri: str) -> bool:
    """Whether there is a file or folder."""
    return _info(uri) is not None


def is_folder(uri: str) -> bool:
    """Whether there is a folder (on S3: anything below this prefix)."""
    info = _info(uri)
    return info is not None and info["type"] == "directory"


def list_folder(uri: str) -> list[str]:
    """The full URIs of what stands in a folder, sorted; FileNotFoundError where there is none."""
    return [entry.uri for entry in entries(uri)]


def entries(uri: str) -> list[Entry]:
    """What stands in a folder, sorted by URI, with one listing; FileNotFoundError where there is none."""
    fs, path = filesystem(uri)
    with _named_errors(uri):
        rows = fs.ls(path, detail=True)
    if [row["name"].rstrip("/") for row in rows] == [path.rstrip("/")] and not is_folder(uri):
        raise NotADirectoryError(f"{uri} is a file, not a folder")
    # Some tools put an empty object at the folder's own key.
    found = [row for row in rows if row["name"].rstrip("/") != path.rstrip("/")]
    folder = uri.rstrip("/")
    return sorted(Entry(f"{folder}/{name(row['name'])}", *_kind(row)) for row in found)


def inputs(uri: str) -> list[Entry]:
    """`entries` that somebody put there: no hidden or AppleDouble files (`._x`), nothing that is `CLUTTER`."""
    return [entry for entry in entries(uri) if not is_clutter(name(entry.uri))]


def is_clutter(own_name: str) -> bool:
    """Whether a file or folder of this name is hidden or an operating system's own, and so no input."""
    return own_name.startswith(".") or own_name.lower() in CLUTTER


def is_text(own_name: str) -> bool:
    """Whether a name is UTF-8; Python stands in for other bytes by surrogates, which no table or page can hold."""
    return not any("\ud800" <= character <= "\udfff" for character in own_name)


def _kind(row: dict) -> tuple[bool, str, str]:
    """Whether it is a folder, its stamp, and what is wrong with a link. Links to folders are folders: archives are put
    together by them."""
    if not row.get("islink"):
        return row["type"] == "directory", _stamp(row), ""
    path = row["name"]
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return False, _stamp(row), f"a link that leads nowhere ({error.strerror})"
    if not file_modes.S_ISDIR(mode):
        return False, _stamp(row), ""
    # The folders above it as they were reached, each of which may have been a link itself.
    above = [path[:i] for i, character in enumerate(path) if character == "/" and i]
    target = os.path.join(os.path.realpath(path), "")
    if any(os.path.join(os.path.realpath(folder), "").startswith(target) for folder in above):
        return False, _stamp(row), "a link to a folder that it is in"
    return True, _stamp(row), ""


def stamp(uri: str) -> str:
    """Changes when the file's content does, and costs no reading; for a folder, the digest of its files' stamps."""
    info = _info(uri)
    if info is None:
        raise FileNotFoundError(f"{uri} does not exist")
    if info["type"] != "directory":
        return _stamp(info)
    listing = repr([(name(e.uri), e.stamp) for e in inputs(uri)])
    return f"folder-{hashlib.sha256(listing.encode()).hexdigest()[:32]}"


def _stamp(info: dict) -> str:
    if info["type"] == "directory":
        return ""
    if "ETag" in info:
        return f"{info['size']}-{info['ETag'].strip(chr(34))}"
    return f"{info['size']}-{info['mtime']!r}"


def _info(uri: str) -> dict | None:
    fs, path = filesystem(uri)
    try:
        with _named_errors(uri):
            return fs.info(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


@contextmanager
def _named_errors(uri: str) -> Iterator[None]:
    """botocore's own errors (no credentials, no connection) as OSErrors, all of them with the location in front."""
    try:
        yield
    except BotoCoreError as error:
        raise OSError(f"{uri}: {error}") from error
    except OSError as error:
        if error.errno is None:
            raise type(error)(f"{uri}: {error}") from error
        raise
