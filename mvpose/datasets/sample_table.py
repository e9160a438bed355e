"""The table of multi-view samples: Parquet files, one row a (capture, frame, person). Schema version 1.

| column | type | |
| --- | --- | --- |
| capture, subject, action, split | string | split: train, validation, test, or empty for neither |
| frame, position | int64 | frame of the full-rate recording; place among the capture's annotated frames |
| person | int32 | lasts throughout a capture |
| damaged | bool | ground truth known to be wrong |
| camera | list<string> | names of the V cameras of the row; all lists over views have this order |
| uri, uri_frame, crop | list<string>, list<int64>, list<binary> | picture, or video and its frame; or crop |
| focal, centre | list<double[2]> | pixels of the picture stored (of the crop, where there is one) |
| size | list<int32[2]> | width, height |
| lens_model, lens_coefficients | list<string>, list<double[12]> | as in mvpose.geometry.lens |
| rotation, translation | list<double[9]>, list<double[3]> | camera_from_world, row by row; metres |
| x, y, z | float[J] | world, metres, Z up; NaN where the dataset has no joint |
| valid | bool[J] | which joints it has |
| visible | list<bool[J]> | by view: known to be in the picture |
| box | list<float[4]> | by view: left, top, right, bottom in pixels; NaN where the person is not in the picture |

Pixel centres are whole numbers, the top-left one (0, 0). File metadata (JSON under the key `mvpose`): schema, schema
version, dataset, unit, up axis, skeleton, joints, bones; fps, of the full-rate recording, where it is known.
"""

from __future__ import annotations

import io
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from mvpose.archive.commits import write_whole
from mvpose.archive.locations import filesystem, is_folder, list_folder, reading
from mvpose.datasets.files import DatasetError, told_with
from mvpose.datasets.sample import Picture, Sample
from mvpose.geometry.camera import CameraRig
from mvpose.geometry.lens import NUM_COEFFICIENTS, Lens, LensModel
from mvpose.geometry.rigid import Rigid
from mvpose.skeleton import SKELETONS, Skeleton

SCHEMA_VERSION = 1
_METADATA_KEY = b"mvpose"
_ROWS_AT_ONCE = 256
KEY_COLUMNS = ("capture", "subject", "action", "split", "frame", "position", "person", "damaged", "camera")
"""What says which sample a row is; small, so that choosing rows costs little."""


def sample_schema(skeleton: Skeleton, dataset: str, fps: float = math.nan) -> pa.Schema:
    """The schema of a table of samples of one joint set and frame rate."""
    text, joints = pa.string(), len(skeleton.joints)
    columns = {
        **dict.fromkeys(("capture", "subject", "action", "split"), text),
        **dict.fromkeys(("frame", "position"), pa.int64()),
        "person": pa.int32(),
        "damaged": pa.bool_(),
        "camera": pa.list_(text),
        "uri": pa.list_(text),
        "uri_frame": pa.list_(pa.int64()),
        "crop": pa.list_(pa.binary()),
        "focal": _vectors(pa.float64(), 2),
        "centre": _vectors(pa.float64(), 2),
        "size": _vectors(pa.int32(), 2),
        "lens_model": pa.list_(text),
        "lens_coefficients": _vectors(pa.float64(), NUM_COEFFICIENTS),
        "rotation": _vectors(pa.float64(), 9),
        "translation": _vectors(pa.float64(), 3),
        **dict.fromkeys("xyz", pa.list_(pa.float32(), joints)),
        "valid": pa.list_(pa.bool_(), joints),
        "visible": _vectors(pa.bool_(), joints),
        "box": _vectors(pa.float32(), 4),
    }
    meta = {
        "schema": "samples",
        "schema_version": SCHEMA_VERSION,
        "dataset": dataset,
        "unit": "metre",
        "up_axis": "z",
        "skeleton": skeleton.name,
        "joints": skeleton.joints,
        "bones": skeleton.bones,
    }
    if math.isfinite(fps):
        meta["fps"] = fps
    return pa.schema(list(columns.items()), metadata={_METADATA_KEY: json.dumps(meta).encode()})


