"""Findings and verdicts as tables: the metadata of `quality/`, and `verdicts.parquet`.

`verdicts.parquet` has one row per capture and finding, the one that decides first: capture, verdict, check, status,
measured, cameras, reason. A capture without a result has one row, with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from mvpose.footage.rig_table import figures_to_table
from mvpose.quality.findings import CheckKind, Finding, Status
from mvpose.quality.judgement import Verdict, ranked, verdict_of
from mvpose.records import ClipFailure

_KEY = b"mvpose.findings"
_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("capture", "verdict", "check", "status")]
    + [("measured", pa.bool_()), ("cameras", pa.list_(pa.string())), ("reason", pa.string())]
)


def judged_table(capture_id: str, figures: Mapping[str, float], findings: Sequence[Finding]) -> pa.Table:
    """The table of a capture in `quality/`: its figures, and those of the checks as `check/...`; findings as metadata.

    A figure of a check of one camera is named `check/camera/NAME/...`. Those of camera pairs are left out: a rig of 31
    has 465.
    """
    of_checks = {
        f"check/{_prefix(finding)}{name}": value
        for finding in findings
        if finding.check != CheckKind.EPIPOLAR
        for name, value in finding.figures.items()
    }
    plain = [
        [f.check, f.status, f.measured, f.cameras, f.reason] for f in ranked([replace(f, figures={}) for f in findings])
    ]
    table = figures_to_table(capture_id, {**figures, **of_checks})
    return table.replace_schema_metadata({_KEY: json.dumps(plain).encode()})


def findings_of(table: pa.Table) -> tuple[Finding, ...]:
    """The findings that `judged_table` stored, without their figures; none in a table of another origin."""
    stored = json.loads((table.schema.metadata or {}).get(_KEY, b"[]"))
    return tuple(
        Finding(check=CheckKind(check), status=Status(status), measured=measured, cameras=tuple(cameras), reason=reason)
        for check, status, measured, cameras, reason in stored
    )


def without_result(failure: ClipFailure) -> tuple[Finding, ...]:
    """The finding on a capture that has no result because of this failure."""
    return (Finding(check=CheckKind.POSES, status=Status.FAIL, reason=f"no result: {failure.detail}"),)


def verdict_writer(path: str) -> pq.ParquetWriter:
    """A local Parquet file for `verdict_rows`, several captures per row group."""
    return pq.ParquetWriter(path, _SCHEMA, compression="zstd")


def verdict_rows(captures: Iterable[tuple[str, Sequence[Finding]]]) -> tuple[dict[str, Verdict], pa.Table]:
    """The verdicts of some captures, and their rows of `verdicts.parquet`."""
    verdicts: dict[str, Verdict] = {}
    rows = []
    for capture_id, findings in captures:
        verdict = verdicts[capture_id] = verdict_of(findings)
        for f in ranked(findings):
            values = (capture_id, verdict.grade, f.check, f.status, f.measured, f.cameras, f.reason)
            rows.append(dict(zip(_SCHEMA.names, values, strict=True)))
    return verdicts, pa.Table.from_pylist(rows, schema=_SCHEMA)


def _prefix(finding: Finding) -> str:
    whole_rig = len(finding.cameras) != 1 or any(name.startswith("camera/") for name in finding.figures)
    return "" if whole_rig else f"camera/{finding.cameras[0]}/"
