"""Join the clips of a capture: arrays over a range of frames, empty where no clip has a result."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from mvpose.reconstruction.view_errors import keypoints_at
from mvpose.records import BY_FRAME, Clip, Keypoints2D, Poses3D
from mvpose.run.pose_tables import TableInfo, keypoints_from_table, poses_from_table


def concatenated_poses(tables: Sequence[pa.Table], frames: Clip | None = None) -> Poses3D:
    """Poses of several clips over `frames` (default: from the first clip to the last); tracks are joined by id."""
    parts = [poses_from_table(table) for table in tables]
    start, stop = _range([info for _, info in parts], frames)
    return _joined(parts, start, stop, parts[0][1])


def pose_windows(tables: Iterable[pa.Table], windows: Iterable[tuple[int, int]]) -> Iterator[Poses3D]:
    """Poses over successive ranges of frames [start, stop), from the tables of clips in order of time.

    Ranges may overlap; neither their starts nor their ends may decrease. Only clips that touch a range are in memory.
    """
    upcoming = map(poses_from_table, tables)
    held = deque(islice(upcoming, 1))
    about = held[0][1]
    for start, stop in windows:
        while held and held[0][1].stop <= start:
            held.popleft()
        while (not held or held[-1][1].stop < stop) and (part := next(upcoming, None)) is not None:
            held.append(part)
        yield _joined(held, start, stop, about)


def _joined(parts: Iterable[tuple[Poses3D, TableInfo]], start: int, stop: int, about: TableInfo) -> Poses3D:
    """The frames [start, stop) of all parts that contain them."""
    parts = [(poses, info) for poses, info in parts if info.start < stop and start < info.stop]
    tracks = np.unique(np.concatenate([np.empty(0, np.int64), *(poses.track_id for poses, _ in parts)]))
    shape = (stop - start, len(tracks), len(about.skeleton.joints))
    whole = Poses3D(
        xyz=np.full((*shape, 3), np.nan, np.float32),
        confidence=np.zeros(shape, np.float32),
        error_px=np.full(shape, np.nan, np.float32),
        sigma_mm=np.full(shape, np.nan, np.float32),
        num_views=np.zeros(shape, np.int64),
        views_used=np.zeros((*shape, len(about.cameras)), bool),
        track_id=tracks,
        skeleton=about.skeleton,
    )
    for poses, info in parts:
        first, last = max(start, info.start), min(stop, info.stop)
        at = np.ix_(np.arange(first, last) - start, np.searchsorted(tracks, poses.track_id))
        for name in BY_FRAME:
            getattr(whole, name)[at] = getattr(poses, name)[first - info.start : last - info.start]
    return whole


def concatenated_keypoints(tables: Sequence[pa.Table], frames: Clip | None = None) -> Keypoints2D:
    """2D joints of several clips over `frames` (default: from the first clip to the last)."""
    parts = [keypoints_from_table(table) for table in tables]
    start, stop = _range([info for _, info in parts], frames)
    return _joined_keypoints([(k, np.arange(info.start, info.stop) - start) for k, info in parts], stop - start)


def sampled_keypoints(tables: Iterable[pa.Table], frames: Int[np.ndarray, " n"]) -> Keypoints2D:
    """2D joints of some frames of a capture, from the tables of its clips, with one table in memory at a time.

    Cameras are judged by them: where fusion has corrected joints, those of the detector.
    """
    parts = []
    for corrected, info in map(keypoints_from_table, tables):
        keypoints = corrected.detected or corrected
        place = np.flatnonzero((info.start <= frames) & (frames < info.stop))
        parts.append((keypoints_at(keypoints, frames[place] - info.start), place))
    return _joined_keypoints(parts, len(frames))


def _joined_keypoints(parts: Sequence[tuple[Keypoints2D, Int[np.ndarray, " _"]]], num_frames: int) -> Keypoints2D:
    """The parts' frames, each at its position."""
    maximum = max(keypoints.box_score.shape[2] for keypoints, _ in parts)
    skeleton, views = parts[0][0].skeleton, len(parts[0][0].xy)
    shape = (views, num_frames, maximum)
    whole = Keypoints2D(
        xy=np.full((*shape, len(skeleton.joints), 2), np.nan, np.float32),
        confidence=np.zeros((*shape, len(skeleton.joints)), np.float32),
        box=np.zeros((*shape, 4), np.float32),
        box_score=np.zeros(shape, np.float32),
        skeleton=skeleton,
        scale=parts[0][0].scale,
    )
    for keypoints, place in parts:
        for name in ("xy", "confidence", "box", "box_score"):
            getattr(whole, name)[:, place, : keypoints.box_score.shape[2]] = getattr(keypoints, name)
    return whole


def _range(infos: Sequence[TableInfo], frames: Clip | None) -> tuple[int, int]:
    if frames is not None:
        return frames.start, frames.stop
    return min(info.start for info in infos), max(info.stop for info in infos)
