"""Open video files on local disk or S3 and read their packets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import av
from av.codec.hwaccel import HWAccel
from av.container import InputContainer
from av.error import ArgumentError, FFmpegError
from av.packet import Packet
from av.stream import Discard
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from botocore.exceptions import BotoCoreError

from mvpose.accelerator import Device
from mvpose.errors import VideoError
from mvpose.storage.locations import filesystem, is_remote, refuse_irregular

MAX_PIXELS = 64_000_000
"""Larger images are rejected: as RGB they take more than 192 MB each, and 1.5 GB per chunk of eight."""

_REMOTE_READING = {"block_size": 1 << 20, "cache_type": "blockcache", "cache_options": {"maxblocks": 8}}
"""FFmpeg jumps between the header, the index at the end, and the frames. With these blocks cached, probing a 58 MB file
on S3 fetched 4 MB, and reading a tenth of it 9 MB. With s3fs's read-ahead of 50 MB it was 210 and 105 MB."""

FORMATS = ("mov", "mp4", "matroska", "webm", "avi", "mpegts", "mpeg", "asf", "flv", "mpegvideo", "m4v", "h264", "hevc")
"""Supported formats by FFmpeg's names: containers, and raw streams."""
# FFmpeg detects formats by content, not by file name. Playlists, stream descriptions and file lists are formats too,
# and would make it open the files that they name. Of the formats allowed here, only QuickTime can refer to other files,
# and FFmpeg follows that only with `enable_drefs`.
_ALLOWED = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"}


@contextmanager
def opened(uri: str, threads: int = 1, device: Device = "cpu") -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a video file and its image stream, decoded on `device`.

    Raises VideoError, naming the file, for any error of FFmpeg or the storage, also while the file is being read.
    """
    hardware = None if device == "cpu" else HWAccel(device, allow_software_fallback=False)
    try:
        fs, path = filesystem(uri)
        # FFmpeg reads local files itself: through a Python file object, every 32 KiB would cost a call and the GIL.
        refuse_irregular(uri)
        file = fs.open(path, "rb", **_REMOTE_READING) if is_remote(uri) else path
        with av.open(file, "r", metadata_errors="replace", options=_ALLOWED, hwaccel=hardware) as container:
            yield container, _image_stream(container, uri, threads)
    except NotImplementedError as error:  # PyAV's answer where the device knows no such coding
        raise VideoError(f"{uri} has a coding that {device} cannot decode: use --detector.decoder cpu.") from error
    except (FFmpegError, OSError, BotoCoreError) as error:
        raise unreadable(uri, error) from error


def unreadable(uri: str, error: Exception) -> VideoError:
    """The VideoError for an error of FFmpeg or the storage."""
    if isinstance(error, FileNotFoundError):
        return VideoError(f"{uri} does not exist.")
    reason = getattr(error, "strerror", None) or str(error).removeprefix(f"{uri}: ") or type(error).__name__
    # An MP4 without its end has no index, which FFmpeg reports as invalid data.
    advice = ""
    if isinstance(error, ArgumentError):
        advice = f" Its format is not supported ({', '.join(FORMATS)}), or it is damaged: remux it."
    elif isinstance(error, FFmpegError) and not isinstance(error, PermissionError):
        advice = " It is not a video, or an incomplete copy: copy it again."
    return VideoError(f"{uri} cannot be read as a video: {reason.rstrip('.')}.{advice}")


def _image_stream(container: InputContainer, uri: str, threads: int) -> VideoStream:
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream):
        raise VideoError(f"{uri} has no video stream.")
    if not stream.codec_context:
        raise VideoError(f"{uri} has a video stream without an FFmpeg decoder, or a damaged header.")
    refuse_large(stream.width, stream.height, uri)
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    stream.thread_count = threads
    stream.thread_type = "AUTO"
    return stream


def refuse_large(width: int, height: int, uri: str) -> None:
    """Raises VideoError if an image has more than MAX_PIXELS."""
    if width * height > MAX_PIXELS:
        raise VideoError(
            f"{uri} has images of {width} x {height} pixels, above the limit of {MAX_PIXELS // 10**6} megapixels: "
            "scale it down together with its calibration."
        )


def packets(container: InputContainer, stream: VideoStream, uri: str, until_cut: bool) -> Iterator[Packet]:
    """The packets from the present position to the end of the file. Empty ones, for frames that a recorder dropped, are
    skipped.

    With `until_cut`, they end at a corrupt packet. In MP4, a packet is corrupt only if the file ends inside it: FFmpeg
    would decode the available part and show an image with a grey lower half. Raises VideoError for a packet without a
    presentation time.
    """
    for packet in container.demux(stream):
        if packet.is_corrupt and until_cut:
            return
        if not packet.size:
            continue
        if packet.pts is None:
            raise VideoError(
                f"{uri} has frames without a presentation time, so their order is unknown: re-encode it, for example "
                "with `ffmpeg -fflags +genpts -i IN -crf 16 OUT.mp4`."
            )
        yield packet


def shown_at(item: Packet | VideoFrame) -> int:
    """Presentation time, in units of the stream, of a packet from `packets` or a frame decoded from it."""
    assert item.pts is not None
    return item.pts
