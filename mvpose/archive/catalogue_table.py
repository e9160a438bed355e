"""A catalogue as Parquet, which any SQL engine can query; written and read some captures at a time.

One row a capture and camera, with the camera, its video, and what identifies both. A capture that cannot be used is
one row with `reason` and `detail` and no camera; a note is one row with `detail` alone.

| column | type | |
| --- | --- | --- |
| capture, camera | string | rows of a capture stand together, in the order of its cameras |
| lens_model, focal, centre, lens_coefficients, rotation, translation, size | | the camera, as in `rigs/` |
| uri, fps, num_frames, width, height, first_frame | | its video |
| stated_fps | double | the rate in the file's header; null for pictures |
| footage_identity | string | size with modification time, or ETag |
| rig_digest | string | of all cameras of the capture |
| keypoints | string | where its 2D joints are imported from; empty where they are found in the footage |
| reason, detail | string | null where the capture can be used |
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, groupby, islice

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mvpose.archive.commits import write_whole_file
from mvpose.archive.identity import footage_identity, rig_digest
from mvpose.archive.locations import filesystem
from mvpose.archive.rig_table import rig_from_table, rig_to_table
from mvpose.errors import ConfigError, FailureReason
from mvpose.records import Capture, Video

THREADS = 8
"""Look-ups at a time: they wait for the storage, not for the processor."""
CAPTURES_AT_ONCE = 256
"""Captures of a row group: a worker reads one group to learn of one capture."""
_KEY, _VERSION = b"mvpose.catalogue", b"3"
_NUMBER, _TEXT, _COUNT = pa.float64(), pa.string(), pa.int64()
_VECTORS = ("focal", "centre", "lens_coefficients", "rotation", "translation")
# Lists of fixed size would say more, but Parquet does not bring back those that are null.
SCHEMA = pa.schema(
    [
        *[(name, _TEXT) for name in ("capture", "camera", "lens_model")],
        *[(name, pa.list_(_NUMBER)) for name in _VECTORS],
        ("size", pa.list_(_COUNT)),
        ("uri", _TEXT),
        ("fps", _NUMBER),
        *[(name, _COUNT) for name in ("num_frames", "width", "height", "first_frame")],
        ("stated_fps", _NUMBER),
        *[(name, _TEXT) for name in ("footage_identity", "rig_digest", "keypoints", "reason", "detail")],
    ],
    metadata={_KEY: _VERSION},
)
_LISTED = ("capture", "camera", "num_frames", "first_frame", "footage_identity", "rig_digest")
_VIDEO = (
    "camera", "uri", "fps", "num_frames", "width", "height", "first_frame", "footage_identity", "stated_fps",
    "keypoints",
)  # fmt: skip


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
    fs, path = filesystem(uri)
    with fs.open(path, "rb") as file:
        table = _read(uri, file, filters=[("capture", "=", capture_id), ("camera", "!=", "")])
    found = list(_captures(table))
    if len(found) != 1:
        raise ConfigError(f"{uri} has no capture {capture_id}.")
    return found[0]


@dataclass(frozen=True)
class Listed:
    """What a plan needs to know of a capture. No rig is made, which is most of the cost of reading a capture."""

    capture_id: str
    num_frames: int
    footage: tuple[tuple[str, int, str], ...]
    """(camera, first frame, identity of the content) of each video."""
    rig_digest: str


def listed(uri: str) -> Iterator[Listed]:
    """The captures of a catalogue, in its order, a row group at a time; ConfigError as `read_catalogue`."""
    for table in _row_groups(uri, columns=list(_LISTED)):
        rows = zip(*(table[name].to_pylist() for name in _LISTED), strict=True)
        for capture_id, own in groupby((row for row in rows if row[1] is not None), key=lambda row: row[0]):
            _, cameras, num_frames, first_frames, identities, digests = zip(*own, strict=True)
            yield Listed(
                capture_id,
                max(0, min(n - first for n, first in zip(num_frames, first_frames, strict=True))),
                tuple(zip(cameras, first_frames, identities, strict=True)),
                digests[0],
            )


def read_captures(uri: str) -> Iterator[Found]:
    """What a catalogue holds, in its order, a row group at a time; ConfigError as `read_catalogue`."""
    for table in _row_groups(uri):
        yield from _found(uri, table)


def known_videos(uri: str) -> Mapping[str, Video]:
    """All videos of a catalogue by their location, without a rig being made; ConfigError for another file."""
    nothing = pa.schema([SCHEMA.field(name) for name in _VIDEO]).empty_table()
    some = (table.filter(table["uri"].is_valid()) for table in _row_groups(uri, columns=list(_VIDEO)))
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
                return _video(row.to_pylist()[0])
            place += 1
        raise KeyError(uri)

    def __iter__(self) -> Iterator[str]:
        return (uri for batch in self._table.to_batches(4096) for uri in batch.column("uri").to_pylist())

    def __len__(self) -> int:
        return len(self._table)


def _row_groups(uri: str, **what) -> Iterator[pa.Table]:
    try:
        fs, path = filesystem(uri)
        with fs.open(path, "rb") as file:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            for group in range(parquet.num_row_groups):
                yield _checked(uri, parquet.read_row_group(group, **what), **what)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ConfigError(f"{uri} cannot be read as a catalogue: {error}") from error


def _found(uri: str, table: pa.Table) -> Iterator[Found]:
    about_none = table.filter(table["camera"].is_null()).to_pylist()
    try:
        yield from list(_captures(table.filter(table["camera"].is_valid())))
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
    if (table.schema.metadata or {}).get(_KEY) != _VERSION:
        raise ConfigError(
            f"{uri} is not a catalogue, or one of another version of mvpose: write one with `mvpose index ARCHIVE "
            "--full --output FILE`, or begin the job again with --replan."
        )
    expected = SCHEMA if "columns" not in what else pa.schema([SCHEMA.field(name) for name in what["columns"]])
    if not table.schema.equals(expected):
        raise _damaged(uri, "its columns are not a catalogue's")
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
            tables.append(_capture_table(told))
        elif isinstance(item, Problem):
            others.append({"capture": item.capture_id, "reason": str(item.reason), "detail": item.detail})
        else:
            others.append({"detail": item})
    return pa.concat_tables([*tables, pa.Table.from_pylist(others, schema=SCHEMA)])


def _capture_table(capture: Capture) -> pa.Table:
    videos = capture.videos
    columns = {
        "capture": [capture.capture_id] * len(videos),
        "uri": [v.uri for v in videos],
        "fps": [v.fps for v in videos],
        "num_frames": [v.num_frames for v in videos],
        "width": [v.size[0] for v in videos],
        "height": [v.size[1] for v in videos],
        "first_frame": [v.first_frame for v in videos],
        "stated_fps": [v.stated_fps for v in videos],
        "footage_identity": [v.stamp for v in videos],
        "rig_digest": [rig_digest(capture.rig)] * len(videos),
        "keypoints": [v.keypoints for v in videos],
        "reason": [None] * len(videos),
        "detail": [None] * len(videos),
    }
    rig = rig_to_table(capture.rig, {})
    own = {name: pa.array(values, SCHEMA.field(name).type) for name, values in columns.items()}
    arrays = [own[f.name] if f.name in own else rig.column(f.name).cast(f.type) for f in SCHEMA]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def _captures(table: pa.Table) -> Iterator[Capture]:
    """ConfigError where a rig is not the one that was written: Parquet's own sums do not cover its footer."""
    rows = table.select([*_VIDEO, "capture", "rig_digest"]).to_pylist()
    start = 0
    for capture_id, group in groupby(rows, key=lambda row: row["capture"]):
        own = list(group)
        rig = rig_from_table(table.slice(start, len(own)))
        start += len(own)
        if {row["rig_digest"] for row in own} != {rig_digest(rig)}:
            raise ConfigError(f"the catalogue is damaged: the cameras of {capture_id} are not those it was made with.")
        yield Capture(capture_id, rig, tuple(map(_video, own)))


def _video(row: dict) -> Video:
    size = (row["width"], row["height"])
    return Video(
        row["camera"], row["uri"], row["fps"], row["num_frames"], size, row["first_frame"], row["footage_identity"],
        row["stated_fps"], row["keypoints"],
    )  # fmt: skip
