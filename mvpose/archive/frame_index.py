"""Which frames a video file presents, found without decoding it.

The count that a container states is not used: a cut made without re-encoding keeps the frames before its first shown
one (324 stated, 285 shown in one file measured), and a recording that died states nothing. The samples themselves are
listed instead: from the sample table of MP4 and MOV, which is a few megabytes for hours of video and lets the rest of
an S3 object alone; from one pass over the packets for every other container.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from itertools import islice

import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream
from jaxtyping import Bool, Int64

from mvpose.archive.locations import stamp
from mvpose.archive.video_container import opened, packets, shown_at, unreadable
from mvpose.errors import VideoError, VideoTooShortError


class Access(Enum):
    """How the packets at a key frame are come by."""

    TABLE = "decoding time, in the sample table of an MP4 or MOV"
    DECODING_TIME = "decoding time"
    PRESENTATION_TIME = "presentation time"
    LINEAR = "passing over all packets before"


_ACCESS = {
    "mpegts": Access.DECODING_TIME,
    "matroska,webm": Access.PRESENTATION_TIME,
    "mov,mp4,m4a,3gp,3g2,mj2": Access.PRESENTATION_TIME,  # fragmented: its samples are listed along the file
    "avi": Access.PRESENTATION_TIME,
}
"""Containers that FFmpeg searches exactly; it does not search MPEG-PS so, and others were not tried."""
MAX_REORDERED = 32
"""Samples after which none is presented before those decoded so far: H.264 and HEVC reorder 16 at most."""
_ZERO_BASED = {"matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "avi"}
"""Containers whose clock begins at 0, so that a later start says something; that of a transport stream never does."""
_CAPTURE_RATE = ("com.android.capture.fps", "com.apple.quicktime.capture.fps")


@dataclass(frozen=True, eq=False)
class FrameIndex:
    """The samples of a video stream in the order of the file: the order of decoding, not of presentation."""

    timestamp: Int64[np.ndarray, " n"]
    """Decoding or presentation times, as `access` says, in units of the stream."""
    is_key: Bool[np.ndarray, " n"]
    is_shown: Bool[np.ndarray, " n"]
    """False where a sample is decoded only for others' sake (edit lists), or lacks what it refers to."""
    access: Access
    fps: float
    time_base: Fraction = Fraction(1)
    """Seconds of a unit of the stream."""
    start: int | None = None
    """The stream's first presentation time, where the container's clock begins at 0; None where it begins anywhere."""
    captured_fps: float | None = None
    """The rate at which the file states that it was filmed, where it states one."""

    @functools.cached_property
    def keys(self) -> Int64[np.ndarray, " k"]:
        """Positions of the samples at which decoding can begin."""
        return np.flatnonzero(self.is_key)

    @functools.cached_property
    def shown_before(self) -> Int64[np.ndarray, " m"]:
        """Entry i is the number of shown samples among the first i; n + 1 entries."""
        return np.concatenate([[0], np.cumsum(self.is_shown)])

    @property
    def num_frames(self) -> int:
        """Frames that the file presents."""
        return int(self.shown_before[-1])

    def group_end(self, key: int) -> int:
        """Position after the last sample that follows the key-th key and precedes the next."""
        return int(self.keys[key + 1]) if key + 1 < len(self.keys) else len(self.timestamp)

    def key_position(self, packet: Packet) -> int | None:
        """Position of a packet if it is one of the keys, None otherwise."""
        time = _time(packet, self.access)
        if not packet.is_keyframe or time is None:
            return None
        place = int(np.searchsorted(self.timestamp[self.keys], time))
        if place == len(self.keys) or self.timestamp[self.keys[place]] != time:
            return None
        return int(self.keys[place])


def frame_index(uri: str) -> FrameIndex:
    """The index of a video file; those last used are kept while their files do not change. VideoError as `opened`."""
    try:
        version = stamp(uri)
    except OSError as error:
        raise unreadable(uri, error) from error
    return _frame_index(uri, version)


@functools.lru_cache(maxsize=32)  # an hour at 60 frames/s takes 4 MB
def _frame_index(uri: str, version: str) -> FrameIndex:
    with opened(uri) as (container, stream):
        tabled = "mp4" in container.format.name and stream.frames > 0
        access = Access.TABLE if tabled else _ACCESS.get(container.format.name, Access.LINEAR)
        rows = _table_rows(stream) if tabled else _packet_rows(container, stream, access, uri)
        index = _checked_index(rows, access, container, stream, uri)
        if tabled:
            _hide_undecodable_start(packets(container, stream, uri, until_cut=True), stream, index)
    if not tabled:  # all packets have gone by
        with opened(uri) as (container, stream):
            _hide_undecodable_start(packets(container, stream, uri, until_cut=False), stream, index)
    return index


def _checked_index(
    rows: list[tuple[int, bool, bool]], access: Access, container: InputContainer, stream: VideoStream, uri: str
) -> FrameIndex:
    if not rows:
        raise VideoError(f"{uri} has no frames.")
    timestamp, is_key, is_shown = np.array(rows, dtype=np.int64).T
    if not is_key.any():
        raise VideoError(f"{uri} has no key frame: nothing in it can be decoded.")
    if np.any(np.diff(timestamp[is_key > 0]) <= 0):
        raise VideoError(f"{uri}: time runs backwards within it (joined from parts, or damaged): re-encode it.")
    return FrameIndex(
        timestamp.copy(),
        is_key > 0,
        is_shown > 0,
        access,
        _rate(timestamp, stream, uri),
        stream.time_base or Fraction(1),
        (stream.start_time or 0) if container.format.name in _ZERO_BASED else None,
        _captured_fps(container),
    )


