"""Locations: `str` URIs on a local disk (`/a/b`, `a/b`, `file:///a/b`) or on S3 (`s3://bucket/key`).

S3 credentials, region and endpoint come only from the environment (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
`AWS_ENDPOINT_URL`, ... or the machine's role), never from a URI or a setting. Failures at a location are `OSError`s
that name it (FileNotFoundError, PermissionError, ...). An unknown kind of location is a `ConfigError`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat as file_modes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import fsspec
from botocore.exceptions import BotoCoreError
from fsspec import AbstractFileSystem

from mvpose.errors import ConfigError, redacted

MAX_TEXT_BYTES = 1 << 30
"""Maximum size of a text file that is read whole, unless its reader sets a limit. The summary of a million failed clips
has a third of it."""

_LEADS_OUTSIDE = re.compile(r"^/|(?:^|/)\.\.(?:/|$)|[\x00-\x1f]")


@dataclass(frozen=True, order=True)
class Entry:
    """An entry of a folder."""

    uri: str
    is_folder: bool
    stamp: str
    """Changes with the content: size and modification time (local) or ETag (S3); empty for a folder."""
    dead_link: str = ""
    """Why a link cannot be followed; empty for all other entries."""


CLUTTER = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "system volume information"}
"""Names that operating systems leave in folders, in addition to names that start with a dot."""


def filesystem(uri: str) -> tuple[AbstractFileSystem, str]:
    """The fsspec file system of `uri` and the path in it: absolute on a local disk, bucket/key on S3."""
    scheme, separator, _ = uri.partition("://")
    if not separator or scheme == "file":
        fs = fsspec.filesystem("file")
    elif scheme == "s3":
        refuse_credentials(uri)
        # Other machines write to the bucket at the same time, so a listing kept in memory would be out of date.
        fs = fsspec.filesystem("s3", use_listings_cache=False)
    else:
        raise ConfigError(f"{uri}: unknown kind of location {scheme}://. Use a local path or an s3:// URI.")
    return fs, str(fs._strip_protocol(uri))


def refuse_credentials(uri: str) -> None:
    """Raises ConfigError, with the credentials redacted, if an S3 location contains any."""
    if is_remote(uri) and redacted(uri) != uri:
        raise ConfigError(
            f"{uri} was given with credentials, which are not accepted in a location. Remove them and set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )


def is_remote(uri: str) -> bool:
    """Whether the location is in an object store."""
    return uri.startswith("s3://")


def absolute(uri: str) -> str:
    """The same location, valid for every process: a local path becomes absolute and loses `file://`."""
    refuse_credentials(uri)
    return uri.rstrip("/") if is_remote(uri) else os.path.normpath(filesystem(uri)[1])


def join(uri: str, *parts: str) -> str:
    """A location below another. Names may come from foreign files: ConfigError for one that leads outside `uri`."""
    return "/".join([uri.rstrip("/"), *(inside(part, uri).rstrip("/") for part in parts)])


def inside(path: str, where: str) -> str:
    """A relative path, unchanged. Raises ConfigError if it is absolute, goes up, or contains a control character."""
    if _LEADS_OUTSIDE.search(path):
        raise ConfigError(
            f"{where}: {path!r} is not a name inside a folder: it is absolute, or contains `..` or control characters."
        )
    return path


def name(uri: str) -> str:
    """The last component of a location."""
    return uri.rstrip("/").rpartition("/")[2]


def parent(uri: str) -> str:
    """The folder that contains a location."""
    return uri.rstrip("/").rpartition("/")[0]


@contextmanager
def reading(uri: str) -> Iterator[Any]:
    """Open a file for reading. Raises OSError, naming it, for a pipe, socket or device, which may block or never end. A
    link to a regular file is accepted."""
    with _opened(uri) as file:
        yield file


def _opened(uri: str) -> Any:
    fs, path = filesystem(uri)
    with _named_errors(uri):
        if is_remote(uri):
            return fs.open(path, "rb")
        # fsspec is avoided: a run of a million clips ends by reading as many small files, at 20 us each instead of 60.
        return open(path, "rb", opener=_regular)


def read_bytes(uri: str, maximum: int | None = None) -> bytes:
    """The content of a file. Raises OSError if it has more than `maximum` bytes; no more than that are read."""
    if is_remote(uri):
        fs, path = filesystem(uri)
        with _named_errors(uri):
            try:
                content = fs.cat_file(path, end=None if maximum is None else maximum + 1)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                content = b""  # S3 rejects any range of an empty object
        assert isinstance(content, bytes)
    else:
        with reading(uri) as file:
            if maximum is not None:
                _check_size(os.fstat(file.fileno()).st_size, maximum, uri)
            content = file.read(-1 if maximum is None else maximum + 1)
    if maximum is not None:
        _check_size(len(content), maximum, uri)
    return content


def read_text(uri: str, maximum: int = MAX_TEXT_BYTES) -> str:
    """The content of a UTF-8 file of at most `maximum` bytes, without a leading byte-order mark."""
    try:
        return read_bytes(uri, maximum).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise OSError(errno.EILSEQ, f"byte {error.start} is not UTF-8 text: save it as UTF-8", uri) from error


def refuse_irregular(uri: str) -> None:
    """Raises OSError if a local file that another library will open by name is a pipe, socket or device."""
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


def _check_size(size: int, maximum: int, uri: str) -> None:
    if size > maximum:
        raise OSError(errno.EFBIG, f"it is larger than {maximum / 2**20:g} MiB", uri)


def _check_regular(mode: int, path: str) -> None:
    """Raises OSError for a pipe, socket or device. Folders pass: `open` reports them itself."""
    if not (file_modes.S_ISREG(mode) or file_modes.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "it is a pipe, socket or device, not a regular file", path)


def exists(uri: str) -> bool:
    """Whether a file or folder exists."""
    return _info(uri) is not None


def is_folder(uri: str) -> bool:
    """Whether a folder exists (on S3: any key below this prefix)."""
    info = _info(uri)
    return info is not None and info["type"] == "directory"


def list_folder(uri: str) -> list[str]:
    """The full URIs of a folder's entries, sorted. Raises FileNotFoundError if there is no such folder."""
    return [entry.uri for entry in entries(uri)]


