"""Read DeepLabCut's tables (h5 and csv): columns (scorer, [individuals,] bodyparts, coords), indexed by frame.

pandas reads the h5 through PyTables, which unpickles attributes of the file and so runs any code in them. Here the
arrays are read through h5py. If the column names are pickled (format "table"), they are read by an unpickler that knows
no classes or functions, only numbers, strings, tuples and lists.
"""

from __future__ import annotations

import csv
import io
import pickle
import re
from itertools import islice

import h5py
import numpy as np
from jaxtyping import Float, Int

from mvpose.errors import ConfigError
from mvpose.exchange.keypoints.view_joints import ViewKeypoints, view_of
from mvpose.storage.plain_data import dataset, strings

_COORDS = ("x", "y", "likelihood")
_HEADERS = (["scorer", "bodyparts", "coords"], ["scorer", "individuals", "bodyparts", "coords"])
_NOT_COLUMNS = "its columns are not (scorer, [individuals,] bodyparts, coords)."

Columns = list[tuple[str, ...]]


def read_deeplabcut(file: h5py.File) -> ViewKeypoints:
    """x, y and likelihood of every body part; each individual has a separate slot."""
    groups = [group for group in file.values() if isinstance(group, h5py.Group)]
    group = next((g for g in groups if "table" in g or "block0_values" in g), None)
    if group is None:
        raise ConfigError("it is neither a SLEAP analysis file nor a table of DeepLabCut.")
    return _view(*(_table_format(group) if "table" in group else _fixed_format(group)))


def read_deeplabcut_csv(data: bytes) -> ViewKeypoints:
    """Like `read_deeplabcut`, from the table as text."""
    try:
        text = data.decode("utf-8-sig")
        header = list(islice(csv.reader(io.StringIO(text)), 4))
        levels = [row[0] for row in header if row]
        rows = next((len(names) for names in _HEADERS if levels[: len(names)] == names), 0)
        if not rows:
            raise ConfigError("it is not a DeepLabCut table: its first rows are not scorer, bodyparts and coords.")
        # Tables of manually labelled images have an index of several columns with empty header cells.
        width = next((i for i, cell in enumerate(header[rows - 1]) if cell in _COORDS), 1)
        import pandas as pd  # half a second, which every worker would pay

        table = pd.read_csv(io.StringIO(text), header=None, skiprows=rows, dtype={width - 1: str}, low_memory=False)
        values = table.iloc[:, width:].to_numpy(dtype=np.float64)
        columns = list(zip(*(row[width:] for row in header[:rows]), strict=True))
    except (csv.Error, ValueError) as error:
        raise ConfigError(f"it cannot be read as a table of DeepLabCut: {error}") from error
    return _view(columns, _frames(table[width - 1].tolist()), values)


def _view(columns: Columns, frame: Int[np.ndarray, " T"], values: Float[np.ndarray, "T C"]) -> ViewKeypoints:
    if not columns or {len(column) for column in columns} not in ({3}, {4}) or len(columns) != values.shape[1]:
        raise ConfigError(_NOT_COLUMNS)
    # Points without an individual ("single") have other body parts than the individuals and are ignored.
    individuals = list(dict.fromkeys(column[-3] for column in columns if len(column) == 3 or column[1] != "single"))
    joints = list(dict.fromkeys(column[-2] for column in columns if column[-3] in individuals))
    cube = np.full((len(values), len(individuals), len(joints), 3), np.nan)
    if not any(column[-1] == "likelihood" for column in columns):
        cube[..., 2] = 1.0  # placed manually
    for column, series in zip(columns, values.T, strict=True):
        if column[-3] in individuals and column[-1] in _COORDS:
            place = individuals.index(column[-3]), joints.index(column[-2]), _COORDS.index(column[-1])
            cube[:, *place] = series
    return view_of(joints, frame, cube[..., :2], np.nan_to_num(cube[..., 2]))


def _table_format(group: h5py.Group) -> tuple[Columns, Int[np.ndarray, " T"], Float[np.ndarray, "T C"]]:
    """pandas' format "table": rows of an index and one block of values."""
    table = dataset(group, "table")
    if {"index", "values_block_0"} - set(table.dtype.names or ()) or "values_block_1" in table.dtype.names:
        raise ConfigError("its table is not an index and one block of numbers.")
    kind = table.attrs.get("values_block_0_kind")
    named = _plain(kind) if isinstance(kind, bytes) else None
    if not isinstance(named, list) or not all(isinstance(column, tuple) for column in named):
        raise ConfigError(_NOT_COLUMNS)
    columns = [tuple(map(str, column)) for column in named]
    values = np.asarray(table["values_block_0"], dtype=np.float64).reshape(len(table), -1)
    return columns, _frames(np.asarray(table["index"]).tolist()), values


def _fixed_format(group: h5py.Group) -> tuple[Columns, Int[np.ndarray, " T"], Float[np.ndarray, "T C"]]:
    """pandas' format "fixed": values, and for each level of columns and index its names and their positions."""
    if "block1_values" in group:
        raise ConfigError("its table is not one block of numbers.")
    columns = _levels(group, "block0_items")
    index = _levels(group, "axis1")
    rows = [path[-1] for path in index] if index else np.asarray(dataset(group, "axis1")).tolist()
    return columns, _frames(rows), np.asarray(dataset(group, "block0_values"), dtype=np.float64)


def _levels(group: h5py.Group, axis: str) -> Columns:
    """The tuples of an axis with several levels; empty if the axis has one level."""
    named = []
    for level in range(sum(f"{axis}_level{i}" in group for i in range(4))):
        names = np.array(strings(group, f"{axis}_level{level}"))
        positions = np.asarray(dataset(group, f"{axis}_label{level}"), dtype=np.intp)
        if not len(names) or not ((positions >= 0) & (positions < len(names))).all():
            raise ConfigError("a row or column has no name.")
        named.append(names[positions].tolist())
    return list(zip(*named, strict=True))


def _frames(index: list) -> Int[np.ndarray, " T"]:
    """The frame of each row: its index, or the number in its image's name (`img0012.png`)."""
    frames = [_frame(row.decode(errors="replace") if isinstance(row, bytes) else str(row)) for row in index]
    return np.array(frames, dtype=np.int64)


def _frame(row: str) -> int:
    """The number in "12", "12.0" or "labeled-data/walk/img0012.png": an integer, or an image name's last number."""
    if whole := re.fullmatch(r"(-?\d{1,18})(?:\.0)?", row):
        return int(whole[1])
    image, _, suffix = re.split(r"[/\\]", row)[-1].rpartition(".")
    numbers = re.findall(r"\d{1,18}", image)
    if not numbers or not suffix[:1].isalpha():
        raise ConfigError(f"its index has {row[:40]!r}, which is neither a frame nor a numbered image.")
    return int(numbers[-1])


class _PandasUnpickler(pickle.Unpickler):
    """Rejects everything that is not a plain value: without classes and functions nothing can run."""

    def find_class(self, module: str, name: str) -> object:
        raise ConfigError(f"its column names contain {module}.{name}, which is not a plain value and is never loaded.")


def _plain(data: bytes) -> object:
    try:
        return _PandasUnpickler(io.BytesIO(data)).load()
    except (pickle.UnpicklingError, ValueError, KeyError, IndexError, EOFError, TypeError, AttributeError) as error:
        raise ConfigError(f"its column names cannot be read: {error}") from error
