"""Frames of a video file by number, in the order of presentation."""

from __future__ import annotations

import heapq
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
from av.container import InputContainer
from av.error import InvalidDataError
from av.packet import Packet
from av.sidedata.sidedata import SideDataContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import Float, UInt8

from mvpose.archive.frame_index import Access, FrameIndex, frame_index, key_group, leading_positions
from mvpose.archive.video_container import opened, packets, shown_at
from mvpose.errors import VideoError, VideoTooShortError


def decoded_pictures(
    uri: str, start: int, stop: int, threads: int = 1
) -> Generator[UInt8[np.ndarray, "H W 3"], None, None]:
    """Frames [start, stop) as RGB, upright, each valid until the next is asked for. Errors as `_frames`."""
    reformatter = VideoReformatter()
    for frame in _frames(uri, start, stop, threads):
        yield _upright(frame, _rgb(frame, reformatter), uri)


def first_picture(uri: str) -> tuple[UInt8[np.ndarray, "H W 3"], int]:
    """Frame 0 as RGB, upright, and by how many clockwise quarter turns it was turned to be. Errors as `_frames`."""
    with closing(_frames(uri, 0, 1)) as frames:
        frame = next(frames)
        a, b, _, _ = _display_matrix(frame)
        return _upright(frame, _rgb(frame, VideoReformatter()), uri).copy(), round(
            float(np.arctan2(b, a)) * 2 / np.pi
        ) % 4


def _frames(uri: str, start: int, stop: int, threads: int = 1) -> Generator[VideoFrame, None, None]:
    """Frames [start, stop) as they are stored.

    Decoding begins at the last key frame from which `start` can be had, and goes forward. VideoTooShortError if the
    data end before `stop`; VideoError if a frame asked for cannot be decoded.
    """
    index = frame_index(uri)
    number = start - 1
    with opened(uri, threads) as (container, stream):
        landing = _seek(container, stream, index, start, uri)
        for number, frame in _numbered(stream, index, landing, uri):
            if number < start:
                continue
            if frame is None:
                raise VideoError(f"{uri}: frame {number} is listed but cannot be decoded: the file is damaged there.")
            yield frame
            if number == stop - 1:
                return
    raise VideoTooShortError(
        f"{uri} is cut off: its data end before frame {number + 1}, its header lists frames 0 to "
        f"{index.num_frames - 1}, and frames {start} to {stop - 1} were asked for. Copy it again from its source."
    )


class _Landing(NamedTuple):
    """Where a seek has led to: a key frame."""

    position: int
    number: int
    """Of the first frame that is sure to be decoded from here."""
    earliest: float
    """That frame's presentation time; what is presented before it is to be passed over."""
    upcoming: Iterator[Packet]


def _seek(container: InputContainer, stream: VideoStream, index: FrameIndex, start: int, uri: str) -> _Landing:
    """Go to the last key frame from which frame `start` can be had.

    Where a seek lands is read from the packets found there, never assumed: containers search by decoding or by
    presentation time and stop at the key asked for, before it or after it.
    """
    tabled, linear = index.access is Access.TABLE, index.access is Access.LINEAR
    last = int(np.searchsorted(index.shown_before[index.keys], start, side="right")) - 1
    if linear:  # there is one try, and where `start` precedes the last key, it can be had from the one before
        last = max(0, last - 1)
    for key in range(last, -1, -1):
        rest = packets(container, stream, uri, until_cut=tabled)
        if linear:
            rest = islice(rest, index.keys[key], None)
        elif last > 0:
            # A sample table is searched for a decoding time set back by the delay of reordering: aiming at the end of
            # the group still finds its key.
            aim = index.group_end(key) - 1 if tabled else index.keys[key]
            container.seek(int(index.timestamp[aim]), stream=stream)
        position, group = key_group(rest, index)
        if position == index.keys[0] or (tabled and not group):
            return _Landing(position, 0, -np.inf, chain(group, rest))
        number = int(index.shown_before[position]) + len(leading_positions(index, position, group))
        if group and number <= start:
            return _Landing(position, number, shown_at(group[0]), chain(group, rest))
    raise VideoError(f"{uri}: its key frames cannot be found by seeking: remux it with `ffmpeg -i IN -c copy OUT.mp4`.")