def entries(uri: str) -> list[Entry]:
    """A folder's entries sorted by URI, from one listing. Raises FileNotFoundError if there is no such folder."""
    fs, path = filesystem(uri)
    with _named_errors(uri):
        rows = fs.ls(path, detail=True)
    if [row["name"].rstrip("/") for row in rows] == [path.rstrip("/")] and not is_folder(uri):
        raise NotADirectoryError(f"{uri} is a file, not a folder")
    # Some tools store an empty object under the folder's own key.
    found = [row for row in rows if row["name"].rstrip("/") != path.rstrip("/")]
    folder = uri.rstrip("/")
    return sorted(Entry(f"{folder}/{name(row['name'])}", *_kind(row)) for row in found)


def inputs(uri: str) -> list[Entry]:
    """The `entries` that are real input: no hidden or AppleDouble files (`._x`) and no `CLUTTER`."""
    return [entry for entry in entries(uri) if not is_clutter(name(entry.uri))]


def is_clutter(own_name: str) -> bool:
    """Whether a file or folder of this name is hidden or created by the operating system, hence not input."""
    return own_name.startswith(".") or own_name.lower() in CLUTTER


def is_text(own_name: str) -> bool:
    """Whether a name is UTF-8. Python represents other bytes as surrogates, which no table or page can store."""
    return not any("\ud800" <= character <= "\udfff" for character in own_name)


def _kind(row: dict) -> tuple[bool, str, str]:
    """Whether it is a folder, its stamp, and the defect of a link. Links to folders count as folders, since
    archives are often assembled from them."""
    if not row.get("islink"):
        return row["type"] == "directory", _stamp(row), ""
    path = row["name"]
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return False, _stamp(row), f"a link that leads nowhere ({error.strerror})"
    if not file_modes.S_ISDIR(mode):
        return False, _stamp(row), ""
    # The parent folders as they were reached; each may be a link itself.
    above = [path[:i] for i, character in enumerate(path) if character == "/" and i]
    target = os.path.join(os.path.realpath(path), "")
    if any(os.path.join(os.path.realpath(folder), "").startswith(target) for folder in above):
        return False, _stamp(row), "a link to a folder that contains it"
    return True, _stamp(row), ""


def stamp(uri: str) -> str:
    """Changes with the file's content, without reading it; for a folder, a digest of its files' stamps."""
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
    """Convert botocore's errors (no credentials, no connection) to OSErrors, each with its location in front."""
    try:
        yield
    except BotoCoreError as error:
        raise OSError(f"{uri}: {error}") from error
    except OSError as error:
        if error.errno is None:
            raise type(error)(f"{uri}: {error}") from error
        raise


MAX_LENGTH = 100


def safe_path(names: Sequence[str]) -> str:
    """Folder names as one relative path. A name that must be changed gets a digest, so that names stay distinct."""
    return "/".join(_safe(n) for n in names)


def _safe(name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".-")[:MAX_LENGTH]
    if plain == name and plain:
        return plain
    return f"{plain}-{hashlib.sha256(name.encode(errors='surrogateescape')).hexdigest()[:8]}".lstrip("-")
