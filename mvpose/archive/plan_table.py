"""`plan.parquet`: one row a clip, with the fingerprints of what is to be made of it; written and read in parts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mvpose.archive.catalogue_table import Problem
from mvpose.archive.locations import parent, reading
from mvpose.errors import ResultsError
from mvpose.records import CaptureTasks, Clip

CLIPS_AT_ONCE = 4096
"""Clips of a row group, or those of one capture if it has more: a worker reads one group to learn of one capture."""
_DIGEST_KEY = "mvpose_plan"
_NAMES = ("capture", "start", "stop", "keypoints", "poses", "filtered")
_SCHEMA = pa.schema(zip(_NAMES, (pa.string(), pa.int64(), pa.int64(), *(pa.string(),) * 3), strict=True))


@dataclass(frozen=True, kw_only=True)
class PlanTotals:
    """What a plan comes to."""

    digest: str
    """See `plan_digest`."""
    captures: int
    clips: int
    frames: int


def write_plan(path: str, plans: Iterable[CaptureTasks], problems: Sequence[Problem]) -> PlanTotals:
    """Write a plan to a local file; its digest, by which `run.json` names it, travels in the metadata."""
    digest = _PlanDigest()
    captures = clips = frames = 0
    rows: list[tuple[str, int, int, str, str, str]] = []
    # Without Arrow's own copy of the schema the metadata that is added at the end is the schema's.
    with pq.ParquetWriter(path, _SCHEMA, compression="zstd", store_schema=False) as writer:
        for plan in plans:
            digest.add(plan)
            captures, clips, frames = captures + 1, clips + len(plan.clips), frames + plan.whole.stop
            rows += [(c.capture_id, c.start, c.stop, plan.keypoints, plan.poses, plan.filtered) for c in plan.clips]
            if len(rows) >= CLIPS_AT_ONCE:
                writer.write_table(_table(rows))
                rows = []
        writer.write_table(_table(rows))
        told = digest.with_problems(problems)
        writer.add_key_value_metadata({_DIGEST_KEY: told})
    return PlanTotals(digest=told, captures=captures, clips=clips, frames=frames)


def _table(rows: Sequence[tuple]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [[]] * len(_NAMES)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, _SCHEMA, strict=True)], schema=_SCHEMA)


def plan_digest(plans: Iterable[CaptureTasks], problems: Sequence[Problem]) -> str:
    """Digest of all tasks and of what cannot be done: two starts of a job with the same digest have the same work."""
    digest = _PlanDigest()
    for plan in plans:
        digest.add(plan)
    return digest.with_problems(problems)


class _PlanDigest:
    """`mvpose.config.digest` of all tasks and problems, a capture at a time."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256(b"[[")
        self._comma = ""

    def add(self, plan: CaptureTasks) -> None:
        tasks = [(clip.clip_id, plan.keypoints, plan.poses, plan.filtered) for clip in plan.clips]
        self._sha.update(f"{self._comma}{json.dumps(tasks)[1:-1]}".encode())
        self._comma = ", "

    def with_problems(self, problems: Sequence[Problem]) -> str:
        told = json.dumps(sorted((p.capture_id, p.reason, p.detail) for p in problems))
        self._sha.update(f"], {told}]".encode())
        return self._sha.hexdigest()


def planned_digest(schema: pa.Schema) -> str:
    """The digest that a plan was written with; empty in one of a version that wrote none."""
    return (schema.metadata or {}).get(_DIGEST_KEY.encode(), b"").decode()


def read_plan(uri: str, digest: str | None = None) -> Iterator[CaptureTasks]:
    """The inverse of `write_plan`, a row group at a time.

    ResultsError if the file cannot be read, or is not the plan of this digest, where one is given.
    """
    with _opened(uri) as file:
        parquet = pq.ParquetFile(file)
        _require_own(uri, parquet.schema_arrow, digest)
        batches = parquet.iter_batches(CLIPS_AT_ONCE, columns=list(_NAMES))
        yield from _captures(chain.from_iterable(map(_rows, batches)))


def read_plan_of(uri: str, capture_id: str, digest: str) -> CaptureTasks:
    """The plan of one capture, by reading the row groups that have it; ResultsError as `read_plan`."""
    with _opened(uri) as file:
        table = pq.read_table(file, filters=[("capture", "=", capture_id)])
        _require_own(uri, table.schema, digest)
        (plan,) = _captures(_rows(table.combine_chunks().to_batches()[0]))
        return plan


def taken_over(run_uri: str) -> ResultsError:
    """The error of a driver that finds another's plan in its output."""
    return ResultsError(
        f"{run_uri} was replanned while this job ran: another job is at work on this output. What is committed is "
        "kept; give each job an output of its own."
    )


@contextmanager
def _opened(uri: str) -> Iterator[Any]:
    try:
        with reading(uri) as file:
            yield file
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise ResultsError(f"{uri} cannot be read ({error}): run the job again with --replan.") from error


def _require_own(uri: str, schema: pa.Schema, digest: str | None) -> None:
    if digest is not None and planned_digest(schema) != digest:
        raise taken_over(parent(uri))


def _rows(batch: pa.RecordBatch) -> Iterator[tuple[str, int, int, str, str, str]]:
    return zip(*(batch.column(name).to_pylist() for name in _NAMES), strict=True)


def _captures(rows: Iterable[tuple[str, int, int, str, str, str]]) -> Iterator[CaptureTasks]:
    for capture_id, own in groupby(rows, key=lambda row: row[0]):
        told = list(own)
        yield CaptureTasks(
            capture_id=capture_id,
            clips=tuple(Clip(capture_id, start, stop) for _, start, stop, *_ in told),
            keypoints=told[0][3],
            poses=told[0][4],
            filtered=told[0][5],
        )
