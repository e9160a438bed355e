"""`plan.parquet`: one row a clip, with the fingerprints of what is to be made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from mvpose.errors import ResultsError
from mvpose.records import Capture, CapturePlan, Clip

_DIGEST_KEY = b"mvpose_plan"


def plan_table(plans: Sequence[CapturePlan], digest: str) -> pa.Table:
    """The clips of all plans; the digest by which `run.json` names them travels in the metadata."""
    rows = [
        (clip.capture_id, clip.start, clip.stop, plan.keypoints, plan.poses, plan.filtered)
        for plan in plans
        for clip in plan.clips
    ]
    names = ("capture", "start", "stop", "keypoints", "poses", "filtered")
    types = (pa.string(), pa.int64(), pa.int64(), *(pa.string(),) * 3)
    schema = pa.schema(list(zip(names, types, strict=True)), metadata={_DIGEST_KEY: digest.encode()})
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], schema=schema)


def planned_digest(schema: pa.Schema) -> str:
    """The digest that a plan was written with; empty in one of a version that wrote none."""
    return (schema.metadata or {}).get(_DIGEST_KEY, b"").decode()


def plans_from_table(table: pa.Table, captures: Mapping[str, Capture]) -> list[CapturePlan]:
    """The inverse of `plan_table`; ResultsError where a capture is not in the catalogue."""
    rows_of: dict[str, list[dict]] = {}
    for row in table.to_pylist():
        rows_of.setdefault(row["capture"], []).append(row)
    if unknown := rows_of.keys() - captures.keys():
        raise ResultsError(f"plan.parquet has captures that catalogue.parquet lacks: {', '.join(sorted(unknown))}.")
    return [
        CapturePlan(
            capture=captures[capture_id],
            clips=tuple(Clip(capture_id, row["start"], row["stop"]) for row in rows),
            keypoints=rows[0]["keypoints"],
            poses=rows[0]["poses"],
            filtered=rows[0]["filtered"],
        )
        for capture_id, rows in rows_of.items()
    ]
