"""Write images as videos that players and browsers can show."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from fractions import Fraction
from itertools import chain

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from av.video.stream import VideoStream
from jaxtyping import UInt8

from mvpose.storage.commits import write_whole

_BT709 = 1
"""Value of AVColorSpace (ITU-T H.273 table 4)."""


def write_video(uri: str, frames: Iterable[UInt8[np.ndarray, "H W 3"]], fps: float) -> None:
    """Write RGB images of one size as MP4 (H.264, yuv420p, BT.709), replacing any file at `uri`.

    An odd width or height is made even by repeating the last column or row. The video is put in place whole.
    Raises ValueError for no frames or frames of several sizes, ResultsError if it cannot be written.
    """
    upcoming = iter(frames)
    first = next(upcoming, None)
    if first is None:
        raise ValueError(f"there are no frames to write to {uri}")
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        # The index comes first, so a browser can start playing before it has the whole file.
        with av.open(file.name, "w", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options={"crf": "20"})
            _set_format(stream, *first.shape[:2])
            for image in chain([first], upcoming):
                if image.shape != first.shape:
                    raise ValueError(f"frames of {first.shape} and of {image.shape} cannot both be written to {uri}")
                container.mux(stream.encode(_to_yuv(image)))
            container.mux(stream.encode(None))
        write_whole(uri, file.read())


def repeat_video(path: str, once: str, times: int) -> None:
    """Write the video at `once`, repeated `times` times, to `path`; both are local files, and packets are copied."""
    with av.open(path, "w") as target:
        stream = None
        for number in range(times):
            with av.open(once) as source:
                (own,) = source.streams.video
                stream = stream or target.add_stream_from_template(own)
                assert own.duration is not None
                for packet in source.demux(own):
                    if packet.pts is not None and packet.dts is not None:
                        packet.pts += number * own.duration
                        packet.dts += number * own.duration
                        packet.stream = stream
                        target.mux(packet)


def _set_format(stream: VideoStream, height: int, width: int) -> None:
    stream.width, stream.height, stream.pix_fmt = width + width % 2, height + height % 2, "yuv420p"
    context = stream.codec_context
    context.colorspace, context.color_range = _BT709, ColorRange.MPEG
    context.color_primaries, context.color_trc = ColorPrimaries.BT709, ColorTrc.BT709


def _to_yuv(image: UInt8[np.ndarray, "H W 3"]) -> VideoFrame:
    height, width, _ = image.shape
    even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
    return frame.reformat(
        format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG, threads=1
    )