def samples_to_table(samples: Sequence[Sample], skeleton: Skeleton, dataset: str) -> pa.Table:
    """Rows in the order of the samples, all of one skeleton and frame rate."""
    schema = sample_schema(skeleton, dataset, samples[0].fps if samples else math.nan)
    ends = np.cumsum([0, *(len(s.rig) for s in samples)]).astype(np.int32)
    xyz = np.array([s.xyz for s in samples], np.float32).reshape(-1, len(skeleton.joints), 3)
    valid = np.all(np.isfinite(xyz), axis=-1)
    views = {
        "focal": [s.rig.focal.numpy() for s in samples],
        "centre": [s.rig.centre.numpy() for s in samples],
        "size": [s.rig.size.numpy() for s in samples],
        "lens_coefficients": [s.rig.lens.coefficients.numpy() for s in samples],
        "rotation": [s.rig.camera_from_world.rotation.numpy() for s in samples],
        "translation": [s.rig.camera_from_world.translation.numpy() for s in samples],
        "visible": [s.visible for s in samples],
        "box": [s.box for s in samples],
    }
    arrays = {
        **{name: [_key(s, name) for s in samples] for name in KEY_COLUMNS},
        "uri": [[p.uri for p in s.pictures] for s in samples],
        "uri_frame": [[p.frame for p in s.pictures] for s in samples],
        "crop": [[p.crop for p in s.pictures] for s in samples],
        "lens_model": [[str(m) for m in s.rig.lens.models] for s in samples],
        **{name: _lists_over_views(schema.field(name).type, rows, ends) for name, rows in views.items()},
        **{axis: _fixed(schema.field(axis).type, xyz[..., i]) for i, axis in enumerate("xyz")},
        "valid": _fixed(schema.field("valid").type, valid),
    }
    columns = [a if isinstance(a := arrays[f.name], pa.Array) else pa.array(a, f.type) for f in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def samples_from_table(table: pa.Table) -> Iterator[Sample]:
    """The inverse of `samples_to_table`; DatasetError where the table is not one of samples of this schema version."""
    skeleton, _ = table_subject(table.schema)
    fps = json.loads((table.schema.metadata or {})[_METADATA_KEY]).get("fps", math.nan)
    columns = {name: table.column(name).combine_chunks() for name in table.column_names}
    joints = len(skeleton.joints)
    # `filter` and `slice` leave offsets that do not begin at 0: `flatten` follows them, and so do the counts.
    counts = np.array([len(names) for names in columns["camera"].to_pylist()])
    ends = np.cumsum([0, *counts])
    flat = {
        name: _numbers(columns[name].flatten(), width)
        for name, width in (
            ("focal", 2), ("centre", 2), ("size", 2), ("lens_coefficients", NUM_COEFFICIENTS), ("rotation", 9),
            ("translation", 3), ("visible", joints), ("box", 4),
        )
    }  # fmt: skip
    xyz = np.stack([_numbers(columns[axis], joints) for axis in "xyz"], axis=-1)
    texts = {name: columns[name].to_pylist() for name in (*KEY_COLUMNS, "uri", "uri_frame", "crop", "lens_model")}
    rigs: dict[tuple, CameraRig] = {}
    for i in range(table.num_rows):
        views = slice(ends[i], ends[i + 1])
        yield Sample(
            capture_id=texts["capture"][i],
            **{name: texts[name][i] for name in KEY_COLUMNS if name not in ("capture", "camera")},
            rig=_rig(texts["camera"][i], texts["lens_model"][i], {n: v[views] for n, v in flat.items()}, rigs),
            pictures=tuple(
                Picture(*p) for p in zip(texts["uri"][i], texts["uri_frame"][i], texts["crop"][i], strict=True)
            ),
            xyz=xyz[i].astype(np.float64),
            visible=flat["visible"][views],
            box=flat["box"][views].astype(np.float64),
            skeleton=skeleton,
            fps=fps,
        )


def table_subject(schema: pa.Schema) -> tuple[Skeleton, str]:
    """Joint set and dataset of a table; DatasetError where it is not one of samples of this schema version."""
    meta = json.loads((schema.metadata or {}).get(_METADATA_KEY, b"{}"))
    if meta.get("schema") != "samples":
        raise DatasetError("it is not a table of multi-view samples written by mvpose.")
    if meta["schema_version"] != SCHEMA_VERSION:
        raise DatasetError(
            f"its samples have schema version {meta['schema_version']}, this mvpose reads {SCHEMA_VERSION}: "
            "convert the dataset again."
        )
    known = SKELETONS.get(meta["skeleton"])
    if known is None or list(known.joints) != meta["joints"]:
        known = Skeleton(meta["skeleton"], tuple(meta["joints"]), tuple((a, b) for a, b in meta["bones"]))
    return known, meta["dataset"]


def write_samples(uri: str, samples: Iterable[Sample], skeleton: Skeleton, dataset: str) -> int:
    """Write one Parquet file, whole or not at all; how many rows it has."""
    sink, rows, upcoming = io.BytesIO(), 0, iter(samples)
    some = list(itertools.islice(upcoming, _ROWS_AT_ONCE))
    schema = samples_to_table(some, skeleton, dataset).schema
    with pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True) as writer:
        while some:
            writer.write_table(samples_to_table(some, skeleton, dataset))
            rows += len(some)
            some = list(itertools.islice(upcoming, _ROWS_AT_ONCE))
    write_whole(uri, sink.getvalue())
    return rows


