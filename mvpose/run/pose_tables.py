"""Keypoints2D and Poses3D as tables: the schema of `keypoints/` and `poses/`.

`poses/`: one row per frame and person. Per-joint columns are fixed-size lists in the order of the file's `joints`
metadata: x, y, z (metres, world, Z up; NaN if the joint is missing), confidence (0 if missing), error_px (mean
reprojection error over the views used), sigma_mm (68 % of such joints are this near to their true place; since schema
version 4, NaN when older files are read), num_views, and views_used (a list of booleans in the order of the file's
`cameras`; in files of schema version 1 an integer whose bit v is camera v, limited to 32 cameras).

`keypoints/`: one row per frame, camera and person seen: box (left, top, right, bottom), score (0.0009765625 for a
person found by a second look, at the place that other views gave), and per joint x, y (distorted pixels of the decoded
video, NaN if missing) and confidence. It has no time and no frame rate, since 2D joints do not depend on the rate and
are kept when it is corrected (up to schema version 2 it had both).

File metadata (JSON under the key `mvpose`): schema version, unit, up axis, fps, skeleton, joints, cameras, fingerprint,
and the capture's breaks in time if it has any: `time` counts from its frame 0 across them. `monocular` is true if a
network lifted the poses from one camera: their depth is its guess, num_views is 1 and sigma_mm NaN. In `keypoints/`,
`confidence_scale` says what the source's confidence means (see `mvpose.confidence`), unless it is a likelihood already.
With canonical fusion, x, y and confidence are corrected by other views; the detector's are detected_x, detected_y and
detected_confidence, on the scale `detected_scale`. Of a capture of one camera whose people a network of images lifts,
lifted_x, lifted_y and lifted_z are its 3D joints in the axes of the camera (metres, NaN if unknown).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

import numpy as np
import pyarrow as pa

from mvpose.confidence import AS_STATED, ConfidenceScale
from mvpose.errors import ConfigError, ResultsError
from mvpose.records import Breaks, Keypoints2D, Poses3D, positions
from mvpose.skeleton import SKELETONS, Skeleton

SCHEMA_VERSION = 4
_READABLE = (1, 2, 3, SCHEMA_VERSION)
_METADATA_KEY = b"mvpose"


@dataclass(frozen=True, kw_only=True)
class TableInfo:
    """What a table of results is about; stored in the file's metadata."""

    capture_id: str
    start: int
    stop: int
    fps: float | None
    """None for 2D joints."""
    cameras: tuple[str, ...]
    skeleton: Skeleton
    fingerprint: str
    breaks: Breaks = ()
    """Breaks of the capture, from which its times are computed."""
    scale: ConfidenceScale = AS_STATED
    """Of the confidence of 2D joints."""
    detected_scale: ConfidenceScale | None = None
    """Of the detector's 2D joints; None if the 2D joints are the detector's."""


def poses_to_table(poses: Poses3D, info: TableInfo, first: int | None = None) -> pa.Table:
    """Rows ordered by frame, then track; a person without any joint in a frame has no row there.

    `first` is the first frame of the poses, if they are a part of the table's range.
    """
    t, p = np.nonzero((poses.confidence > 0).any(axis=2))
    columns = {
        **_frame_columns(t, info, info.start if first is None else first),
        "track": pa.array(poses.track_id[p].astype(np.int32)),
        **{axis: _per_joint(poses.xyz[t, p, :, i], np.float32) for i, axis in enumerate("xyz")},
        "confidence": _per_joint(poses.confidence[t, p], np.float32),
        "error_px": _per_joint(poses.error_px[t, p], np.float32),
        "sigma_mm": _per_joint(poses.sigma_mm[t, p], np.float32),
        "num_views": _per_joint(poses.num_views[t, p], np.uint16),
        "views_used": _per_joint_and_view(poses.views_used[t, p]),
    }
    return pa.table(columns).replace_schema_metadata(_metadata(info))


