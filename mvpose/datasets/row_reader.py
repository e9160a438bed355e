"""Random access to the rows of a table of samples, for training in random order.

Parquet is read by row groups. Groups are decoded completely and the most recent ones cached, so a caller that stays
within a few groups reads each of them once.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from mvpose.datasets.files import DatasetError, errors_naming
from mvpose.datasets.sample import Sample
from mvpose.datasets.sample_table import KEY_COLUMNS, read_tables, sample_files, samples_from_table, table_subject
from mvpose.skeleton import Skeleton
from mvpose.storage.locations import absolute, reading


@dataclass(frozen=True, eq=False)
class _File:
    uri: str
    footer: pq.FileMetaData


class RowReader:
    """Rows of a table numbered from 0, file by file. Opening reads only the files' footers."""

    def __init__(self, uri: str, kept_groups: int = 16) -> None:
        """`kept_groups` bounds memory: a group is some hundred rows with their images.

        DatasetError if there is no table, or its files have different joint sets.
        """
        self.uri = uri
        self._files = [_File(file, _footer(file)) for file in sample_files(uri)]
        subjects = {table_subject(f.footer.schema.to_arrow_schema()) for f in self._files}
        if len(subjects) != 1:
            raise DatasetError(f"{uri} mixes tables of {', '.join(sorted(f'{d} ({s.name})' for s, d in subjects))}.")
        (self.skeleton, self.dataset) = subjects.pop()
        self._groups = [(f, g) for f, file in enumerate(self._files) for g in range(file.footer.num_row_groups)]
        sizes = [self._files[f].footer.row_group(g).num_rows for f, g in self._groups]
        self._starts = np.cumsum([0, *sizes])
        self._kept: OrderedDict[int, list[Sample]] = OrderedDict()
        self._kept_groups = kept_groups

    skeleton: Skeleton
    dataset: str

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def num_groups(self) -> int:
        """Number of row groups."""
        return len(self._groups)

    def rows_of(self, group: int) -> range:
        """The rows of a row group."""
        return range(int(self._starts[group]), int(self._starts[group + 1]))

    def group_of(self, rows: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
        """The row group of each row."""
        return np.searchsorted(self._starts, rows, side="right") - 1

    def keys(self, columns: Sequence[str] = KEY_COLUMNS) -> pd.DataFrame:
        """Small columns of all rows, in row order."""
        parts = [t.to_pandas() for file in self._files for t in read_tables(file.uri, columns)]
        return pd.concat(parts, ignore_index=True)

    def joints(self, rows: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n J 3"]:
        """The true joints of rows, world, metres; NaN for a joint that the dataset lacks. No image is read."""
        columns = self.keys(("x", "y", "z")).iloc[rows]
        return np.stack([np.stack(columns[axis].tolist()) for axis in "xyz"], axis=-1)

    def sample(self, row: int) -> Sample:
        """One row; its group is read unless it is cached."""
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        # Removed and reinserted: several threads may call this, and at worst one of them reads a group again.
        samples = self._kept.pop(group, None) or self._read(group)
        self._kept[group] = samples
        while len(self._kept) > self._kept_groups:
            self._kept.popitem(last=False)
        return samples[row - int(self._starts[group])]

    def keeping(self, groups: int) -> RowReader:
        """A reader of the same rows that keeps so many groups of its own."""
        other = copy.copy(self)
        other._kept, other._kept_groups = OrderedDict(), groups
        return other

    def digest(self) -> str:
        """SHA-256 (hex) of the files' names and footers: sizes, offsets and extremes of every column.

        Equal for a copied table and different for changed content; no image is read for it.
        """
        root = absolute(self.uri)
        parts = [(absolute(f.uri).removeprefix(root), f.footer.to_dict()) for f in self._files]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()

    def _read(self, group: int) -> list[Sample]:
        file, number = self._groups[group]
        uri, footer = self._files[file].uri, self._files[file].footer
        with errors_naming(uri), reading(uri) as opened:
            parquet = pq.ParquetFile(opened, metadata=footer, page_checksum_verification=True)
            table = parquet.read_row_group(number, use_threads=False)
            return list(samples_from_table(table.replace_schema_metadata(parquet.schema_arrow.metadata)))


def _footer(uri: str) -> pq.FileMetaData:
    with errors_naming(uri), reading(uri) as opened:
        return pq.read_metadata(opened)
