"""Read and write a catalogue as Parquet, a few captures at a time. Any SQL engine can query the file.

The columns are described in `catalogue_rows`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, groupby, islice

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mvpose.capture import Capture
from mvpose.errors import ConfigError, FailureReason
from mvpose.footage.catalogue_rows import KEY, SCHEMA, VERSION, VIDEO_COLUMNS, capture_rows, captures_of, video_of
from mvpose.footage.rig_table import footage_identity
from mvpose.geometry import Unit
from mvpose.records import Video
from mvpose.storage.commits import write_whole_file
from mvpose.storage.locations import inside, reading

THREADS = 8
"""Concurrent look-ups. They wait for storage, not for the processor."""
CAPTURES_AT_ONCE = 256
"""Captures per row group. A worker reads one group to get one capture."""
_WITHOUT_CLOCKS = b"2"
_SINCE_3 = ("clock", "ticks", "shown", "breaks", "shown_turns", "keypoints", "assumed_unit")
_UNKNOWN = {"shown_turns": 0, "keypoints": ""}
_FOOTAGE = ("camera", "first_frame", "footage_identity", "num_frames", "width", "height", "shown")
_LISTED = ("capture", *_FOOTAGE, "rig_digest", "assumed_unit", "fps", "breaks")


@dataclass(frozen=True)
class Problem:
    """A capture that cannot be used, and why."""

    capture_id: str
    reason: FailureReason
    detail: str


Found = Capture | Problem | str
"""One item of an archive: a capture, an unusable capture, or a note."""


@dataclass(frozen=True)
class Catalogue:
    """The captures of an archive by id, the problems of unusable ones, and notes on decisions."""

    captures: list[Capture]
    problems: list[Problem]
    notes: list[str]


def write_catalogue(uri: str, catalogue: Catalogue) -> None:
    """Write a catalogue as one Parquet file. Raises VideoError if footage is gone, ResultsError if writing fails."""
    for _ in written(uri, chain(catalogue.captures, catalogue.problems, catalogue.notes)):
        pass


def written(uri: str, found: Iterable[Found]) -> Iterator[Found]:
    """Pass items through and write them to a catalogue file, which is put in place once all have passed."""
    upcoming = iter(found)
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        with catalogue_writer(file.name) as writer, ThreadPoolExecutor(THREADS) as pool:
            while some := list(islice(upcoming, CAPTURES_AT_ONCE)):
                writer.write_table(catalogue_rows(some, pool))
                yield from some
        write_whole_file(uri, file.name)


def catalogue_writer(path: str) -> pq.ParquetWriter:
    """A local Parquet file that takes row groups of a catalogue."""
    return pq.ParquetWriter(path, SCHEMA, compression="zstd", write_page_checksum=True)


def read_catalogue(uri: str) -> Catalogue:
    """The inverse of `write_catalogue`, bit for bit. Raises ConfigError for another kind of file or a damaged one."""
    catalogue = Catalogue([], [], [])
    for found in read_captures(uri):
        if isinstance(found, Capture):
            catalogue.captures.append(found)
        elif isinstance(found, Problem):
            catalogue.problems.append(found)
        else:
            catalogue.notes.append(found)
    return catalogue


def read_capture(uri: str, capture_id: str) -> Capture:
    """One capture of a catalogue; only its row group is read. Raises ConfigError if there is no such capture."""
    with reading(uri) as file:
        table = _read(uri, file, filters=[("capture", "=", capture_id), ("camera", "!=", "")])
    found = list(captures_of(table))
    if len(found) != 1:
        raise ConfigError(f"{uri} has no capture {capture_id}.")
    return found[0]


@dataclass(frozen=True)
class Listed:
    """The part of a capture that a plan needs. Building the rig, most of the cost of reading a capture, is skipped."""

    capture_id: str
    num_frames: int
    footage: tuple[tuple[object, ...], ...]
    """(camera, first frame, content identity, frames, width, height, shown stretches) of each video: all that reading
    it needs except its location."""
    rig_digest: str
    assumed_unit: Unit | None
    fps: float
    breaks: tuple[int, ...]
    """`Capture.breaks`, flat."""


def listed(uri: str) -> Iterator[Listed]:
    """The captures of a catalogue in its order, one row group at a time. Raises ConfigError like `read_catalogue`."""
    for table in _row_groups(uri, columns=list(_LISTED)):
        rows = zip(*(table[name].to_pylist() for name in _LISTED), strict=True)
        for capture_id, own in groupby((row for row in rows if row[1] is not None), key=lambda row: row[0]):
            _, *footage, digests, units, rates, breaks = zip(*own, strict=True)
            _, first_frames, _, num_frames, _, _, shown = footage
            yield Listed(
                capture_id,
                max(0, min(map(_stop, num_frames, first_frames, shown))),
                tuple(zip(*footage, strict=True)),
                digests[0],
                units[0],
                rates[0],
                tuple(breaks[0]),
            )


def _stop(num_frames: int, first_frame: int, shown: Sequence[int]) -> int:
    """`Video.stop` of a row."""
    return shown[-3] + shown[-1] if shown else num_frames - first_frame


def read_captures(uri: str) -> Iterator[Found]:
    """The items of a catalogue in its order, one row group at a time. Raises ConfigError like `read_catalogue`."""
    for table in _row_groups(uri):
        yield from _found(uri, table)


def known_videos(uri: str) -> Mapping[str, Video]:
    """All videos of a catalogue by location, without building rigs. Raises ConfigError for another kind of file."""
    nothing = pa.schema([SCHEMA.field(name) for name in VIDEO_COLUMNS]).empty_table()
    some = (table.filter(table["uri"].is_valid()) for table in _row_groups(uri, columns=list(VIDEO_COLUMNS)))
    return KnownVideos(pa.concat_tables([nothing, *(table.replace_schema_metadata() for table in some)]))


class KnownVideos(Mapping[str, Video]):
    """The videos in a catalogue's rows, each built on access. As objects, those of a million clips (80,000 videos)
    would take 45 MB."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table.combine_chunks()
        hashes = np.fromiter(map(hash, self), np.int64, len(table))
        self._order = np.argsort(hashes).astype(np.int32)
        self._hashes = hashes[self._order]

    def __getitem__(self, uri: str) -> Video:
        place, last = np.searchsorted(self._hashes, hash(uri)), len(self)
        while place < last and self._hashes[place] == hash(uri):
            row = self._table.slice(int(self._order[place]), 1)
            if row["uri"][0].as_py() == uri:
                return video_of(row.to_pylist()[0])
            place += 1
        raise KeyError(uri)

    def __iter__(self) -> Iterator[str]:
        return (uri for batch in self._table.to_batches(4096) for uri in batch.column("uri").to_pylist())

    def __len__(self) -> int:
        return len(self._table)


