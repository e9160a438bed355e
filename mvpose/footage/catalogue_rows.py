"""Convert captures to rows of the catalogue and back.

One row per capture and camera, with the camera, its video, and what identifies both. A capture that cannot be used is
one row with `reason` and `detail` and no camera. A note is one row with only `detail`.

| column | type | |
| --- | --- | --- |
| capture, camera | string | rows of a capture are contiguous, in the order of its cameras |
| lens_model, focal, centre, lens_coefficients, rotation, translation, size | | the camera, as in `rigs/` |
| uri, fps, num_frames, width, height, first_frame | | its video |
| stated_fps | double | the rate in the file's header; null for images, and where it cannot be trusted |
| shown_turns | int64 | clockwise quarter turns that the file's metadata requests for display |
| clock | string | what identifies its frames; null in version 2 |
| ticks | list<int64> | frame, tick, ticks per frame of each even stretch: `FrameClock.runs` |
| shown | list<int64> | frame of the capture, of the video, count of each stretch: `Video.shown` |
| breaks | list<int64> | frame, position of the capture's breaks: `Capture.breaks` |
| footage_identity | string | size with modification time, or ETag |
| rig_digest | string | of all cameras of the capture |
| keypoints | string | where its 2D joints are imported from; empty if they are detected in the footage |
| assumed_unit | string | unit in which the calibration was read; null if the user set it |
| reason, detail | string | null if the capture can be used |
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby
from typing import Any

import pyarrow as pa

from mvpose.capture import Capture
from mvpose.errors import ConfigError
from mvpose.footage.rig_table import rig_digest, rig_from_table, rig_to_table
from mvpose.records import ClockKind, FrameClock, Video

KEY, VERSION = b"mvpose.catalogue", b"3"
_NUMBER, _TEXT, _COUNT = pa.float64(), pa.string(), pa.int64()
_VECTORS = ("focal", "centre", "lens_coefficients", "rotation", "translation")
# Fixed-size lists would be more precise, but Parquet does not preserve their nulls.
SCHEMA = pa.schema(
    [
        *[(name, _TEXT) for name in ("capture", "camera", "lens_model")],
        *[(name, pa.list_(_NUMBER)) for name in _VECTORS],
        ("size", pa.list_(_COUNT)),
        ("uri", _TEXT),
        ("fps", _NUMBER),
        *[(name, _COUNT) for name in ("num_frames", "width", "height", "first_frame")],
        ("stated_fps", _NUMBER),
        ("shown_turns", _COUNT),
        ("clock", _TEXT),
        *[(name, pa.list_(_COUNT)) for name in ("ticks", "shown", "breaks")],
        *[
            (name, _TEXT)
            for name in ("footage_identity", "rig_digest", "keypoints", "assumed_unit", "reason", "detail")
        ],
    ],
    metadata={KEY: VERSION},
)
VIDEO_COLUMNS = (
    "camera", "uri", "fps", "num_frames", "width", "height", "first_frame", "footage_identity", "stated_fps", "clock",
    "ticks", "shown", "shown_turns", "keypoints",
)  # fmt: skip


def capture_rows(capture: Capture) -> pa.Table:
    """One row per camera."""
    videos = capture.videos
    columns = {
        "capture": [capture.capture_id] * len(videos),
        "uri": [v.uri for v in videos],
        "fps": [v.fps for v in videos],
        "num_frames": [v.num_frames for v in videos],
        "width": [v.size[0] for v in videos],
        "height": [v.size[1] for v in videos],
        "first_frame": [v.first_frame for v in videos],
        "stated_fps": [v.stated_fps for v in videos],
        "shown_turns": [v.shown_turns for v in videos],
        "clock": [v.clock and v.clock.kind.value for v in videos],
        "ticks": [_flat(v.clock.runs if v.clock else ()) for v in videos],
        "shown": [_flat(v.shown) for v in videos],
        "breaks": [_flat(capture.breaks)] * len(videos),
        "footage_identity": [v.stamp for v in videos],
        "rig_digest": [rig_digest(capture.rig)] * len(videos),
        "keypoints": [v.keypoints for v in videos],
        "assumed_unit": [capture.assumed_unit] * len(videos),
        "reason": [None] * len(videos),
        "detail": [None] * len(videos),
    }
    rig = rig_to_table(capture.rig, {})
    own = {name: pa.array(values, SCHEMA.field(name).type) for name, values in columns.items()}
    arrays = [own[f.name] if f.name in own else rig.column(f.name).cast(f.type) for f in SCHEMA]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def captures_of(table: pa.Table) -> Iterator[Capture]:
    """The inverse of `capture_rows`, for the rows of several captures.

    Raises ConfigError if a rig differs from the one written: Parquet's checksums do not cover its footer.
    """
    rows = table.select([*VIDEO_COLUMNS, "capture", "rig_digest", "breaks", "assumed_unit"]).to_pylist()
    start = 0
    for capture_id, group in groupby(rows, key=lambda row: row["capture"]):
        own = list(group)
        rig = rig_from_table(table.slice(start, len(own)))
        start += len(own)
        if {row["rig_digest"] for row in own} != {rig_digest(rig)}:
            raise ConfigError(f"the catalogue is damaged: the cameras of {capture_id} do not match their checksum.")
        breaks, unit = _grouped(own[0]["breaks"], 2), own[0]["assumed_unit"]
        yield Capture(capture_id, rig, tuple(map(video_of, own)), breaks, unit)


def video_of(row: dict) -> Video:
    """The video of a row."""
    size = (row["width"], row["height"])
    clock = FrameClock(ClockKind(row["clock"]), _grouped(row["ticks"], 3)) if row["clock"] else None
    return Video(
        row["camera"], row["uri"], row["fps"], row["num_frames"], size, row["first_frame"], row["footage_identity"],
        row["stated_fps"], clock, _grouped(row["shown"], 3), row["shown_turns"],
        row["keypoints"],
    )  # fmt: skip


def _flat(rows: Iterable[tuple[int, ...]]) -> list[int]:
    return list(chain.from_iterable(rows))


def _grouped(values: Sequence[int], size: int) -> tuple[Any, ...]:
    """The inverse of `_flat`."""
    return tuple(zip(*[iter(values)] * size, strict=True))
