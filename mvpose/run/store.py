"""The committed results of one kind (keypoints, poses, quality) in a run folder.

    commits/<kind>/<capture>/<start>-<stop>.<fingerprint>.json    the record that counts, created once
    <kind>/<capture>/<start>-<stop>.<digest>.parquet              the data that it names
    attempts/<invocation>/<kind>/<capture>/<start>-<stop>/<n>     attempts, to find a clip that kills its worker

Readers trust only commits. A data file without a commit was left by a worker that died and is not a result.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from mvpose.errors import FailureReason, ResultsError
from mvpose.records import Clip, ClipFailure, Kind
from mvpose.storage.commits import (
    TEMPORARY_SUFFIX,
    create_once,
    remove_file,
    storage_errors,
    write_whole,
    write_whole_file,
)
from mvpose.storage.locations import exists, filesystem, join, read_bytes

FINGERPRINT_LENGTH = 16
DIGEST_LENGTH = 12

# Names that mvpose creates. Those of captures come from `safe_path`.
_CLIP = r"(?:[A-Za-z0-9_][A-Za-z0-9._-]*/)+\d{7,}-\d{7,}"
_COMMIT = re.compile(rf"{_CLIP}\.[0-9a-f]{{{FINGERPRINT_LENGTH}}}\.json")
_DATA = re.compile(rf"(?P<clip>{_CLIP})\.(?P<digest>[0-9a-f]{{{DIGEST_LENGTH}}})\.parquet")
TEMPORARY = re.compile(rf"{_CLIP}\.[0-9a-f]+\.(?:json|parquet){TEMPORARY_SUFFIX}")
"""A file below `<kind>/` or `commits/<kind>/` that is being written."""
_ATTEMPT = re.compile(rf"[0-9a-f]{{12}}/(?:{'|'.join(Kind)})/{_CLIP}/\d+(?:{TEMPORARY_SUFFIX})?")
_ATTEMPT_BYTES = 10
"""Maximum size: a process number."""


def is_attempt(path: str, size: int) -> bool:
    """Whether a file of this size below `attempts/` is one that `ClipStore.claim` writes."""
    return size <= _ATTEMPT_BYTES and _ATTEMPT.fullmatch(path) is not None


@dataclass(frozen=True, kw_only=True)
class Commit:
    """The only record of a clip's outcome: a data file, or a failure."""

    kind: str
    """Empty in a commit of an older version, which did not store it."""
    clip: Clip
    fingerprint: str
    file: str = ""
    """Relative to the run folder; empty for a failure."""
    rows: int = 0
    sha256: str = ""
    failure: ClipFailure | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    """Time by step in the worker."""
    attempt: int = 1
    """Number of this attempt within its start of the job; above 1 if workers died on the clip."""
    traceback: str = ""
    """For a failure: where the stage raised an unexpected exception."""


@dataclass(frozen=True, eq=False)
class TableFile:
    """A table too long for memory, as Parquet in a temporary file that is deleted with the last reference."""

    file: IO[bytes]
    rows: int


def table_file(parts: Iterable[pa.Table]) -> TableFile:
    """Write one or more tables of one schema, a row group each. Raises ResultsError if the disk is full."""
    file, rows = tempfile.NamedTemporaryFile(suffix=".parquet"), 0  # noqa: SIM115 (closed with the TableFile)
    parts = iter(parts)
    first = next(parts)
    writer = pq.ParquetWriter(file.name, first.schema, compression="zstd")
    for part in chain([first], parts):
        rows += part.num_rows
        if part.num_rows:
            with storage_errors(file.name):
                writer.write_table(part)
    with storage_errors(file.name):
        writer.close()
    return TableFile(file, rows)


