"""Exact medians of more numbers than fit in memory: spooled to a temporary file and counted in several passes.

Two hours of four cameras at 30 frames/s with five people (`mvpose benchmark medians`): bone lengths take
16 MiB and 5.1 s of CPU here, 215 MiB and 1.8 s with `np.median` in memory; reprojection errors 15 MiB and 19.5 s here,
1352 MiB and 8.2 s in memory. NumPy's memory grows with the footage and a job's memory must not, so the file is kept.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Int, UInt

from mvpose.errors import ResultsError

# Bits determined per pass: 256 counters per median, 4 passes for float32, 8 for float64.
_BITS = 8
# Number of values read at a time.
_PIECE = 500_000


class NumberSpool:
    """Rows of numbers, if they are many on local disk, in an unnamed file that disappears with the process."""

    def __init__(self, columns: int, dtype: type[np.floating]) -> None:
        self.columns, self.dtype, self.rows = columns, np.dtype(dtype), 0
        self._file = tempfile.SpooledTemporaryFile(_PIECE)  # noqa: SIM115 (closed with the spool)

    def add(self, rows: Float[np.ndarray, "n K"]) -> None:
        """Append rows; all-NaN rows are omitted. Raises ResultsError if the disk is full."""
        some = rows[np.isfinite(rows).any(axis=1)]
        self.rows += len(some)
        try:
            self._file.write(some.astype(self.dtype).tobytes())
        except OSError as error:
            where = tempfile.gettempdir()
            raise ResultsError(
                f"cannot store numbers in {where}: {error.strerror or error}. Free some space there or set TMPDIR to "
                "another folder, then run the same command again."
            ) from error

    def __iter__(self) -> Iterator[Float[np.ndarray, "n K"]]:
        """All rows in order, in chunks."""
        self._file.seek(0)
        size = max(1, _PIECE // max(1, self.columns)) * self.columns * self.dtype.itemsize
        while data := self._file.read(size):
            yield np.frombuffer(data, self.dtype).reshape(-1, self.columns)


def medians(spool: NumberSpool, groups: Sequence[Int[np.ndarray, "_"]] | None = None) -> Float[np.ndarray, "G"]:
    """`np.median` of all numbers in each group of columns (default: of each column), ignoring NaN.

    The numbers must be NaN or finite and not negative. The result is NaN for an empty group. Radix selection (Knuth,
    TAOCP 3, 5.2.5): floats from 0 upwards have the order of their bits read as integers. Each pass counts, among the
    numbers that share the median's bits so far, those with each value of the next bits.
    """
    groups = [np.array([column]) for column in range(spool.columns)] if groups is None else groups
    if spool.rows * spool.columns <= _PIECE:
        # Of captures of a single instant, the passes over histograms would take a third of the time of all figures.
        rows = np.concatenate([np.empty((0, spool.columns), spool.dtype), *spool])
        return np.array([median_of(rows[:, group]) for group in groups], spool.dtype)
    integer = np.dtype(f"u{spool.dtype.itemsize}")
    width = 8 * spool.dtype.itemsize
    bits, rank = np.zeros(len(groups), integer), np.zeros(len(groups), np.int64)
    equal = np.zeros(len(groups), np.int64)
    for shift in range(width - _BITS, -1, -_BITS):
        counts = _counts(spool, groups, bits, shift)
        if shift == width - _BITS:
            total = counts.sum(axis=1)
            rank = np.maximum(total - 1, 0) // 2
        upto = counts.cumsum(axis=1)
        digit = (upto <= rank[:, None]).sum(axis=1).clip(max=counts.shape[1] - 1)
        equal = np.take_along_axis(counts, digit[:, None], axis=1)[:, 0]
        rank = rank - np.take_along_axis(upto, digit[:, None], axis=1)[:, 0] + equal
        bits |= digit.astype(integer) << integer.type(shift)
    low = bits.view(spool.dtype)
    high = np.where((total % 2 == 0) & (rank + 1 >= equal), _above(spool, groups, low), low)
    return np.where(total > 0, (low + high) / spool.dtype.type(2), np.nan)


def median_of(values: Float[np.ndarray, "*n"]) -> np.floating:
    """`np.median` of the numbers that are finite, in a fifth of its time for few; NaN if there are none."""
    there = values[np.isfinite(values)]
    if not there.size:
        return np.float64(np.nan)
    middle = [(there.size - 1) // 2, there.size // 2]
    low, high = np.partition(there, middle)[middle]
    return (low + high) / 2


def _counts(
    spool: NumberSpool, groups: Sequence[Int[np.ndarray, "_"]], bits: UInt[np.ndarray, "G"], shift: int
) -> Int[np.ndarray, "G values"]:
    """Number of occurrences of each value of the `_BITS` bits above `shift` after the bits already determined."""
    counts = np.zeros((len(groups), 2**_BITS), np.int64)
    width = 8 * bits.dtype.itemsize
    settled = bits.dtype.type(2**width - 2 ** (shift + _BITS))
    for rows in spool:
        there, whole = np.isfinite(rows), rows.view(bits.dtype)
        for group, columns in enumerate(groups):
            of = whole[:, columns][there[:, columns]]
            of = of[(of ^ bits[group]) & settled == 0]
            digit = of >> bits.dtype.type(shift) & bits.dtype.type(2**_BITS - 1)
            counts[group] += np.bincount(digit.astype(np.intp), minlength=2**_BITS)
    return counts


def _above(
    spool: NumberSpool, groups: Sequence[Int[np.ndarray, "_"]], low: Float[np.ndarray, "G"]
) -> Float[np.ndarray, "G"]:
    """The minimum of each group above `low`; `low` if there is none."""
    minimum = np.full_like(low, np.inf)
    for rows in spool:
        for group, columns in enumerate(groups):
            of = rows[:, columns]
            minimum[group] = min(minimum[group], of.min(where=of > low[group], initial=np.inf))
    return np.where(np.isfinite(minimum), minimum, low)
