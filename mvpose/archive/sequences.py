"""Clips of one capture put together: arrays over a range of frames, empty where no clip has a result."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from mvpose.archive.tables import TableInfo, keypoints_from_table, poses_from_table
from mvpose.records import Clip, Keypoints2D, Poses3D


def concatenated_poses(tables: Sequence[pa.Table], frames: Clip | None = None) -> Poses3D:
    """Poses of several clips over `frames` (default: from the first clip to the last); tracks join by their id."""
    parts = [poses_from_table(table) for table in tables]
    start, stop = _range([info for _, info in parts], frames)
    tracks = np.unique(np.concatenate([poses.track_id for poses, _ in parts]))
    joints, views = len(parts[0][1].skeleton.joints), len(parts[0][1].cameras)
    shape = (stop - start, len(tracks), joints)
    whole = Poses3D(
        xyz=np.full((*shape, 3), np.nan, np.float32),
        confidence=np.zeros(shape, np.float32),
        error_px=np.full(shape, np.nan, np.float32),
        num_views=np.zeros(shape, np.int64),
        views_used=np.zeros((*shape, views), bool),
        track_id=tracks,
        skeleton=parts[0][1].skeleton,
    )
    for poses, info in parts:
        at = np.ix_(np.arange(info.start, info.stop) - start, np.searchsorted(tracks, poses.track_id))
        for name in ("xyz", "confidence", "error_px", "num_views", "views_used"):
            getattr(whole, name)[at] = getattr(poses, name)
    return whole


def concatenated_keypoints(tables: Sequence[pa.Table], frames: Clip | None = None) -> Keypoints2D:
    """2D joints of several clips over `frames` (default: from the first clip to the last)."""
    parts = [keypoints_from_table(table) for table in tables]
    start, stop = _range([info for _, info in parts], frames)
    most = max(keypoints.box_score.shape[2] for keypoints, _ in parts)
    skeleton, views = parts[0][1].skeleton, len(parts[0][1].cameras)
    shape = (views, stop - start, most)
    whole = Keypoints2D(
        xy=np.full((*shape, len(skeleton.joints), 2), np.nan, np.float32),
        confidence=np.zeros((*shape, len(skeleton.joints)), np.float32),
        box=np.zeros((*shape, 4), np.float32),
        box_score=np.zeros(shape, np.float32),
        skeleton=skeleton,
    )
    for keypoints, info in parts:
        at = np.s_[:, info.start - start : info.stop - start, : keypoints.box_score.shape[2]]
        for name in ("xy", "confidence", "box", "box_score"):
            getattr(whole, name)[at] = getattr(keypoints, name)
    return whole


def _range(infos: Sequence[TableInfo], frames: Clip | None) -> tuple[int, int]:
    if frames is not None:
        return frames.start, frames.stop
    return min(info.start for info in infos), max(info.stop for info in infos)