def poses_from_table(table: pa.Table) -> tuple[Poses3D, TableInfo]:
    """The inverse of `poses_to_table`, from the frames [start, stop) of the metadata."""
    info = table_info(table)
    frame, track = _column(table, "frame"), _column(table, "track")
    tracks, place = np.unique(track, return_inverse=True)
    t, num_joints = frame - info.start, len(info.skeleton.joints)
    shape = (info.stop - info.start, len(tracks), num_joints)

    def filled(values: np.ndarray, empty: float | int) -> np.ndarray:
        out = np.full((*shape, *values.shape[2:]), empty, dtype=values.dtype)
        out[t, place] = values
        return out

    xyz = np.stack([filled(_joint_column(table, axis), np.nan) for axis in "xyz"], axis=-1)
    poses = Poses3D(
        xyz=xyz,
        confidence=filled(_joint_column(table, "confidence"), 0.0),
        error_px=filled(_joint_column(table, "error_px"), np.nan),
        sigma_mm=filled(_sigma_column(table), np.nan),
        num_views=filled(_joint_column(table, "num_views"), 0).astype(np.int64),
        views_used=filled(_views_column(table, len(info.cameras)), False),
        track_id=tracks.astype(np.int64),
        skeleton=info.skeleton,
    )
    return poses, info


def keypoints_to_table(keypoints: Keypoints2D, info: TableInfo) -> pa.Table:
    """Rows ordered by frame, camera, slot; slots with box score 0 have no row."""
    by_frame = np.swapaxes(keypoints.box_score, 0, 1)
    t, v, p = np.nonzero(by_frame > 0)
    columns = {
        **_frame_columns(t, info, info.start),
        "camera": pa.DictionaryArray.from_arrays(pa.array(v.astype(np.int16)), pa.array(info.cameras)),
        "person": pa.array(p.astype(np.int16)),
        "score": pa.array(keypoints.box_score[v, t, p].astype(np.float32)),
        "box": _per_joint(keypoints.box[v, t, p], np.float32),
        "x": _per_joint(keypoints.xy[v, t, p, :, 0], np.float32),
        "y": _per_joint(keypoints.xy[v, t, p, :, 1], np.float32),
        "confidence": _per_joint(keypoints.confidence[v, t, p], np.float32),
    }
    own = keypoints.detected
    if own:
        columns |= {f"detected_{axis}": _per_joint(own.xy[v, t, p, :, i], np.float32) for i, axis in enumerate("xy")}
        columns["detected_confidence"] = _per_joint(own.confidence[v, t, p], np.float32)
    if keypoints.lifted is not None:
        columns |= {
            f"lifted_{axis}": _per_joint(keypoints.lifted[v, t, p, :, i], np.float32) for i, axis in enumerate("xyz")
        }
    stated = replace(info, scale=keypoints.scale, detected_scale=own.scale if own else None)
    return pa.table(columns).replace_schema_metadata(_metadata(stated))


def keypoints_from_table(table: pa.Table) -> tuple[Keypoints2D, TableInfo]:
    """The inverse of `keypoints_to_table`, from the frames [start, stop) of the metadata."""
    info = table_info(table)
    t, p = _column(table, "frame") - info.start, _column(table, "person").astype(np.int64)
    position = {name: i for i, name in enumerate(info.cameras)}
    names = table.column("camera").to_pylist()
    if unknown := {*names} - position.keys():
        raise ResultsError(f"it has rows of cameras not in its metadata: {', '.join(sorted(map(repr, unknown)))}.")
    v = np.array([position[name] for name in names], dtype=np.int64)
    shape = (len(info.cameras), info.stop - info.start, int(p.max()) + 1 if len(p) else 0)

    def filled(values: np.ndarray, empty: float | int) -> np.ndarray:
        out = np.full((*shape, *values.shape[1:]), empty, dtype=values.dtype)
        out[v, t, p] = values
        return out

    def joints(prefix: str, axes: str) -> np.ndarray:
        return filled(np.stack([_joint_column(table, f"{prefix}{axis}") for axis in axes], axis=-1), np.nan)

    def keypoints(prefix: str, scale: ConfidenceScale, detected: Keypoints2D | None) -> Keypoints2D:
        return Keypoints2D(
            xy=joints(prefix, "xy"),
            confidence=filled(_joint_column(table, f"{prefix}confidence"), 0.0),
            box=filled(_joint_column(table, "box"), 0.0),
            box_score=filled(_column(table, "score"), 0.0),
            skeleton=info.skeleton,
            scale=scale,
            detected=detected,
        )

    detected = keypoints("detected_", info.detected_scale, None) if info.detected_scale else None
    found = keypoints("", info.scale, detected)
    lifted = joints("lifted_", "xyz") if "lifted_x" in table.column_names else None
    return replace(found, lifted=lifted), info


def table_info(table: pa.Table) -> TableInfo:
    """The metadata of a table. Raises ResultsError if mvpose did not write it or wrote another schema version."""
    raw = (table.schema.metadata or {}).get(_METADATA_KEY)
    if raw is None:
        raise ResultsError("this Parquet file was not written by mvpose: it has no `mvpose` metadata.")
    try:
        return _info_of(json.loads(raw))
    except (KeyError, TypeError, ValueError, RecursionError, ConfigError) as error:
        raise ResultsError(f"the `mvpose` metadata of this Parquet file are damaged ({error!r}).") from error