def _captured_fps(container: InputContainer) -> float | None:
    stated = next((container.metadata[key] for key in _CAPTURE_RATE if key in container.metadata), "")
    return float(stated) if re.fullmatch(r"\d+(\.\d+)?", stated) else None


def _table_rows(stream: VideoStream) -> list[tuple[int, bool, bool]]:
    return [(e.timestamp, e.is_keyframe, not e.is_discard) for e in stream.index_entries if e.size]


def _packet_rows(
    container: InputContainer, stream: VideoStream, access: Access, uri: str
) -> list[tuple[int, bool, bool]]:
    if container.format.name == "avi" and stream.codec_context.has_b_frames:
        raise VideoError(
            f"{uri} has reordered frames, and AVI has no place for their presentation times: re-encode it, for example "
            "with `ffmpeg -i IN -crf 16 OUT.mp4`."
        )
    rows = []
    for packet in packets(container, stream, uri, until_cut=False):
        time = _time(packet, access)
        if time is None:
            raise VideoError(f"{uri} has frames without a decoding time: remux it with `ffmpeg -i IN -c copy OUT.mp4`.")
        rows.append((time, packet.is_keyframe, not packet.is_discard))
    # AVI counts time in frames, those that a recorder dropped included. A recording that died states none at all.
    if container.format.name == "avi" and rows and rows[-1][0] + 1 < stream.frames:
        raise VideoTooShortError(
            f"{uri} is cut off: its header states {stream.frames} frames, and its data end after "
            f"{rows[-1][0] + 1}. Copy it again from its source."
        )
    return rows


def _time(packet: Packet, access: Access) -> int | None:
    return packet.dts if access in (Access.TABLE, Access.DECODING_TIME) else packet.pts


def _rate(timestamp: Int64[np.ndarray, " n"], stream: VideoStream, uri: str) -> float:
    """Mean rate over the whole file, which is what a rate means where frame times vary."""
    duration = int(np.ptp(timestamp)) * (stream.time_base or 0)
    rate = (len(timestamp) - 1) / duration if duration else stream.average_rate or stream.guessed_rate
    if not rate:
        raise VideoError(f"{uri} has one frame and states no frame rate: give it as `fps`.")
    return float(rate)


def presentation_times(uri: str, index: FrameIndex, stop: int | None = None) -> Int64[np.ndarray, " m"]:
    """When the shown ones of the first `stop` samples (all) are presented, rising; their packets are read for it."""
    with opened(uri) as (container, stream):
        upcoming = islice(packets(container, stream, uri, until_cut=False), stop)
        times = np.array([shown_at(packet) for packet in upcoming], np.int64)
    # A file that is cut off lists more samples than it has.
    return np.sort(times[index.is_shown[: len(times)]])


def first_shown_s(uri: str, index: FrameIndex) -> float:
    """When the first frame is presented, in seconds; 0 in a container whose clock begins anywhere."""
    if index.start is None:
        return 0.0
    if index.access is not Access.TABLE:
        first = int(index.timestamp[index.is_shown].min())
    elif index.is_shown.all():
        first = index.start
    else:  # what a table lists is decoding times, and those of hidden samples too
        first = int(presentation_times(uri, index, int(np.argmax(index.is_shown)) + MAX_REORDERED)[0])
    return float(first * index.time_base)


def key_group(upcoming: Iterator[Packet], index: FrameIndex) -> tuple[int, list[Packet]]:
    """The first key found and the packets after it, up to where none can be presented before the key any more.

    Presentation is never earlier than decoding, so that this is where decoding time has reached the key's presentation.
    Returns the key's position in the index; no packets if the file ends before a key.
    """
    position, group = len(index.timestamp), []
    for packet in upcoming:
        if not group:
            found = index.key_position(packet)
            if found is None:
                continue
            position = found
        group.append(packet)
        last = position + len(group) - 1
        decoded_at = packet.dts if packet.dts is not None else shown_at(group[0]) - 1
        if last > position and (decoded_at >= shown_at(group[0]) or index.is_key[last]):
            break
    return position, group


def leading_positions(index: FrameIndex, position: int, group: list[Packet]) -> list[int]:
    """Positions of the shown samples of a key's group that are presented before the key."""
    return [
        position + i
        for i, packet in enumerate(group)
        if index.is_shown[position + i] and shown_at(packet) < shown_at(group[0])
    ]


def _hide_undecodable_start(upcoming: Iterator[Packet], stream: VideoStream, index: FrameIndex) -> None:
    """Hide what comes before the first key, and what refers to it.

    A file cut at an open GOP begins with pictures that refer to what was cut away. Whether a leading picture does is
    for the decoder to say (in HEVC some do not), so they are decoded.
    """
    index.is_shown[: index.keys[0]] = False
    first, group = key_group(upcoming, index)
    leading = leading_positions(index, first, group)
    if leading:
        decoded = {frame.pts for packet in [*group, None] for frame in stream.decode(packet)}
        for position in leading:
            index.is_shown[position] = group[position - first].pts in decoded
