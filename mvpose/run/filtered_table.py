"""Filtered poses as a table: `filtered/`, of a whole capture, beside the raw `poses/`.

The columns of `poses/`, and per joint three flags: `filled` (interpolated; its num_views is 0 and its error_px NaN),
`smoothed` (False where a run was too short for the filter and is as it was) and `removed` (measured, and taken for an
outlier). A person without any joint in a frame has no row there, as in `poses/`.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from mvpose.records import Poses3D
from mvpose.run.pose_tables import TableInfo, poses_from_table, poses_to_table
from mvpose.temporal.filters import FilteredPoses

FLAGS = ("filled", "smoothed", "removed")


def filtered_to_table(filtered: FilteredPoses, info: TableInfo, first: int | None = None) -> pa.Table:
    """Rows ordered by frame, then track; `first` as in `poses_to_table`."""
    poses = filtered.poses
    table = poses_to_table(poses, info, first)
    t, p = np.nonzero((poses.confidence > 0).any(axis=2))
    for name in FLAGS:
        flags = getattr(filtered, name)[t, p]
        table = table.append_column(name, pa.FixedSizeListArray.from_arrays(pa.array(flags.ravel()), flags.shape[1]))
    return table


def filtered_from_table(table: pa.Table, raw: Poses3D) -> FilteredPoses:
    """The inverse of `filtered_to_table`, beside the `raw` poses of the same frames, in whose order people come."""
    poses, info = poses_from_table(table)
    place = np.searchsorted(raw.track_id, poses.track_id)
    frame = table.column("frame").to_numpy() - info.start
    person = np.searchsorted(raw.track_id, table.column("track").to_numpy())

    def flag(name: str) -> np.ndarray:
        out = np.zeros(raw.confidence.shape, dtype=bool)
        column = table.column(name).combine_chunks().flatten().to_numpy(zero_copy_only=False)
        out[frame, person] = column.reshape(-1, raw.confidence.shape[2])
        return out

    def people(values: np.ndarray, empty: float | int) -> np.ndarray:
        out = np.full((len(values), len(raw.track_id), *values.shape[2:]), empty, dtype=values.dtype)
        out[:, place] = values
        return out

    whole = Poses3D(
        xyz=people(poses.xyz, np.nan),
        confidence=people(poses.confidence, 0.0),
        error_px=people(poses.error_px, np.nan),
        num_views=people(poses.num_views, 0),
        views_used=people(poses.views_used, False),
        track_id=raw.track_id,
        skeleton=poses.skeleton,
    )
    return FilteredPoses(whole, flag("filled"), flag("smoothed"), flag("removed"), raw)
