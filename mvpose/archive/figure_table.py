"""`figures.parquet`: the figures of merit of all captures of a run, one row a capture and figure, ordered by capture.

A capture has some two hundred figures: those of an archive of 20,000 captures as Python objects would take 500 MB.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mvpose.archive.locations import reading
from mvpose.config import digest
from mvpose.errors import ResultsError

_SCHEMA = pa.schema([("capture", pa.string()), ("figure", pa.string()), ("value", pa.float64())])


def figure_writer(path: str) -> pq.ParquetWriter:
    """A local file that tables of figures (see `figures_to_table`) go to, those of some captures a row group."""
    return pq.ParquetWriter(path, _SCHEMA, compression="zstd", write_page_checksum=True)


def figure_rows(tables: list[pa.Table]) -> pa.Table:
    """Tables of figures as a row group."""
    return pa.concat_tables([_SCHEMA.empty_table(), *(table.cast(_SCHEMA) for table in tables)])


@dataclass(frozen=True, repr=False)
class FigureTable(Mapping[str, Mapping[str, float]]):
    """Figures by capture, read when they are asked for; ResultsError if they cannot be."""

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
        """All captures with their figures, in order, a row group at a time."""
        with self._opened() as file:
            parquet = pq.ParquetFile(file, page_checksum_verification=True)
            for group in range(parquet.num_row_groups):
                columns = (column.to_pylist() for column in parquet.read_row_group(group, columns=_SCHEMA.names))
                for capture_id, own in groupby(zip(*columns, strict=True), key=lambda row: row[0]):
                    yield capture_id, {figure: value for _, figure, value in own}

    def medians(self) -> dict[str, float]:
        """The middle of each figure over the captures that have it."""
        with self._opened() as file:
            table = pq.read_table(file, columns=["figure", "value"], read_dictionary=["figure"])
        known = table.filter(pa.array(np.isfinite(table["value"].to_numpy())))
        middle = known.group_by("figure").aggregate([("value", "approximate_median")])
        return dict(zip(middle["figure"].to_pylist(), middle["value_approximate_median"].to_pylist(), strict=True))

    def __repr__(self) -> str:
        """Tells two contents apart, as a digest of a summary needs it."""
        sums = [digest(capture_id, json.dumps(figures, sort_keys=True)) for capture_id, figures in self.each()]
        return f"figures of {len(sums)} captures, {digest(sums)}"

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            with reading(self.uri) as file:
                yield file
        except (OSError, ValueError, pa.ArrowException) as error:
            told = f"{self.uri} cannot be read ({error}): remove summary.json beside it and run the job again."
            raise ResultsError(told) from error
