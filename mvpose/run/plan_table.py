"""`plan.parquet`: one row per clip, with the fingerprints of its results; written and read in parts."""

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

from mvpose.errors import ResultsError
from mvpose.footage.catalogue_table import Problem
from mvpose.records import CaptureTasks, Clip
from mvpose.storage.locations import parent, reading

CLIPS_AT_ONCE = 4096
"""Clips per row group, or those of one capture if it has more. A worker reads one group to get one capture."""
_DIGEST_KEY = "mvpose_plan"
_NAMES = ("capture", "start", "stop", "keypoints", "poses", "filtered")
_SCHEMA = pa.schema(zip(_NAMES, (pa.string(), pa.int64(), pa.int64(), *(pa.string(),) * 3), strict=True))


@dataclass(frozen=True, kw_only=True)
class PlanTotals:
    """Totals of a plan."""

    digest: str
    """See `plan_digest`."""
    captures: int
    clips: int
    frames: int


def write_plan(path: str, plans: Iterable[CaptureTasks], problems: Sequence[Problem]) -> PlanTotals:
    """Write a plan to a local file. The metadata contain its digest, which `run.json` names."""
    digest = _PlanDigest()
    captures = clips = frames = 0
    rows: list[tuple[str, int, int, str, str, str]] = []
    # Without Arrow's own copy of the schema, the metadata that are added at the end become the schema's.
    with pq.ParquetWriter(path, _SCHEMA, compression="zstd", store_schema=False) as writer:
        for plan in plans:
            digest.add(plan)
            captures, clips, frames = captures + 1, clips + len(plan.clips), frames + plan.whole.stop
            rows += [(c.capture_id, c.start, c.stop, plan.keypoints, plan.poses, plan.filtered) for c in plan.clips]
            if len(rows) >= CLIPS_AT_ONCE:
                writer.write_table(_table(rows))
                rows = []
        writer.write_table(_table(rows))
        plan_digest_hex = digest.with_problems(problems)
        writer.add_key_value_metadata({_DIGEST_KEY: plan_digest_hex})
    return PlanTotals(digest=plan_digest_hex, captures=captures, clips=clips, frames=frames)


def _table(rows: Sequence[tuple]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else [[]] * len(_NAMES)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, _SCHEMA, strict=True)], schema=_SCHEMA)


def plan_digest(plans: Iterable[CaptureTasks], problems: Sequence[Problem]) -> str:
    """Digest of all tasks and problems: two starts of a job with the same digest have the same work."""
    digest = _PlanDigest()
    for plan in plans:
        digest.add(plan)
    return digest.with_problems(problems)


class _PlanDigest:
    """`mvpose.config.digest` of all tasks and problems, one capture at a time."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256(b"[[")
        self._comma = ""

    def add(self, plan: CaptureTasks) -> None:
        tasks = [(clip.clip_id, plan.keypoints, plan.poses, plan.filtered) for clip in plan.clips]
        self._sha.update(f"{self._comma}{json.dumps(tasks)[1:-1]}".encode())
        self._comma = ", "

    def with_problems(self, problems: Sequence[Problem]) -> str:
        plan_digest_hex = json.dumps(sorted((p.capture_id, p.reason, p.detail) for p in problems))
        self._sha.update(f"], {plan_digest_hex}]".encode())
        return self._sha.hexdigest()


def planned_digest(schema: pa.Schema) -> str:
    """The digest with which a plan was written; empty for an older version that stored none."""
    return (schema.metadata or {}).get(_DIGEST_KEY.encode(), b"").decode()


def read_plan(uri: str, digest: str | None = None) -> Iterator[CaptureTasks]:
    """The inverse of `write_plan`, one row group at a time.

    Raises ResultsError if the file cannot be read, or if a `digest` is given and the plan does not have it.
    """
    with _opened(uri) as file:
        parquet = pq.ParquetFile(file)
        _require_own(uri, parquet.schema_arrow, digest)
        batches = parquet.iter_batches(CLIPS_AT_ONCE, columns=list(_NAMES))
        yield from _captures(chain.from_iterable(map(_rows, batches)))


def read_plan_of(uri: str, capture_id: str, digest: str) -> CaptureTasks:
    """The plan of one capture; only its row groups are read. Raises ResultsError like `read_plan`."""
    with _opened(uri) as file:
        table = pq.read_table(file, filters=[("capture", "=", capture_id)])
        _require_own(uri, table.schema, digest)
        (plan,) = _captures(_rows(table.combine_chunks().to_batches()[0]))
        return plan


def replanned_elsewhere(run_uri: str) -> ResultsError:
    """The error of a driver that finds another driver's plan in its output."""
    return ResultsError(
        f"{run_uri} was replanned while this job ran: another job is using this output. Everything committed is "
        "kept. Give each job a separate output."
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
        raise replanned_elsewhere(parent(uri))


def _rows(batch: pa.RecordBatch) -> Iterator[tuple[str, int, int, str, str, str]]:
    return zip(*(batch.column(name).to_pylist() for name in _NAMES), strict=True)


def _captures(rows: Iterable[tuple[str, int, int, str, str, str]]) -> Iterator[CaptureTasks]:
    for capture_id, own in groupby(rows, key=lambda row: row[0]):
        plan_digest_hex = list(own)
        yield CaptureTasks(
            capture_id=capture_id,
            clips=tuple(Clip(capture_id, start, stop) for _, start, stop, *_ in plan_digest_hex),
            keypoints=plan_digest_hex[0][3],
            poses=plan_digest_hex[0][4],
            filtered=plan_digest_hex[0][5],
        )
