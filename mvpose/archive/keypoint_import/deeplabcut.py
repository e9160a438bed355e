"""DeepLabCut's h5: a pandas table with the columns (scorer, [individuals,] bodyparts, coords).

pandas reads it through PyTables, which unpickles attributes of the file and so runs whatever code they hold. Here the
arrays are read through h5py; where the names of the columns are pickled (format "table"), they are read by an unpickler
that knows no class and no function, only numbers, strings, tuples and lists.
"""

from __future__ import annotations

import io
import pickle

import h5py
import numpy as np
from jaxtyping import Float

from mvpose.archive.keypoint_import.hdf5 import dataset, strings
from mvpose.archive.keypoint_import.view import ViewKeypoints, view_of
from mvpose.errors import ConfigError

_COORDS = ("x", "y", "likelihood")

Columns = list[tuple[str, ...]]


def read_deeplabcut(file: h5py.File) -> ViewKeypoints:
    """x, y and likelihood of every body part; each individual has a place of its own."""
    groups = [group for group in file.values() if isinstance(group, h5py.Group)]
    group = next((g for g in groups if "table" in g or "block0_values" in g), None)
    if group is None:
        raise ConfigError("it is neither a SLEAP analysis file nor a table of DeepLabCut.")
    columns, values = _table_format(group) if "table" in group else _fixed_format(group)
    if not columns or {len(column) for column in columns} not in ({3}, {4}) or len(columns) != values.shape[1]:
        raise ConfigError("its columns are not (scorer, [individuals,] bodyparts, coords).")
    # Points that belong to nobody ("single") have other body parts than the individuals: they are left out.
    individuals = list(dict.fromkeys(column[-3] for column in columns if len(column) == 3 or column[1] != "single"))
    joints = list(dict.fromkeys(column[-2] for column in columns if column[-3] in individuals))
    cube = np.full((len(values), len(individuals), len(joints), 3), np.nan)
    for column, series in zip(columns, values.T, strict=True):
        if column[-3] in individuals and column[-1] in _COORDS:
            place = individuals.index(column[-3]), joints.index(column[-2]), _COORDS.index(column[-1])
            cube[:, *place] = series
    return view_of(joints, cube[..., :2], np.nan_to_num(cube[..., 2]))


def _table_format(group: h5py.Group) -> tuple[Columns, Float[np.ndarray, "T C"]]:
    """pandas' format "table": rows of an index and one block of values."""
    table = dataset(group, "table")
    if "values_block_0" not in (table.dtype.names or ()) or "values_block_1" in table.dtype.names:
        raise ConfigError("its table is not one block of numbers.")
    kind = table.attrs.get("values_block_0_kind")
    named = _plain(kind) if isinstance(kind, bytes) else None
    if not isinstance(named, list) or not all(isinstance(column, tuple) for column in named):
        raise ConfigError("its columns are not (scorer, [individuals,] bodyparts, coords).")
    columns = [tuple(map(str, column)) for column in named]
    return columns, np.asarray(table["values_block_0"], dtype=np.float64).reshape(len(table), -1)


def _fixed_format(group: h5py.Group) -> tuple[Columns, Float[np.ndarray, "T C"]]:
    """pandas' format "fixed": values, and per level of the columns its names and their positions."""
    if "block1_values" in group:
        raise ConfigError("its table is not one block of numbers.")
    named = []
    for level in range(sum(f"block0_items_level{i}" in group for i in range(4))):
        names = np.array(strings(group, f"block0_items_level{level}"))
        positions = np.asarray(dataset(group, f"block0_items_label{level}"), dtype=np.intp)
        if not len(names) or not ((positions >= 0) & (positions < len(names))).all():
            raise ConfigError("a column has no name.")
        named.append(names[positions].tolist())
    return list(zip(*named, strict=True)), np.asarray(dataset(group, "block0_values"), dtype=np.float64)


class _PlainUnpickler(pickle.Unpickler):
    """Refuses everything that is not a plain value: without a class or a function nothing can run."""

    def find_class(self, module: str, name: str) -> object:
        raise ConfigError(f"its column names hold {module}.{name}, which is no plain value and is never loaded.")


def _plain(data: bytes) -> object:
    try:
        return _PlainUnpickler(io.BytesIO(data)).load()
    except (pickle.UnpicklingError, ValueError, KeyError, IndexError, EOFError, TypeError, AttributeError) as error:
        raise ConfigError(f"its column names cannot be read: {error}") from error