def _info_of(meta: dict) -> TableInfo:
    if meta["schema_version"] not in _READABLE:
        raise ResultsError(
            f"this file has schema version {meta['schema_version']}, but this mvpose reads versions up to "
            f"{SCHEMA_VERSION}: read it with the version that wrote it, or run the job again."
        )
    return TableInfo(
        capture_id=meta["capture_id"],
        start=meta["start"],
        stop=meta["stop"],
        fps=meta.get("fps"),
        cameras=tuple(meta["cameras"]),
        skeleton=_skeleton(meta),
        fingerprint=meta["fingerprint"],
        breaks=tuple((first, at) for first, at in meta.get("breaks", ())),
        scale=_scale(meta["confidence_scale"]) if "confidence_scale" in meta else AS_STATED,
        detected_scale=_scale(meta["detected_scale"]) if "detected_scale" in meta else None,
    )


def _scale(stated: dict) -> ConfidenceScale:
    points = tuple((float(confidence), float(likelihood)) for confidence, likelihood in stated["likelihood"])
    return ConfidenceScale(likelihood=points, border_odds=float(stated["border_odds"]))


def _skeleton(meta: dict) -> Skeleton:
    known = SKELETONS.get(meta["skeleton"])
    if known is not None and list(known.joints) == meta["joints"]:
        return known
    skeleton = Skeleton(meta["skeleton"], tuple(meta["joints"]), tuple((a, b) for a, b in meta["bones"]))
    skeleton.indices(*(joint for bone in skeleton.bones for joint in bone))  # ValueError if one is missing
    return skeleton


def _metadata(info: TableInfo) -> dict[bytes, bytes]:
    meta = {
        "schema_version": SCHEMA_VERSION,
        "capture_id": info.capture_id,
        "start": info.start,
        "stop": info.stop,
        **({} if info.fps is None else {"fps": info.fps}),
        "unit": "metre",
        "up_axis": "z",
        "cameras": info.cameras,
        "skeleton": info.skeleton.name,
        "joints": info.skeleton.joints,
        "bones": info.skeleton.bones,
        "fingerprint": info.fingerprint,
        **({"breaks": info.breaks} if info.breaks else {}),
        **({"monocular": True} if len(info.cameras) == 1 and info.fps is not None else {}),
        **({"confidence_scale": asdict(info.scale)} if info.scale != AS_STATED else {}),
        **({"detected_scale": asdict(info.detected_scale)} if info.detected_scale else {}),
    }
    return {_METADATA_KEY: json.dumps(meta).encode()}


def _frame_columns(t: np.ndarray, info: TableInfo, first: int) -> dict[str, pa.Array]:
    frame = t.astype(np.int64) + first
    capture = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(t), np.int16)), pa.array([info.capture_id]))
    time = {} if info.fps is None else {"time": pa.array(positions(frame, info.breaks) / info.fps)}
    return {"capture": capture, "frame": pa.array(frame), **time}


def _per_joint(values: np.ndarray, dtype: type) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.astype(dtype).ravel()), values.shape[1])


def _per_joint_and_view(values: np.ndarray) -> pa.Array:
    views = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[2])
    return pa.FixedSizeListArray.from_arrays(views, values.shape[1])


def _views_column(table: pa.Table, num_views: int) -> np.ndarray:
    """Rows by joint by view, from booleans or from the bits of schema version 1."""
    column = table.column("views_used").combine_chunks().flatten()
    num_joints = table.schema.field("views_used").type.list_size
    if pa.types.is_integer(column.type):
        bits = column.to_numpy().reshape(-1, num_joints, 1)
        return (bits >> np.arange(num_views, dtype=np.uint32) & 1).astype(bool)
    return column.flatten().to_numpy(zero_copy_only=False).reshape(-1, num_joints, num_views)


def _sigma_column(table: pa.Table) -> np.ndarray:
    """NaN in files of schema versions before 4."""
    if "sigma_mm" in table.column_names:
        return _joint_column(table, "sigma_mm")
    return np.full_like(_joint_column(table, "error_px"), np.nan)


def _column(table: pa.Table, name: str) -> np.ndarray:
    return table.column(name).to_numpy()


def _joint_column(table: pa.Table, name: str) -> np.ndarray:
    width = table.schema.field(name).type.list_size
    return table.column(name).combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
