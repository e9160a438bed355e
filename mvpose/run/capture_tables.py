"""Tables of whole captures: `identities/`, `filtered/`, `figures.parquet` and `failures/failures.parquet`.

`identities/` has one row per track that is kept. `filtered/` has the columns of `poses/` and three flags per joint:
`filled` (interpolated; its num_views is 0, its error_px and sigma_mm NaN), `smoothed` (False if a run of frames was too
short for the filter) and `removed` (measured, but rejected as an outlier). The sigma_mm of a smoothed joint is that of
its measurement. As in `poses/`, a person without any joint in a frame has no row. `figures.parquet` has one row per
capture and figure of merit, ordered by capture. A capture has about two hundred; those of 20,000 captures would take
500 MB as Python objects. `failures.parquet` has one row per clip or capture without a result.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mvpose.config import digest
from mvpose.errors import ResultsError
from mvpose.reconstruction.identities import Identified
from mvpose.records import ClipFailure, Poses3D
from mvpose.run.pose_tables import TableInfo, poses_from_table, poses_to_table, table_info
from mvpose.storage.locations import reading
from mvpose.temporal.filters import FilteredPoses

_FIGURES_KEY = b"mvpose.figures"
_SCHEMA = pa.schema([("capture", pa.string()), ("figure", pa.string()), ("value", pa.float64())])


def figure_writer(path: str) -> pq.ParquetWriter:
    """A local Parquet file for tables of figures (see `figures_to_table`), several captures per row group."""
    return pq.ParquetWriter(path, _SCHEMA, compression="zstd", write_page_checksum=True)


def figure_rows(tables: list[pa.Table]) -> pa.Table:
    """Tables of figures as a row group."""
    return pa.concat_tables([_SCHEMA.empty_table(), *(table.cast(_SCHEMA) for table in tables)])


@dataclass(frozen=True, repr=False)
class FigureTable(Mapping[str, Mapping[str, float]]):
    """Figures by capture, read on access. Raises ResultsError if they cannot be read."""

    uri: str

    def __getitem__(self, capture_id: str) -> dict[str, float]:
        with self._opened() as file:
            table = pq.read_table(file, filters=[("capture", "=", capture_id)], page_checksum_verification=True)
            if not len(table):
                raise KeyError(capture_id)
            return dict(zip(table["figure"].to_pylist(), table["value"].to_pylist(), strict=True))

    def __iter__(self) -> Iterator[str]:
        return (capture_id for capture_id, _ in self.each())

    def __len__(self) -> int:
        with self._opened() as file:
            return len(pq.read_table(file, columns=["capture"])["capture"].unique())

    def each(self) -> Iterator[tuple[str, dict[str, float]]]:
        """All captures with their figures, in order, one row group at a time."""
        with self._opened() as file:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            for group in range(parquet.num_row_groups):
                columns = (column.to_pylist() for column in parquet.read_row_group(group, columns=_SCHEMA.names))
                for capture_id, own in groupby(zip(*columns, strict=True), key=lambda row: row[0]):
                    yield capture_id, {figure: value for _, figure, value in own}

    def medians(self) -> dict[str, float]:
        """The median of each figure over the captures that have it."""
        with self._opened() as file:
            table = pq.read_table(file, columns=["figure", "value"], read_dictionary=["figure"])
        known = table.filter(pa.array(np.isfinite(table["value"].to_numpy())))
        middle = known.group_by("figure").aggregate([("value", "approximate_median")])
        return dict(zip(middle["figure"].to_pylist(), middle["value_approximate_median"].to_pylist(), strict=True))

    def __repr__(self) -> str:
        """Content digest, as the digest of a summary requires."""
        sums = [digest(capture_id, json.dumps(figures, sort_keys=True)) for capture_id, figures in self.each()]
        return f"figures of {len(sums)} captures, {digest(sums)}"

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            with reading(self.uri) as file:
                yield file
        except (OSError, ValueError, pa.ArrowException) as error:
            message = f"{self.uri} cannot be read ({error}): delete summary.json next to it and run the job again."
            raise ResultsError(message) from error


def identities_to_table(people: Identified) -> pa.Table:
    """One row per track that is kept: first frame of its clip, track in the clip, person in the capture.

    Figures about the people go to the table's metadata.
    """
    rows = [(start, track, person) for (start, track), person in sorted(people.kept.items())]
    columns = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    table = pa.table(dict(zip(("clip_start", "track", "person"), columns, strict=True)))
    return table.replace_schema_metadata({_FIGURES_KEY: json.dumps(people.figures()).encode()})


def identified_figures(table: pa.Table) -> dict[str, float]:
    """The figures about people that were passed to `identities_to_table`."""
    return json.loads((table.schema.metadata or {})[_FIGURES_KEY])


def identities_from_table(table: pa.Table) -> dict[tuple[int, int], int]:
    """The people kept, as passed to `identities_to_table`."""
    start, track, person = (table.column(name).to_pylist() for name in ("clip_start", "track", "person"))
    return dict(zip(zip(start, track, strict=True), person, strict=True))


def with_identities(tracks: pa.Table, people: Mapping[tuple[int, int], int]) -> pa.Table:
    """The rows kept of a clip's pose table, in order; `track` becomes the person in the capture."""
    start = table_info(tracks).start
    person = np.array([people.get((start, track), -1) for track in tracks.column("track").to_pylist()], np.int32)
    at = tracks.schema.get_field_index("track")
    kept = tracks.set_column(at, tracks.schema.field(at), pa.array(person)).filter(pa.array(person >= 0))
    return kept.sort_by([("frame", "ascending"), ("track", "ascending")]).combine_chunks()


