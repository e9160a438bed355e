"""Plan the work of a job in scratch tables, before anything is written to its output.

An archive of a million clips is planned, run and finished a few captures at a time. Captures go to a scratch file as
they are found, are sorted there by id, and the plan is built from the columns of that table. Only the id of each
capture and the position of its rows are held in memory.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

import numpy as np
import pyarrow as pa

from mvpose.capture import Capture
from mvpose.footage.catalogue_rows import SCHEMA
from mvpose.footage.catalogue_table import (
    CAPTURES_AT_ONCE,
    THREADS,
    Found,
    Listed,
    Problem,
    catalogue_rows,
    catalogue_writer,
    listed,
)
from mvpose.records import CaptureTasks
from mvpose.run.plan_table import PlanTotals, read_plan, write_plan
from mvpose.storage.locations import join


class Scratch:
    """A local folder that is deleted with the last reference to this object."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="mvpose-plan-")
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)


@dataclass(frozen=True)
class Planned:
    """`catalogue.parquet` and `plan.parquet` in a scratch folder that lives as long as this object."""

    scratch: Scratch
    totals: PlanTotals
    max_cameras: int
    """Maximum number of cameras of a capture; 0 if there is none."""
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]

    @property
    def catalogue(self) -> str:
        """The captures by id, then the problems, then the notes."""
        return join(self.scratch.folder, "catalogue.parquet")

    @property
    def plan(self) -> str:
        """The clips, in the order of the captures."""
        return join(self.scratch.folder, "plan.parquet")

    def tasks(self) -> Iterator[CaptureTasks]:
        """The work on each capture, in order, read lazily."""
        yield from read_plan(self.plan)


def lay_out(found: Iterable[Found], plan_of: Callable[[Listed], CaptureTasks]) -> Planned:
    """Catalogue and plan of an archive's items. Raises VideoError if footage is gone."""
    scratch = Scratch()
    folder = scratch.folder
    problems, notes = _write_sorted(join(folder, "catalogue.parquet"), join(folder, "found.arrow"), found)
    max_cameras = 0

    def plans() -> Iterator[CaptureTasks]:
        nonlocal max_cameras
        for capture in listed(join(folder, "catalogue.parquet")):
            max_cameras = max(max_cameras, len(capture.footage))
            yield plan_of(capture)

    totals = write_plan(join(folder, "plan.parquet"), plans(), problems)
    return Planned(scratch, totals, max_cameras, tuple(problems), tuple(notes))


def _write_sorted(path: str, spool: str, found: Iterable[Found]) -> tuple[list[Problem], list[str]]:
    """Write a catalogue to a local file, sorted by id; returns the problems and notes."""
    problems: list[Problem] = []
    notes: list[str] = []

    def captures() -> Iterator[Capture]:
        for item in found:
            if isinstance(item, Capture):
                yield item
            elif isinstance(item, Problem):
                problems.append(item)
            else:
                notes.append(item)

    order = _spooled(spool, captures())
    with catalogue_writer(path) as writer, pa.OSFile(spool) as file, ThreadPoolExecutor(THREADS) as pool:
        stored = lru_cache(16)(pa.ipc.open_file(file).get_batch)
        for some in range(0, len(order), CAPTURES_AT_ONCE):
            places = order[some : some + CAPTURES_AT_ONCE].tolist()
            slices = [stored(batch).slice(start, count) for batch, start, count in places]
            writer.write_table(pa.Table.from_batches(slices).combine_chunks())
        problems.sort(key=lambda problem: problem.capture_id)
        writer.write_table(catalogue_rows([*problems, *notes], pool))
    os.remove(spool)
    return problems, notes


def _spooled(path: str, captures: Iterator[Capture]) -> np.ndarray:
    """Write the rows of captures as they are found; returns their positions by id: (n 3) batch, start, count."""
    ids: list[pa.Array] = [pa.array([], pa.string())]
    places: list[np.ndarray] = [np.empty((0, 3), np.int32)]
    with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer, ThreadPoolExecutor(THREADS) as pool:
        while some := list(islice(captures, CAPTURES_AT_ONCE)):
            writer.write_batch(catalogue_rows(some, pool).combine_chunks().to_batches()[0])
            counts = np.array([len(capture.videos) for capture in some])
            batch = np.full(len(some), len(places) - 1)
            places.append(np.stack([batch, np.cumsum(counts) - counts, counts], axis=1).astype(np.int32))
            ids.append(pa.array([capture.capture_id for capture in some]))
    found = pa.table({"id": pa.concat_arrays(ids)})
    by_id = found.append_column("place", pa.array(np.arange(len(found)))).sort_by("id")
    return np.concatenate(places)[by_id["place"].to_numpy()]