def _numbered(
    stream: VideoStream, index: FrameIndex, landing: _Landing, uri: str
) -> Iterator[tuple[int, VideoFrame | None]]:
    """Frames with their numbers from the landing on; None for one that the decoder did not give.

    Decoders give frames in the order of presentation, so when one comes out, every frame due before it has been put in:
    the least presentation time put in and not yet come out is the one whose turn it is. Where the file is cut off that
    does not hold of the frames still in the decoder, which are left there.
    """
    number, num_samples = landing.number, len(index.timestamp)
    due: list[int] = []
    # The last packet is followed by None, which makes the decoder give all it has.
    for position, packet in zip(
        range(landing.position, num_samples + 1), chain(landing.upcoming, [None]), strict=False
    ):
        if packet is None and position < num_samples:
            return
        if packet is not None and index.is_shown[position] and shown_at(packet) >= landing.earliest:
            heapq.heappush(due, shown_at(packet))
        for frame in _decoded(stream, packet):
            if shown_at(frame) < landing.earliest:
                continue
            while due and due[0] < shown_at(frame):
                heapq.heappop(due)
                yield number, None
                number += 1
            if not due or heapq.heappop(due) != shown_at(frame):
                raise VideoError(f"{uri}: near frame {number} it decodes to a frame that its index does not list.")
            yield number, frame
            number += 1


def _decoded(stream: VideoStream, packet: Packet | None) -> list[VideoFrame]:
    try:
        return stream.decode(packet)
    except InvalidDataError:  # the frame is missed by its number when its turn comes
        return []


def _rgb(frame: VideoFrame, reformatter: VideoReformatter) -> UInt8[np.ndarray, "h w 3"]:
    plane = reformatter.reformat(frame, format="rgb24", threads=1).planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return rows[: frame.height, : frame.width * 3].reshape(frame.height, frame.width, 3)


def _upright(frame: VideoFrame, picture: UInt8[np.ndarray, "h w 3"], uri: str) -> UInt8[np.ndarray, "H W 3"]:
    """Turn a picture as its display matrix says: (x, y) is shown at (a x + c y, b x + d y), up to a shift.

    ISO/IEC 14496-12, 6.2.2.
    """
    a, b, c, d = _display_matrix(frame)
    if a == 0:
        picture, a, d = picture.swapaxes(0, 1), c, b
    if abs(a) != 1 or abs(d) != 1:
        raise VideoError(
            f"{uri} is marked to be shown turned by {frame.rotation} degrees or scaled: only quarter turns and mirrors "
            "are applied. Re-encode it upright."
        )
    return picture[:: int(d), :: int(a)]


def _display_matrix(frame: VideoFrame) -> Float[np.ndarray, "4"]:
    """The entries a, b, c, d."""
    try:
        # `frame.side_data` would be kept by the frame and keep it in turn: each decoded frame (3 MB, 1080p) would stay
        # until Python looks for cycles. PyAV's stubs do not know the argument.
        matrix = SideDataContainer(frame).get("DISPLAYMATRIX")  # pyright: ignore[reportCallIssue]
    except ValueError:  # PyAV cannot list side data of a kind it has no name for, but always tells the angle
        cos, sin = np.cos(np.deg2rad(frame.rotation)), np.sin(np.deg2rad(frame.rotation))
        return np.array([cos, -sin, sin, cos]).round(5)
    if matrix is None:
        return np.array([1.0, 0.0, 0.0, 1.0])
    return np.frombuffer(memoryview(matrix), np.int32)[[0, 1, 3, 4]] / 65536
