"""Footage by frame number: a video file or a folder of numbered pictures, behind the same two calls.

Frame k is the k-th frame in the order of presentation, whatever was asked for before. Pictures are RGB, turned upright
as the file's display matrix says, and in stored pixels: a pixel aspect ratio other than 1 is not applied, since
calibrations are made on stored pixels and their two focal lengths carry it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from multiprocessing.pool import ThreadPool
from typing import TypeVar, cast

import numpy as np
from jaxtyping import UInt8

from mvpose.archive.frame_clock import numbered_clock, video_clock, wrong_rate
from mvpose.archive.frame_index import frame_index
from mvpose.archive.image_folder import folder_pictures, numbered_pictures, read_picture
from mvpose.archive.locations import is_folder
from mvpose.archive.video_container import unreadable
from mvpose.archive.video_file import decoded_pictures, first_picture
from mvpose.errors import ConfigError, VideoError, VideoTooShortError
from mvpose.records import Video

T = TypeVar("T")
_END = object()


def probe(uri: str, camera: str, fps: float | None = None) -> Video:
    """What there is at `uri`: frames, what identifies them, rate and size, from the index and one decoded picture.

    `fps` overrides the file's rate (high-speed footage is often stored to be played slowly) and is needed for a folder
    of pictures. A file whose data were cut off counts the frames that its header lists: reading those that are not
    there raises VideoTooShortError, so that a broken copy does not pass for a short recording.
    VideoError, with file and reason, for what cannot be read; ConfigError where the file's rate cannot be the true one.
    """
    if _is_image_folder(uri):
        pictures = numbered_pictures(uri)
        if fps is None:
            raise VideoError(
                f"{uri} is a folder of pictures, which state no frame rate: give it as `fps` in a capture.toml, or as "
                "--catalogue.fps."
            )
        clock = numbered_clock([number for number, _ in pictures])
        num_frames, stated, (first, turns) = len(pictures), None, (read_picture(pictures[0][1]), 0)
    else:
        index = frame_index(uri)
        clock, rate = video_clock(uri, index)
        wrong = wrong_rate(uri, index, rate)
        if wrong and fps is None:
            raise ConfigError(wrong)
        num_frames, stated, fps = index.num_frames, None if wrong else rate, rate if fps is None else fps
        first, turns = first_picture(uri)
    height, width, _ = first.shape
    size = (width, height)
    return Video(camera, uri, fps, num_frames, size, stated_fps=stated, clock=clock, shown_turns=turns)


def read_frames(
    video: Video, start: int, stop: int, chunk: int = 8, threads: int = 1
) -> Iterator[UInt8[np.ndarray, "n H W 3"]]:
    """Frames [start, stop) of a video, in its own numbering, `chunk` at a time (fewer in the last).

    Only the chunk in work is held. `threads` is for the decoder alone: one costs the least CPU time a frame, and
    cameras and clips run in parallel anyway. VideoTooShortError if the video has fewer frames, before any is read, and
    where its data end early. VideoError if a frame is damaged or its size is not `video.size`. ValueError for a range
    that is none.
    """
    if not 0 <= start <= stop or chunk < 1:
        raise ValueError(f"frames {start} to {stop} by {chunk}: need 0 <= start <= stop and a chunk of at least 1")
    if not video.uri:
        raise VideoError(f"camera {video.camera} has no footage: its 2D joints were imported from {video.keypoints}.")
    if stop > video.num_frames:
        raise VideoTooShortError(
            f"{video.uri} has frames 0 to {video.num_frames - 1}, and frames {start} to {stop - 1} were asked for."
        )
    return _chunks(video, start, stop, chunk, threads)


def _chunks(video: Video, start: int, stop: int, chunk: int, threads: int) -> Iterator[UInt8[np.ndarray, "n H W 3"]]:
    with closing(_pictures(video, start, stop, threads)) as pictures:
        for first in range(start, stop, chunk):
            yield _gathered(video, pictures, first, min(first + chunk, stop))


def _gathered(
    video: Video, pictures: Iterator[UInt8[np.ndarray, "_ _ 3"]], first: int, last: int
) -> UInt8[np.ndarray, "n H W 3"]:
    width, height = video.size
    frames = np.empty((last - first, height, width, 3), np.uint8)
    for i in range(len(frames)):
        picture = next(pictures)
        if picture.shape != frames.shape[1:]:
            raise VideoError(
                f"{video.uri}: frame {first + i} is {picture.shape[1]} x {picture.shape[0]} pixels and the video "
                f"{width} x {height}: one calibration cannot hold for both."
            )
        frames[i] = picture
    return frames


def _pictures(video: Video, start: int, stop: int, threads: int) -> Generator[UInt8[np.ndarray, "H W 3"], None, None]:
    if _is_image_folder(video.uri):
        return folder_pictures(video.uri, start, stop)
    return decoded_pictures(video.uri, start, stop, threads)


def _is_image_folder(uri: str) -> bool:
    try:
        return is_folder(uri)
    except OSError as error:
        raise unreadable(uri, error) from error


def prefetched(items: Iterator[T], depth: int = 1) -> Iterator[T]:
    """The same items, made in a thread beside the consumer, up to `depth` ahead of it, from the first one asked for.

    An error comes out where its item would have. When the consumer stops early and closes or drops this iterator, the
    thread ends after the items it has in hand, and closes `items`. It is a daemon: a decoder that hangs does not hold
    up the end of the process.
    """
    if depth < 1:
        raise ValueError(f"a depth of {depth}: at least one item has to be ahead")
    pool = ThreadPool(1)
    try:
        ahead = deque(pool.apply_async(next, (items, _END)) for _ in range(depth))
        while (item := ahead.popleft().get()) is not _END:
            ahead.append(pool.apply_async(next, (items, _END)))
            yield cast(T, item)
            del item  # a chunk of frames that is done with is not kept while the next is waited for
    finally:
        if isinstance(items, Generator):
            pool.apply_async(items.close)
        pool.close()
