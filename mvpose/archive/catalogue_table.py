"""A catalogue as Parquet: one row a capture and camera, with the camera, its video, and what identifies both."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby

import pyarrow as pa
import pyarrow.parquet as pq

from mvpose.archive.commits import write_whole
from mvpose.archive.identity import footage_identity, rig_digest
from mvpose.archive.locations import read_bytes
from mvpose.archive.rig_table import rig_from_table, rig_to_table
from mvpose.errors import ConfigError, FailureReason
from mvpose.records import Capture, Video

_KEY = b"mvpose.catalogue"
THREADS = 8
"""Look-ups at a time: they wait for the storage, not for the processor."""


@dataclass(frozen=True)
class Problem:
    """A capture that cannot be used, and why."""

    capture_id: str
    reason: FailureReason
    detail: str


@dataclass(frozen=True)
class Catalogue:
    """The captures of an archive, by id, what is wrong with others, and what was decided on the way."""

    captures: list[Capture]
    problems: list[Problem]
    notes: list[str]


def write_catalogue(uri: str, catalogue: Catalogue) -> None:
    """Write a catalogue as one Parquet file. VideoError if footage is gone, ResultsError if it cannot be written."""
    with ThreadPoolExecutor(THREADS) as pool:
        identities = list(pool.map(footage_identity, [v for c in catalogue.captures for v in c.videos]))
    of_video = iter(identities)
    tables = [_capture_table(capture, of_video) for capture in catalogue.captures]
    problems = [[p.capture_id, str(p.reason), p.detail] for p in catalogue.problems]
    metadata = {_KEY: json.dumps({"problems": problems, "notes": catalogue.notes}).encode()}
    table = pa.concat_tables(tables) if tables else pa.table({"capture": pa.array([], pa.string())})
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), sink)
    write_whole(uri, sink.getvalue())


def read_catalogue(uri: str) -> Catalogue:
    """The inverse of `write_catalogue`: the same captures, bit for bit. ConfigError for another file."""
    try:
        table = pq.read_table(io.BytesIO(read_bytes(uri)))
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigError(f"{uri} cannot be read as a catalogue: {error}") from error
    if _KEY not in (table.schema.metadata or {}):
        raise ConfigError(f"{uri} is not a catalogue: write one with `mvpose index ARCHIVE --output FILE`.")
    said = json.loads(table.schema.metadata[_KEY])
    problems = [Problem(capture_id, FailureReason(reason), detail) for capture_id, reason, detail in said["problems"]]
    return Catalogue(list(_captures(table)), problems, said["notes"])


def _capture_table(capture: Capture, identities: Iterator[str]) -> pa.Table:
    videos = capture.videos
    columns = {
        "uri": pa.array([v.uri for v in videos]),
        "fps": pa.array([v.fps for v in videos], pa.float64()),
        "num_frames": pa.array([v.num_frames for v in videos], pa.int64()),
        "width": pa.array([v.size[0] for v in videos], pa.int64()),
        "height": pa.array([v.size[1] for v in videos], pa.int64()),
        "first_frame": pa.array([v.first_frame for v in videos], pa.int64()),
        "footage_identity": pa.array([next(identities) for _ in videos]),
        "rig_digest": pa.array([rig_digest(capture.rig)] * len(videos)),
    }
    rig = rig_to_table(capture.rig, {}).replace_schema_metadata(None)
    table = rig.add_column(0, "capture", pa.array([capture.capture_id] * len(videos)))
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table


def _captures(table: pa.Table) -> Iterator[Capture]:
    rows = table.to_pylist()
    start = 0
    for capture_id, group in groupby(rows, key=lambda row: row["capture"]):
        own = list(group)
        rig = rig_from_table(table.slice(start, len(own)))
        start += len(own)
        yield Capture(capture_id, rig, tuple(_video(row) for row in own))


def _video(row: dict) -> Video:
    size = (row["width"], row["height"])
    return Video(row["camera"], row["uri"], row["fps"], row["num_frames"], size, row["first_frame"])