@dataclass(frozen=True)
class ClipStore:
    """Results of one kind in one run folder."""

    run_uri: str
    kind: str

    def commit_name(self, clip: Clip, fingerprint: str) -> str:
        """Location of a clip's commit, whether it exists or not, relative to the run folder."""
        return f"commits/{self.kind}/{clip.clip_id}.{fingerprint}.json"

    def commit_uri(self, clip: Clip, fingerprint: str) -> str:
        """Location of a clip's commit, whether it exists or not."""
        return join(self.run_uri, self.commit_name(clip, fingerprint))

    def committed(self, clip: Clip, fingerprint: str) -> Commit | None:
        """The commit of a clip with these inputs and settings, if there is one."""
        try:
            return _read_commit(self.commit_uri(clip, fingerprint))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def commits_of(self, capture_id: str) -> set[str]:
        """Names `<start>-<stop>.<fingerprint>` of a capture's commits, from one listing without reading any."""
        names = _listed(join(self.run_uri, "commits", self.kind, capture_id))
        return {name.removesuffix(".json") for name in names if name.endswith(".json")}

    def clips_with_data(self, capture_id: str) -> set[str]:
        """IDs of the clips of a capture that have a data file, from one listing."""
        files = [f"{capture_id}/{name}" for name in _listed(join(self.run_uri, self.kind, capture_id))]
        return {named["clip"] for file in files if (named := _DATA.fullmatch(file))}

    def claim(self, clip: Clip, invocation: str, limit: int) -> int:
        """Number of this attempt within a start of the job, from 1; 0 once `limit` attempts died without a commit."""
        for attempt in range(limit):
            uri = self._attempt_uri(clip, invocation, attempt)
            if create_once(uri, f"{os.getpid()}".encode()):
                return attempt + 1
        return 0

    def is_claimed(self, clip: Clip, invocation: str) -> bool:
        """Whether this clip was attempted within a start of the job."""
        return exists(self._attempt_uri(clip, invocation, 0))

    def claimed_of(self, capture_id: str, invocation: str) -> set[str]:
        """IDs of the clips of a capture that were attempted within a start of the job, from one listing."""
        names = _listed(join(self.run_uri, "attempts", invocation, self.kind, capture_id))
        return {f"{capture_id}/{name}" for name in names}

    def _attempt_uri(self, clip: Clip, invocation: str, attempt: int) -> str:
        return join(self.run_uri, "attempts", invocation, self.kind, clip.clip_id, str(attempt))

    def commit_table(
        self, clip: Clip, fingerprint: str, table: pa.Table | TableFile, seconds: dict[str, float], attempt: int = 1
    ) -> Commit:
        """Write a table and commit it. If another worker has committed this clip in the meantime, its commit wins."""
        if isinstance(table, TableFile):
            with open(table.file.name, "rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
            file, rows = self._file_of(clip, digest), table.rows
            write_whole_file(join(self.run_uri, file), table.file.name)
        else:
            data = parquet_bytes(table)
            digest = hashlib.sha256(data).hexdigest()
            file, rows = self._file_of(clip, digest), table.num_rows
            write_whole(join(self.run_uri, file), data)
        commit = self._commit(
            Commit(
                kind=self.kind, clip=clip, fingerprint=fingerprint, file=file, rows=rows, sha256=digest,
                seconds=seconds, attempt=attempt,
            )
        )  # fmt: skip
        if commit.file != file:  # no commit will ever name it
            remove_file(join(self.run_uri, file))
        return commit

    def commit_failure(self, failure: ClipFailure, fingerprint: str, attempt: int = 1, traceback: str = "") -> Commit:
        """Commit that a clip has no result, and why."""
        return self._commit(
            Commit(
                kind=self.kind, clip=failure.clip, fingerprint=fingerprint, failure=failure, attempt=attempt,
                traceback=traceback,
            )
        )  # fmt: skip

    def withdraw(self, commit: Commit) -> None:
        """Remove a commit and its data, so that the clip is processed again."""
        remove_file(self._uri_of(commit))
        if self.names_its_file(commit):
            remove_file(join(self.run_uri, commit.file))

    def _commit(self, commit: Commit) -> Commit:
        uri = self.commit_uri(commit.clip, commit.fingerprint)
        if create_once(uri, _commit_bytes(commit)):
            return commit
        return _read_commit(uri)

    def read(self, commit: Commit) -> pa.Table:
        """The data of a commit. Raises ResultsError if the file is missing or differs from the committed one."""
        if not self.names_its_file(commit):
            raise ResultsError(
                f"{self._uri_of(commit)} names a file that is not its own: delete it and run the job again."
            )
        uri = join(self.run_uri, commit.file)
        if not exists(uri):
            raise ResultsError(f"{uri} is committed but missing: rerun the job, which computes it again.")
        data = read_bytes(uri)
        if hashlib.sha256(data).hexdigest() != commit.sha256:
            raise ResultsError(
                f"{uri} was changed after it was committed (its digest differs): delete it and "
                f"{self._uri_of(commit)}, then run the job again."
            )
        return pq.read_table(io.BytesIO(data))

    def names_its_file(self, commit: Commit) -> bool:
        """Whether the data file of a commit is the one that belongs to its clip and content."""
        return commit.file == self._file_of(commit.clip, commit.sha256)

    def commit_at(self, path: str) -> Commit | None:
        """The commit in a file below `commits/<kind>/` that mvpose wrote; None for any other file.

        A copy of a commit in another folder or under another name does not count; nor does one without a kind.
        """
        if not _COMMIT.fullmatch(path):
            return None
        try:
            commit = _parse_commit(read_bytes(join(self.run_uri, "commits", self.kind, path)))
            own = path == f"{commit.clip.clip_id}.{commit.fingerprint}.json"
            consistent = commit.kind == self.kind if commit.failure else self.names_its_file(commit)
            return commit if own and consistent else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def is_data(self, path: str) -> bool:
        """Whether a file below `<kind>/` is named like a data file, with the digest of its content."""
        named = _DATA.fullmatch(path)
        if not named:
            return False
        try:
            content = read_bytes(join(self.run_uri, self.kind, path))
        except OSError:
            return False
        return hashlib.sha256(content).hexdigest().startswith(named["digest"])

    def _file_of(self, clip: Clip, digest: str) -> str:
        return f"{self.kind}/{clip.clip_id}.{digest[:DIGEST_LENGTH]}.parquet"

    def _uri_of(self, commit: Commit) -> str:
        return self.commit_uri(commit.clip, commit.fingerprint)


def _listed(folder: str) -> list[str]:
    """Names in a folder, from one listing; none if it does not exist."""
    fs, path = filesystem(folder)
    try:
        return [os.path.basename(name.rstrip("/")) for name in fs.ls(path, detail=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as Parquet, the same bytes for the same content."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _commit_bytes(commit: Commit) -> bytes:
    clip = commit.clip
    failure = commit.failure
    record = {
        "kind": commit.kind,
        "capture_id": clip.capture_id,
        "start": clip.start,
        "stop": clip.stop,
        "fingerprint": commit.fingerprint,
        "file": commit.file,
        "rows": commit.rows,
        "sha256": commit.sha256,
        "seconds": commit.seconds,
        "attempt": commit.attempt,
        "failure": failure and {"stage": failure.stage, "reason": failure.reason, "detail": failure.detail},
    }
    if commit.traceback:
        record["traceback"] = commit.traceback.splitlines()  # one element per line, for human readers
    return json.dumps(record, indent=1).encode()


def _read_commit(uri: str) -> Commit:
    try:
        return _parse_commit(read_bytes(uri))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ResultsError(f"{uri} is not a complete commit: delete it and run the job again.") from error


def _parse_commit(data: bytes) -> Commit:
    record = json.loads(data)
    clip = Clip(record["capture_id"], record["start"], record["stop"])
    failure = record["failure"]
    return Commit(
        kind=record.get("kind", ""),
        clip=clip,
        fingerprint=record["fingerprint"],
        file=record["file"],
        rows=record["rows"],
        sha256=record["sha256"],
        seconds=record["seconds"],
        attempt=record.get("attempt", 1),
        failure=failure and ClipFailure(clip, failure["stage"], FailureReason(failure["reason"]), failure["detail"]),
        traceback="\n".join(record.get("traceback", ())),
    )
