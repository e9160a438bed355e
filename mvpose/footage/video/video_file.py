"""Decode frames of a video file by number, in presentation order."""

from __future__ import annotations

import heapq
from collections.abc import Generator, Iterator
from contextlib import closing
from functools import cache
from itertools import chain, islice
from typing import NamedTuple

import numpy as np
from av.container import InputContainer
from av.error import InvalidDataError
from av.packet import Packet
from av.sidedata.sidedata import SideDataContainer
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import Float, UInt8

from mvpose.accelerator import Device
from mvpose.errors import VideoError, VideoTooShortError
from mvpose.footage.video.frame_index import Access, FrameIndex, frame_index, key_group, leading_positions
from mvpose.footage.video.video_container import opened, packets, shown_at
from mvpose.images import Image, Planes, conversion


def decoded_images(
    uri: str, start: int, stop: int, threads: int = 1
) -> Generator[UInt8[np.ndarray, "H W 3"], None, None]:
    """Frames [start, stop) as RGB, upright, each valid until the next is requested. Errors like `_frames`."""
    reformatter = VideoReformatter()
    for frame in _frames(uri, start, stop, threads):
        yield _upright(frame, _rgb(frame, reformatter), uri)


def decoded_planes(uri: str, start: int, stop: int, device: Device = "cpu") -> Generator[Image, None, None]:
    """Frames [start, stop), upright, in the decoder's memory where `Planes` can hold them, else as RGB.

    Each stays valid, and keeps its place in the decoder, as long as it is referenced. On `cuda`, the decoder of the GPU
    makes them, and they are copied to the host. Errors like `_frames`.
    """
    reformatter = VideoReformatter()
    for frame in _frames(uri, start, stop, device=device):
        planes = _planes(frame, uri)
        yield _upright(frame, _rgb(frame, reformatter), uri).copy() if planes is None else planes


def first_image(uri: str) -> tuple[UInt8[np.ndarray, "H W 3"], int]:
    """Frame 0 as upright RGB, and the clockwise quarter turns applied to make it so. Errors like `_frames`."""
    with closing(_frames(uri, 0, 1)) as frames:
        frame = next(frames)
        a, b, _, _ = _display_matrix(frame)
        return _upright(frame, _rgb(frame, VideoReformatter()), uri).copy(), round(
            float(np.arctan2(b, a)) * 2 / np.pi
        ) % 4


def _frames(
    uri: str, start: int, stop: int, threads: int = 1, device: Device = "cpu"
) -> Generator[VideoFrame, None, None]:
    """Frames [start, stop) as they are stored.

    Decoding starts at the last key frame from which `start` can be decoded, and goes forward. Raises VideoTooShortError
    if the data end before `stop`, VideoError if a requested frame cannot be decoded.
    """
    index = frame_index(uri)
    number = start - 1
    with opened(uri, threads, device) as (container, stream):
        landing = _seek(container, stream, index, start, uri)
        for number, frame in _numbered(stream, index, landing, uri):
            if number < start:
                continue
            if frame is None:
                raise VideoError(f"{uri}: frame {number} is listed but cannot be decoded; the file is damaged there.")
            yield frame
            if number == stop - 1:
                return
    raise VideoTooShortError(
        f"{uri} is cut off: its data end before frame {number + 1}, but its header lists frames 0 to "
        f"{index.num_frames - 1}, and frames {start} to {stop - 1} were requested. Copy it again from its source."
    )


class _Landing(NamedTuple):
    """The key frame at which a seek landed."""

    position: int
    number: int
    """Number of the first frame that is certain to be decoded from here."""
    earliest: float
    """Presentation time of that frame; earlier ones are skipped."""
    upcoming: Iterator[Packet]


def _seek(container: InputContainer, stream: VideoStream, index: FrameIndex, start: int, uri: str) -> _Landing:
    """Seek to the last key frame from which frame `start` can be decoded.

    The landing position is determined from the packets found there, never assumed. Containers seek by decoding time or
    by presentation time, and stop at the requested key, before it or after it.
    """
    tabled, linear = index.access is Access.TABLE, index.access is Access.LINEAR
    last = int(np.searchsorted(index.shown_before[index.keys], start, side="right")) - 1
    if linear:  # a single try: if `start` precedes the last key, the previous key reaches it
        last = max(0, last - 1)
    for key in range(last, -1, -1):
        rest = packets(container, stream, uri, until_cut=tabled)
        if linear:
            rest = islice(rest, index.keys[key], None)
        elif last > 0:
            # A sample table is searched for a decoding time reduced by the reordering delay. Aiming at the end of the
            # group still finds its key.
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
    """Numbered frames from the landing; None for a frame that the decoder did not return.

    Decoders return frames in presentation order, so when a frame is returned, every earlier one has been fed in. The
    minimum presentation time that was fed in and not yet returned is therefore the next one due. In a truncated file
    this does not hold for the frames still in the decoder, which are left there.
    """
    number, num_samples = landing.number, len(index.timestamp)
    due: list[int] = []
    # The last packet is followed by None, which flushes the decoder.
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
                raise VideoError(f"{uri}: near frame {number}, it contains a frame that its index does not list.")
            yield number, frame
            number += 1