def sample_files(uri: str) -> list[str]:
    """The Parquet files of a table: `uri` itself, or those in that folder and the folders in it, in order."""
    if not is_folder(uri):
        return [uri]
    fs, root = filesystem(uri)
    found = [f"{uri.rstrip('/')}{path[len(root.rstrip('/')) :]}" for path in fs.find(root) if path.endswith(".parquet")]
    if not found:
        raise DatasetError(f"{uri} has no Parquet files; it has {', '.join(list_folder(uri)[:5]) or 'nothing'}.")
    return sorted(found)


def read_samples(uri: str) -> Iterator[Sample]:
    """All samples of a file or folder, file by file, in the order of the rows."""
    for file in sample_files(uri):
        for table in read_tables(file):
            yield from samples_from_table(table)


def read_tables(file: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The rows of one file, some at a time; DatasetError, with the path, where it is not a table of samples."""
    with told_with(file), reading(file) as opened:
        parquet = pq.ParquetFile(opened, page_checksum_verification=True)
        table_subject(parquet.schema_arrow)
        for batch in parquet.iter_batches(_ROWS_AT_ONCE, columns=None if columns is None else list(columns)):
            yield pa.Table.from_batches([batch]).replace_schema_metadata(parquet.schema_arrow.metadata)


def _key(sample: Sample, name: str):
    if name == "camera":
        return list(sample.rig.names)
    return sample.capture_id if name == "capture" else getattr(sample, name)


def _rig(names: list[str], models: list[str], row: dict[str, np.ndarray], known: dict[tuple, CameraRig]) -> CameraRig:
    """The rig of a row; rows of one rig share it, so that what it works out once is worked out once."""
    numbers = [row[name] for name in ("focal", "centre", "size", "lens_coefficients", "rotation", "translation")]
    key = (*names, *models, *(n.tobytes() for n in numbers))
    if key not in known:
        focal, centre, size, lens, rotation, translation = (torch.from_numpy(n.copy()) for n in numbers)
        known[key] = CameraRig(
            names=tuple(names),
            focal=focal,
            centre=centre,
            lens=Lens(tuple(map(LensModel, models)), lens),
            camera_from_world=Rigid(rotation.unflatten(1, (3, 3)), translation),
            size=size.long(),
        )
    return known[key]


def _vectors(kind: pa.DataType, width: int) -> pa.DataType:
    return pa.list_(pa.list_(kind, width))


def _fixed(kind: pa.DataType, values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), kind.value_type), type=kind)


def _lists_over_views(kind: pa.DataType, rows: list[np.ndarray], ends: np.ndarray) -> pa.Array:
    width = kind.value_type.list_size
    flat = np.concatenate([np.asarray(r).reshape(-1, width) for r in rows] or [np.empty((0, width))])
    return pa.ListArray.from_arrays(pa.array(ends), _fixed(kind.value_type, flat), type=kind)


def _numbers(array: pa.Array, width: int) -> np.ndarray:
    return array.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
