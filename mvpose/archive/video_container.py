"""Opening video files, on local disk or S3, and reading their packets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import av
from av.container import InputContainer
from av.error import ArgumentError, FFmpegError
from av.packet import Packet
from av.stream import Discard
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from botocore.exceptions import BotoCoreError

from mvpose.archive.locations import filesystem, is_remote, refuse_irregular
from mvpose.errors import VideoError

MAX_PIXELS = 64_000_000
"""A picture above this is refused: as RGB it takes more than 192 MB, and a chunk of eight 1.5 GB."""

_REMOTE_READING = {"block_size": 1 << 20, "cache_type": "blockcache", "cache_options": {"maxblocks": 8}}
"""FFmpeg goes to and fro between the header, the index at the end and the frames. With these blocks kept, probing a
58 MB file on S3 fetched 4 MB and reading a tenth of it 9 MB; with s3fs's read-ahead of 50 MB it was 210 and 105."""

FORMATS = ("mov", "mp4", "matroska", "webm", "avi", "mpegts", "mpeg", "asf", "flv", "mpegvideo", "m4v", "h264", "hevc")
"""What footage comes in, by FFmpeg's names: containers, and streams without one."""
# FFmpeg goes by what is in a file, not by its name: playlists, descriptions of streams and lists of files are formats
# too, and would have it open what they name. Of what is left, QuickTime alone can refer to other files, and FFmpeg
# follows that only if it is told to (`enable_drefs`).
_ALLOWED = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "file"}


@contextmanager
def opened(uri: str, threads: int = 1) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A video file and its picture stream.

    VideoError, naming the file, for whatever FFmpeg or the storage refuses, also while the file is being read.
    """
    try:
        fs, path = filesystem(uri)
        # FFmpeg reads local files by itself: through a Python file object every 32 KiB costs a call and the GIL.
        refuse_irregular(uri)
        file = fs.open(path, "rb", **_REMOTE_READING) if is_remote(uri) else path
        with av.open(file, "r", metadata_errors="replace", options=_ALLOWED) as container:
            yield container, _picture_stream(container, uri, threads)
    except (FFmpegError, OSError, BotoCoreError) as error:
        raise unreadable(uri, error) from error


def unreadable(uri: str, error: Exception) -> VideoError:
    """The VideoError for an error of FFmpeg or of the storage."""
    if isinstance(error, FileNotFoundError):
        return VideoError(f"{uri} does not exist.")
    reason = getattr(error, "strerror", None) or str(error).removeprefix(f"{uri}: ") or type(error).__name__
    # An MP4 without its end has no index, and FFmpeg calls that invalid data.
    advice = ""
    if isinstance(error, ArgumentError):
        advice = f" It is in none of the formats that are read ({', '.join(FORMATS)}), or damaged: remux it."
    elif isinstance(error, FFmpegError) and not isinstance(error, PermissionError):
        advice = " It is no video, or a copy that broke off: copy it again."
    return VideoError(f"{uri} cannot be read as a video: {reason.rstrip('.')}.{advice}")


def _picture_stream(container: InputContainer, uri: str, threads: int) -> VideoStream:
    stream = container.streams.best("video")
    if not isinstance(stream, VideoStream):
        raise VideoError(f"{uri} has no video stream.")
    if not stream.codec_context:
        raise VideoError(f"{uri} has a video stream of a kind that FFmpeg has no decoder for, or a damaged header.")
    refuse_large(stream.width, stream.height, uri)
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    stream.thread_count = threads
    stream.thread_type = "AUTO"
    return stream


def refuse_large(width: int, height: int, uri: str) -> None:
    """VideoError if a picture has more than MAX_PIXELS."""
    if width * height > MAX_PIXELS:
        raise VideoError(
            f"{uri} has pictures of {width} x {height} pixels, above the limit of {MAX_PIXELS // 10**6} megapixels: "
            "scale it down, and its calibration with it."
        )


def packets(container: InputContainer, stream: VideoStream, uri: str, until_cut: bool) -> Iterator[Packet]:
    """The packets from the present place to the end of the file; empty ones stand for frames that a recorder dropped.

    With `until_cut` they end at a corrupt one. In MP4 a packet is corrupt only where the file ends within it: FFmpeg
    would decode what there is of it, and show a picture with a grey lower half. VideoError for a packet without a
    presentation time.
    """
    for packet in container.demux(stream):
        if packet.is_corrupt and until_cut:
            return
        if not packet.size:
            continue
        if packet.pts is None:
            raise VideoError(
                f"{uri} has frames without a presentation time, and so no order among them: re-encode it, for example "
                "with `ffmpeg -fflags +genpts -i IN -crf 16 OUT.mp4`."
            )
        yield packet


def shown_at(item: Packet | VideoFrame) -> int:
    """Presentation time in units of the stream, of what came from `packets`."""
    assert item.pts is not None
    return item.pts