def _decoded(stream: VideoStream, packet: Packet | None) -> list[VideoFrame]:
    try:
        return stream.decode(packet)
    except InvalidDataError:  # the missing number is noticed when the frame is due
        return []


def _rgb(frame: VideoFrame, reformatter: VideoReformatter) -> UInt8[np.ndarray, "h w 3"]:
    plane = reformatter.reformat(frame, format="rgb24", threads=1).planes[0]
    return _rows(plane)[: frame.height, : frame.width * 3].reshape(frame.height, frame.width, 3)


def _rows(plane: VideoPlane) -> UInt8[np.ndarray, "h w"]:
    """The rows of a plane, with their padding."""
    return np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)


_BT601, _BT709 = (0.299, 0.114), (0.2126, 0.0722)
_WEIGHTS = {1: _BT709, 2: _BT601, 5: _BT601, 6: _BT601}
"""Weights of red and blue in luma, by matrix coefficients (ITU-T H.273). FFmpeg takes BT.601 for 2, unknown, too."""


@cache
def _conversion(space: int, full_range: bool) -> tuple[Float[np.ndarray, "3 4"], int]:
    """How planes become RGB, and the luma of black."""
    return conversion(*_WEIGHTS[space], full_range=full_range), 0 if full_range else 16


def _planes(frame: VideoFrame, uri: str) -> Planes | None:
    """The frame in the decoder's memory, upright; None if `Planes` cannot hold it."""
    is_420 = frame.format.name in {"yuv420p", "yuvj420p", "nv12"}
    if not is_420 or frame.width % 2 or frame.height % 2 or frame.colorspace not in _WEIGHTS:
        return None
    luma, *chroma = (_rows(plane) for plane in frame.planes)
    if frame.format.name == "nv12":  # blue and red side by side
        (both,) = chroma
        chroma = [both[:, 0::2], both[:, 1::2]]
    half = frame.height // 2, frame.width // 2
    luma, blue, red = (
        _upright(frame, plane[:height, :width, None], uri)[..., 0]
        for plane, (height, width) in zip([luma, *chroma], [(frame.height, frame.width), half, half], strict=True)
    )
    full_range = frame.format.name == "yuvj420p" or frame.color_range == ColorRange.JPEG
    return Planes(luma, blue, red, *_conversion(frame.colorspace, full_range))


def _upright(frame: VideoFrame, image: UInt8[np.ndarray, "h w c"], uri: str) -> UInt8[np.ndarray, "H W c"]:
    """Turn an image by its display matrix: (x, y) is shown at (a x + c y, b x + d y), up to a shift.

    ISO/IEC 14496-12, 6.2.2.
    """
    a, b, c, d = _display_matrix(frame)
    if a == 0:
        image, a, d = image.swapaxes(0, 1), c, b
    if abs(a) != 1 or abs(d) != 1:
        raise VideoError(
            f"{uri} is marked to be shown turned by {frame.rotation} degrees or scaled. Only quarter turns and mirrors "
            "are supported. Re-encode it upright."
        )
    return image[:: int(d), :: int(a)]


def _display_matrix(frame: VideoFrame) -> Float[np.ndarray, "4"]:
    """The entries a, b, c, d of the display matrix."""
    try:
        # `frame.side_data` creates a reference cycle with the frame: each decoded frame (3 MB at 1080p) would stay in
        # memory until Python collects cycles. PyAV's stubs do not have this argument.
        matrix = SideDataContainer(frame).get("DISPLAYMATRIX")  # pyright: ignore[reportCallIssue]
    except ValueError:  # PyAV cannot list unknown kinds of side data, but always provides the angle
        cos, sin = np.cos(np.deg2rad(frame.rotation)), np.sin(np.deg2rad(frame.rotation))
        return np.array([cos, -sin, sin, cos]).round(5)
    if matrix is None:
        return np.array([1.0, 0.0, 0.0, 1.0])
    return np.frombuffer(memoryview(matrix), np.int32)[[0, 1, 3, 4]] / 65536
