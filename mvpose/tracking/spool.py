"""Local spool of a run's records: an append-only file and its delivery state.

    FOLDER/<run>.jsonl          one record per line, in the order of creation
    FOLDER/<run>.sent.json      store, its own ID of the run, and the byte up to which records have arrived there
    FOLDER/<run>.refused.jsonl  records that the store rejected permanently, with the reason
    FOLDER/<run>.files/<n>/     copies of files that have not arrived

An incomplete last line belongs to a write whose process was killed. It was never acknowledged and is ignored.

MLflow's asynchronous logging (`synchronous=False`, version 3.17) was compared with this file. Its queue is in memory:
of 1000 accepted metrics, 10 arrived when the process was killed; this file then holds all 1000. While the server was
down, each of 50 metrics was dropped for good after two retries, and no run could be created.
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

from mvpose.errors import ConfigError
from mvpose.storage.locations import join

MAX_NAME = 100

Record = dict[str, Any]


@dataclass(frozen=True)
class Arrived:
    """Delivery state of a run in a store."""

    uri: str
    remote_id: str
    """The store's own ID of the run."""
    offset: int
    """Number of bytes of the record that have arrived."""


@dataclass(frozen=True)
class Spool:
    """Local records of one run. Any number of processes on this machine may append."""

    folder: str
    run_id: str

    def __post_init__(self) -> None:
        check_name(self.run_id)

    @property
    def path(self) -> str:
        """The append-only file."""
        return self._file("jsonl")

    def append(self, record: Record) -> None:
        """Append one record as one line; it survives the death of the process."""
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
        """Complete records from a byte offset on, each with the byte where it ends."""
        with open(self.path, "rb") as file:
            file.seek(offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                offset += len(line)
                if (record := _parsed(line)) is not None:
                    yield record, offset

    def arrived(self) -> Arrived | None:
        """Delivery state, or None if nothing has been sent."""
        if not os.path.isfile(self._file("sent.json")):
            return None
        with open(self._file("sent.json"), encoding="utf-8") as file:
            return Arrived(**json.load(file))

    def mark(self, arrived: Arrived) -> None:
        """Store the delivery state."""
        temporary = f"{self._file('sent.json')}.{uuid.uuid4().hex}.tmp"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(asdict(arrived), file)
        os.replace(temporary, self._file("sent.json"))

    def is_waiting(self) -> bool:
        """Whether records are pending."""
        arrived = self.arrived()
        return next(self.records(arrived.offset if arrived else 0), None) is not None

    def refuse(self, record: Record, reason: str) -> None:
        """Set aside a record that the store rejects permanently."""
        with open(self._file("refused.jsonl"), "a", encoding="utf-8") as file:
            file.write(json.dumps({"reason": reason, "record": record}) + "\n")

    def keep_files(self, source: str) -> str:
        """Copy a file or folder and return the name of the copy."""
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

    def has_links(self, name: str) -> bool:
        """Whether a copy is or contains a link, whose content would not be sent."""
        folder = self.files(name)
        inside = (os.path.join(where, entry) for where, *some in os.walk(folder) for entry in (*some[0], *some[1]))
        return any(map(os.path.islink, (folder, *inside)))

    def remove_files(self, name: str) -> None:
        """Remove a copy that has arrived."""
        shutil.rmtree(self.files(name), ignore_errors=True)
        if os.path.isdir(self._file("files")) and not os.listdir(self._file("files")):
            os.rmdir(self._file("files"))

    @contextmanager
    def sending(self, wait: bool) -> Iterator[bool]:
        """Lock this run for sending; False if another process holds the lock."""
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
    """Check the name of a run or copy, which names files; ConfigError unless it consists of letters and digits."""
    if not is_name(name):
        raise ConfigError(f"{name!r} is not a valid run name: use letters and digits only.")


def is_name(name: str) -> bool:
    """Whether a text can be the name of a run or copy: letters and digits."""
    return name.isascii() and name.isalnum() and len(name) <= MAX_NAME


def _links(folder: str, names: list[str]) -> list[str]:
    """Links, which are left out: they point out of the folder or to a file that is copied anyway."""
    return [name for name in names if os.path.islink(os.path.join(folder, name))]


def spools(folder: str) -> list[Spool]:
    """The runs recorded in a folder and its subfolders, in the order of creation."""
    found = [
        Spool(where, file.removesuffix(".jsonl"))
        for where, _, files in os.walk(folder)
        for file in files
        if file.endswith(".jsonl") and is_name(file.removesuffix(".jsonl"))
    ]
    started = {spool: next((record["time"] for record, _ in spool.records()), 0) for spool in found}
    return sorted((s for s in found if started[s]), key=lambda s: (started[s], s.run_id))


def _parsed(line: bytes) -> Record | None:
    try:
        return json.loads(line)
    except ValueError:
        return None
