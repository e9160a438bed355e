"""`failures/failures.parquet`: one row a clip or capture without a result."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from mvpose.records import ClipFailure


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