def _row_groups(uri: str, **what) -> Iterator[pa.Table]:
    try:
        with reading(uri) as file:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            for group in range(parquet.num_row_groups):
                yield _checked(uri, parquet.read_row_group(group, **what), **what)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ConfigError(f"{uri} cannot be read as a catalogue: {error}") from error


def _found(uri: str, table: pa.Table) -> Iterator[Found]:
    about_none = table.filter(table["camera"].is_null()).to_pylist()
    try:
        captures = list(captures_of(table.filter(table["camera"].is_valid())))
        yield from (replace(capture, capture_id=inside(capture.capture_id, uri)) for capture in captures)
        for row in about_none:
            note = row["detail"]
            yield Problem(row["capture"], FailureReason(row["reason"]), note) if row["reason"] else note
    except (ValueError, TypeError) as error:
        raise _damaged(uri, str(error)) from error


def _read(uri: str, file, **what) -> pa.Table:
    try:
        table = pq.read_table(file, page_checksum_verification=True, **what)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ConfigError(f"{uri} cannot be read as a catalogue: {error}") from error
    return _checked(uri, table, **what)


def _checked(uri: str, table: pa.Table, **what) -> pa.Table:
    version = (table.schema.metadata or {}).get(KEY)
    if version not in (VERSION, _WITHOUT_CLOCKS):
        raise ConfigError(
            f"{uri} is not a catalogue, or was written by another version of mvpose. Write one with `mvpose index "
            "ARCHIVE --full --output FILE`, or restart the job with --replan."
        )
    expected = SCHEMA if "columns" not in what else pa.schema([SCHEMA.field(name) for name in what["columns"]])
    if version == _WITHOUT_CLOCKS:
        table = _with_clocks(table, expected)
    if not table.schema.equals(expected):
        raise _damaged(uri, "its columns are not a catalogue's")
    return table


def _with_clocks(table: pa.Table, expected: pa.Schema) -> pa.Table:
    """Upgrade a table of version 2, which paired frames by index: all frames from `first_frame` on are shown."""
    for place, column in enumerate(expected):
        if column.name in _SINCE_3 and column.name not in table.column_names:
            empty = [_UNKNOWN.get(column.name, [] if pa.types.is_list(column.type) else None)] * len(table)
            table = table.add_column(place, column, pa.array(empty, column.type))
    return table


def _damaged(uri: str, what: str) -> ConfigError:
    return ConfigError(f"{uri} is damaged: {what}. Delete it and write it again. and write it again.")


def catalogue_rows(some: Iterable[Found], pool: ThreadPoolExecutor) -> pa.Table:
    """The rows of captures, in order, then those of problems and notes. Missing footage stamps are looked up."""
    tables, others = [], []
    captures = [item for item in some if isinstance(item, Capture)]
    identities = iter(list(pool.map(footage_identity, [v for c in captures for v in c.videos])))
    for item in some:
        if isinstance(item, Capture):
            identified = replace(item, videos=tuple(replace(v, stamp=next(identities)) for v in item.videos))
            tables.append(capture_rows(identified))
        elif isinstance(item, Problem):
            others.append({"capture": item.capture_id, "reason": str(item.reason), "detail": item.detail})
        else:
            others.append({"detail": item})
    return pa.concat_tables([*tables, pa.Table.from_pylist(others, schema=SCHEMA)])