FLAGS = ("filled", "smoothed", "removed")


def filtered_to_table(filtered: FilteredPoses, info: TableInfo, first: int | None = None) -> pa.Table:
    """Rows ordered by frame, then track; `first` as in `poses_to_table`."""
    poses = filtered.poses
    table = poses_to_table(poses, info, first)
    t, p = np.nonzero((poses.confidence > 0).any(axis=2))
    for name in FLAGS:
        flags = getattr(filtered, name)[t, p]
        table = table.append_column(name, pa.FixedSizeListArray.from_arrays(pa.array(flags.ravel()), flags.shape[1]))
    return table


def filtered_from_table(table: pa.Table, raw: Poses3D) -> FilteredPoses:
    """The inverse of `filtered_to_table`; people are in the order of the `raw` poses of the same frames."""
    poses, info = poses_from_table(table)
    place = np.searchsorted(raw.track_id, poses.track_id)
    frame = table.column("frame").to_numpy() - info.start
    person = np.searchsorted(raw.track_id, table.column("track").to_numpy())

    def flag(name: str) -> np.ndarray:
        out = np.zeros(raw.confidence.shape, dtype=bool)
        column = table.column(name).combine_chunks().flatten().to_numpy(zero_copy_only=False)
        out[frame, person] = column.reshape(-1, raw.confidence.shape[2])
        return out

    def people(values: np.ndarray, empty: float | int) -> np.ndarray:
        out = np.full((len(values), len(raw.track_id), *values.shape[2:]), empty, dtype=values.dtype)
        out[:, place] = values
        return out

    whole = Poses3D(
        xyz=people(poses.xyz, np.nan),
        confidence=people(poses.confidence, 0.0),
        error_px=people(poses.error_px, np.nan),
        sigma_mm=people(poses.sigma_mm, np.nan),
        num_views=people(poses.num_views, 0),
        views_used=people(poses.views_used, False),
        track_id=raw.track_id,
        skeleton=poses.skeleton,
    )
    return FilteredPoses(whole, flag("filled"), flag("smoothed"), flag("removed"), raw)


def failure_table(failures: Sequence[ClipFailure]) -> pa.Table:
    """Columns capture, start, stop, stage, reason, detail; ordered by clip."""
    rows = sorted(failures, key=lambda f: f.clip)
    schema = pa.schema(
        [("capture", pa.string()), ("start", pa.int64()), ("stop", pa.int64())]
        + [(name, pa.string()) for name in ("stage", "reason", "detail")]
    )
    columns = [
        [f.clip.capture_id for f in rows],
        [f.clip.start for f in rows],
        [f.clip.stop for f in rows],
        [f.stage for f in rows],
        [str(f.reason) for f in rows],
        [f.detail for f in rows],
    ]
    return pa.table(dict(zip(schema.names, columns, strict=True)), schema=schema)
