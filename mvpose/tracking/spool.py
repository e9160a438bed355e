"""The local record of a run: an append-only file, and how much of it has arrived where.

    FOLDER/<run>.jsonl          one record a line, in the order in which they were made
    FOLDER/<run>.sent.json      store, its own id of the run, and up to which byte records have arrived there
    FOLDER/<run>.refused.jsonl  records that a store will never take, with its reason
    FOLDER/<run>.files/<n>/     copies of files that have not arrived

A line without its end was being written when its process was killed: it was never acknowledged, and is left out.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from mvpose.archive.locations import join
from mvpose.errors import ConfigError

MAX_NAME = 100

Record = dict[str, Any]


@dataclass(frozen=True)
class Arrived:
    """How much of a run has arrived in a store."""

    uri: str
    remote_id: str
    """The store's own id of the run."""
    offset: int
    """Bytes of the record that have arrived."""


@dataclass(frozen=True)
class Spool:
    """The local record of one run. Any number of processes of this machine may append to it."""

    folder: str
    run_id: str

    def __post_init__(self) -> None:
        check_name(self.run_id)

    @property
    def path(self) -> str:
        """The append-only file."""
        return self._file("jsonl")

    def append(self, record: Record) -> None:
        """Write one record as one line; it survives the death of the process."""
        os.makedirs(self.folder, exist_ok=True)
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        with open(self.path, "ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                line = line if file.read(1) == b"\n" else b"\n" + line
            file.write(line)

    def exists(self) -> bool:
        """Whether the run has any record here."""
        return os.path.isfile(self.path)

    def records(self, offset: int = 0) -> Iterator[tuple[Record, int]]:
        """Whole records from a byte on, each with the byte where it ends."""
        with open(self.path, "rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                if (record := _parsed(line)) is not None:
                    yield record, offset

    def arrived(self) -> Arrived | None:
        """How much has arrived, and where."""
        if not os.path.isfile(self._file("sent.json")):
            return None
        with open(self._file("sent.json"), encoding="utf-8") as file:
            return Arrived(**json.load(file))

    def mark(self, arrived: Arrived) -> None:
        """Remember what has arrived."""
        temporary = f"{self._file('sent.json')}.{uuid.uuid4().hex}.tmp"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(asdict(arrived), file)
        os.replace(temporary, self._file("sent.json"))

    def is_waiting(self) -> bool:
        """Whether some of the run has not arrived."""
        arrived = self.arrived()
        return next(self.records(arrived.offset if arrived else 0), None) is not None

    def refuse(self, record: Record, reason: str) -> None:
        """Set a record aside that the store will never take."""
        with open(self._file("refused.jsonl"), "a", encoding="utf-8") as file:
            file.write(json.dumps({"reason": reason, "record": record}) + "\n")

    def keep_files(self, source: str) -> str:
        """Copy a file or folder; the name of the copy."""
        name = uuid.uuid4().hex[:12]
        target = self.files(name)
        if os.path.isdir(source):
            shutil.copytree(source, target, ignore=_links)
        else:
            os.makedirs(target)
            shutil.copy2(source, target)
        return name

    def files(self, name: str) -> str:
        """Folder of a copy."""
        check_name(name)
        return join(self._file("files"), name)

    def holds_links(self, name: str) -> bool:
        """Whether a copy is or has a link, so that what is sent would not be in it."""
        folder = self.files(name)
        inside = (os.path.join(where, entry) for where, *some in os.walk(folder) for entry in (*some[0], *some[1]))
        return any(map(os.path.islink, (folder, *inside)))

    def drop_files(self, name: str) -> None:
        """Remove a copy that has arrived."""
        shutil.rmtree(self.files(name), ignore_errors=True)
        if os.path.isdir(self._file("files")) and not os.listdir(self._file("files")):
            os.rmdir(self._file("files"))

    @contextmanager
    def sending(self, wait: bool) -> Iterator[bool]:
        """Hold the right to send this run, which one process has at a time; False where another one has it."""
        with open(self._file("lock"), "a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
                return
            yield True

    def _file(self, suffix: str) -> str:
        return join(self.folder, f"{self.run_id}.{suffix}")


def check_name(name: str) -> None:
    """ConfigError where the name of a run or copy, which files are named after, is not of letters and digits."""
    if not _is_name(name):
        raise ConfigError(f"{name!r} is no name of a run: letters and digits are needed.")


def _is_name(name: str) -> bool:
    return name.isascii() and name.isalnum() and len(name) <= MAX_NAME


def _links(folder: str, names: list[str]) -> list[str]:
    """What is a link leads out of the folder, or to what is there already."""
    return [name for name in names if os.path.islink(os.path.join(folder, name))]


def spools(folder: str) -> list[Spool]:
    """The runs recorded in a folder and the folders in it, in the order in which they were begun."""
    found = [
        Spool(where, file.removesuffix(".jsonl"))
        for where, _, files in os.walk(folder)
        for file in files
        if file.endswith(".jsonl") and _is_name(file.removesuffix(".jsonl"))
    ]
    begun = {spool: next((record["time"] for record, _ in spool.records()), 0) for spool in found}
    return sorted((s for s in found if begun[s]), key=lambda s: (begun[s], s.run_id))


def _parsed(line: bytes) -> Record | None:
    try:
        return json.loads(line)
    except ValueError:
        return None
