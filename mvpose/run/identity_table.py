"""Who is who in a capture, as a table: `identities/`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from mvpose.run.pose_tables import table_info


def identities_to_table(people: Mapping[tuple[int, int], int]) -> pa.Table:
    """One row a track that is kept: first frame of its clip, track in the clip, person in the capture."""
    rows = [(start, track, person) for (start, track), person in sorted(people.items())]
    columns = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    return pa.table(dict(zip(("clip_start", "track", "person"), columns, strict=True)))


def identities_from_table(table: pa.Table) -> dict[tuple[int, int], int]:
    """The inverse of `identities_to_table`."""
    start, track, person = (table.column(name).to_pylist() for name in ("clip_start", "track", "person"))
    return dict(zip(zip(start, track, strict=True), person, strict=True))


def with_identities(tracks: pa.Table, people: Mapping[tuple[int, int], int]) -> pa.Table:
    """The rows of a clip's table of poses that are kept, in order, `track` being the person in the capture."""
    start = table_info(tracks).start
    person = np.array([people.get((start, track), -1) for track in tracks.column("track").to_pylist()], np.int32)
    at = tracks.schema.get_field_index("track")
    kept = tracks.set_column(at, tracks.schema.field(at), pa.array(person)).filter(pa.array(person >= 0))
    return kept.sort_by([("frame", "ascending"), ("track", "ascending")]).combine_chunks()
