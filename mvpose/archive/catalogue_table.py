"""A catalogue as Parquet, which any SQL engine can query; written and read some captures at a time.

`catalogue_rows` has the columns.
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

from mvpose.archive.catalogue_rows import KEY, SCHEMA, VERSION, VIDEO_COLUMNS, capture_rows, captures_of, video_of
from mvpose.archive.commits import write_whole_file
from mvpose.archive.identity import footage_identity
from mvpose.archive.locations import inside, reading
from mvpose.errors import ConfigError, FailureReason
from mvpose.records import Capture, Unit, Video

THREADS = 8
"""Look-ups at a time: they wait for the storage, not for the processor."""
CAPTURES_AT_ONCE = 256
"""Captures of a row group: a worker reads one group to learn of one capture."""
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
"""What an archive is found to hold: a capture, one that cannot be used, a note."""


@dataclass(frozen=True)
class Catalogue:
    """The captures of an archive, by id, what is wrong with others, and what was decided on the way."""

    captures: list[Capture]
    problems: list[Problem]
    notes: list[str]


def write_catalogue(uri: str, catalogue: Catalogue) -> None:
    """Write a catalogue as one Parquet file. VideoError if footage is gone, ResultsError if it cannot be written."""
    for _ in written(uri, chain(catalogue.captures, catalogue.problems, catalogue.notes)):
        pass


def written(uri: str, found: Iterable[Found]) -> Iterator[Found]:
    """Pass on what is found and write it as a catalogue, put in place whole once all has passed."""
    upcoming = iter(found)
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        with catalogue_writer(file.name) as writer, ThreadPoolExecutor(THREADS) as pool:
            while some := list(islice(upcoming, CAPTURES_AT_ONCE)):
                writer.write_table(catalogue_rows(some, pool))
                yield from some
        write_whole_file(uri, file.name)


def catalogue_writer(path: str) -> pq.ParquetWriter:
    """A local file that row groups of a catalogue go to."""
    return pq.ParquetWriter(path, SCHEMA, compression="zstd", write_page_checksum=True)


def read_catalogue(uri: str) -> Catalogue:
    """The inverse of `write_catalogue`: the same captures, bit for bit. ConfigError for another or a damaged file."""
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
    """One capture of a catalogue, by reading the row group that has it; ConfigError where none has."""
    with reading(uri) as file:
        table = _read(uri, file, filters=[("capture", "=", capture_id), ("camera", "!=", "")])
    found = list(captures_of(table))
    if len(found) != 1:
        raise ConfigError(f"{uri} has no capture {capture_id}.")
    return found[0]


@dataclass(frozen=True)
class Listed:
    """What a plan needs to know of a capture. No rig is made, which is most of the cost of reading a capture."""

    capture_id: str
    num_frames: int
    footage: tuple[tuple[object, ...], ...]
    """(camera, first frame, identity of the content, frames, width, height, stretches shown) of each video: all that
    reading it needs, but where it is stored."""
    rig_digest: str
    assumed_unit: Unit | None
    fps: float
    breaks: tuple[int, ...]
    """`Capture.breaks`, flat."""


def listed(uri: str) -> Iterator[Listed]:
    """The captures of a catalogue, in its order, a row group at a time; ConfigError as `read_catalogue`."""
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
    """What a catalogue holds, in its order, a row group at a time; ConfigError as `read_catalogue`."""
    for table in _row_groups(uri):
        yield from _found(uri, table)


def known_videos(uri: str) -> Mapping[str, Video]:
    """All videos of a catalogue by their location, without a rig being made; ConfigError for another file."""
    nothing = pa.schema([SCHEMA.field(name) for name in VIDEO_COLUMNS]).empty_table()
    some = (table.filter(table["uri"].is_valid()) for table in _row_groups(uri, columns=list(VIDEO_COLUMNS)))
    return KnownVideos(pa.concat_tables([nothing, *(table.replace_schema_metadata() for table in some)]))


class KnownVideos(Mapping[str, Video]):
    """The videos of a catalogue's rows, each made when it is asked for: as objects those of a million clips, 80,000,
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
            told = row["detail"]
            yield Problem(row["capture"], FailureReason(row["reason"]), told) if row["reason"] else told
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
            f"{uri} is not a catalogue, or one of another version of mvpose: write one with `mvpose index ARCHIVE "
            "--full --output FILE`, or begin the job again with --replan."
        )
    expected = SCHEMA if "columns" not in what else pa.schema([SCHEMA.field(name) for name in what["columns"]])
    if version == _WITHOUT_CLOCKS:
        table = _with_clocks(table, expected)
    if not table.schema.equals(expected):
        raise _damaged(uri, "its columns are not a catalogue's")
    return table


def _with_clocks(table: pa.Table, expected: pa.Schema) -> pa.Table:
    """A table of version 2, which paired frames in order: all of a capture's are shown from `first_frame` on."""
    for place, column in enumerate(expected):
        if column.name in _SINCE_3 and column.name not in table.column_names:
            empty = [_UNKNOWN.get(column.name, [] if pa.types.is_list(column.type) else None)] * len(table)
            table = table.add_column(place, column, pa.array(empty, column.type))
    return table


def _damaged(uri: str, what: str) -> ConfigError:
    return ConfigError(f"{uri} is damaged: {what}. Remove it and write it again.")


def catalogue_rows(some: Iterable[Found], pool: ThreadPoolExecutor) -> pa.Table:
    """The rows of captures, in their order, then those of all else; footage without a stamp is asked for it."""
    tables, others = [], []
    captures = [item for item in some if isinstance(item, Capture)]
    identities = iter(list(pool.map(footage_identity, [v for c in captures for v in c.videos])))
    for item in some:
        if isinstance(item, Capture):
            told = replace(item, videos=tuple(replace(v, stamp=next(identities)) for v in item.videos))
            tables.append(capture_rows(told))
        elif isinstance(item, Problem):
            others.append({"capture": item.capture_id, "reason": str(item.reason), "detail": item.detail})
        else:
            others.append({"detail": item})
    return pa.concat_tables([*tables, pa.Table.from_pylist(others, schema=SCHEMA)])
