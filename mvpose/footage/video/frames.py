"""Read footage by frame number: video files and folders of numbered images share the same two functions.

Frame k is the k-th frame in presentation order, regardless of earlier requests. Images are RGB, turned upright by the
file's display matrix, in stored pixels. A pixel aspect ratio other than 1 is not applied: calibrations are made on
stored pixels, and their two focal lengths account for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from multiprocessing.pool import ThreadPool
from typing import TypeVar, cast

import numpy as np
from jaxtyping import UInt8

from mvpose.accelerator import Device
from mvpose.errors import ConfigError, VideoError, VideoTooShortError
from mvpose.footage.video.frame_clock import numbered_clock, video_clock, wrong_rate
from mvpose.footage.video.frame_index import frame_index
from mvpose.footage.video.image_folder import folder_images, numbered_images, upright_image
from mvpose.footage.video.video_container import unreadable
from mvpose.footage.video.video_file import decoded_images, decoded_planes, first_image
from mvpose.images import Image
from mvpose.records import Video
from mvpose.storage.locations import is_folder

T = TypeVar("T")
_END = object()


def probe(uri: str, camera: str, fps: float | None = None) -> Video:
    """Probe `uri`: frames, their clock, rate and size, from the index and one decoded image.

    `fps` overrides the file's rate (high-speed footage is often stored for slow playback) and is required for a folder
    of images. For a truncated file, the frames listed in its header are counted. Reading the missing ones raises
    VideoTooShortError, so a broken copy is not mistaken for a short recording.
    Raises VideoError, with file and reason, for unreadable footage; ConfigError if the file's rate is implausible.
    """
    if _is_image_folder(uri):
        images = numbered_images(uri)
        if fps is None:
            raise VideoError(
                f"{uri} is a folder of images and states no frame rate: set `fps` in a capture.toml, or "
                "--catalogue.fps."
            )
        clock = numbered_clock([number for number, _ in images])
        num_frames, stated, (first, turns) = len(images), None, upright_image(images[0][1])
    else:
        index = frame_index(uri)
        clock, rate = video_clock(uri, index)
        wrong = wrong_rate(uri, index, rate)
        if wrong and fps is None:
            raise ConfigError(wrong)
        num_frames, stated, fps = index.num_frames, None if wrong else rate, rate if fps is None else fps
        first, turns = first_image(uri)
    height, width, _ = first.shape
    size = (width, height)
    return Video(camera, uri, fps, num_frames, size, stated_fps=stated, clock=clock, shown_turns=turns)


def read_frames(
    video: Video, start: int, stop: int, chunk: int = 8, threads: int = 1
) -> Iterator[UInt8[np.ndarray, "n H W 3"]]:
    """Frames [start, stop) of a video, in its own numbering, in chunks of `chunk` (the last may be smaller).

    Only the current chunk is held in memory. `threads` applies to the decoder only: one thread costs the least CPU time
    per frame, and cameras and clips run in parallel anyway. Raises VideoTooShortError if the video has fewer frames
    (before any is read) or if its data end early, VideoError if a frame is damaged or its size is not `video.size`, and
    ValueError for an invalid range.
    """
    if chunk < 1:
        raise ValueError(f"chunks of {chunk} frames: need at least 1")
    _require(video, start, stop)
    return _chunks(video, start, stop, chunk, threads)


def read_images(video: Video, start: int, stop: int, device: Device = "cpu") -> Iterator[Image]:
    """Frames [start, stop) of a video as decoded on `device`, one at a time; arguments and errors as for `read_frames`.

    An image stays valid as long as it is referenced.
    """
    _require(video, start, stop)
    if _is_image_folder(video.uri):
        images: Generator[Image, None, None] = folder_images(video.uri, start, stop, video.shown_turns)
    else:
        images = decoded_planes(video.uri, start, stop, device)
    with closing(images):
        for number, image in enumerate(images, start):
            _require_size(video, number, image)
            yield image


def _require(video: Video, start: int, stop: int) -> None:
    if not 0 <= start <= stop:
        raise ValueError(f"frames {start} to {stop}: need 0 <= start <= stop")
    if not video.uri:
        raise VideoError(f"camera {video.camera} has no footage: its 2D joints were imported from {video.keypoints}.")
    if stop > video.num_frames:
        raise VideoTooShortError(
            f"{video.uri} has frames 0 to {video.num_frames - 1}, but frames {start} to {stop - 1} were requested."
        )


def _require_size(video: Video, number: int, image: Image) -> None:
    width, height = video.size
    if image.shape != (height, width, 3):
        raise VideoError(
            f"{video.uri}: frame {number} is {image.shape[1]} x {image.shape[0]} pixels but the video is "
            f"{width} x {height}. One calibration cannot serve both."
        )


def _chunks(video: Video, start: int, stop: int, chunk: int, threads: int) -> Iterator[UInt8[np.ndarray, "n H W 3"]]:
    with closing(_images(video, start, stop, threads)) as images:
        for first in range(start, stop, chunk):
            yield _gathered(video, images, first, min(first + chunk, stop))


def _gathered(
    video: Video, images: Iterator[UInt8[np.ndarray, "_ _ 3"]], first: int, last: int
) -> UInt8[np.ndarray, "n H W 3"]:
    width, height = video.size
    frames = np.empty((last - first, height, width, 3), np.uint8)
    for i in range(len(frames)):
        image = next(images)
        _require_size(video, first + i, image)
        frames[i] = image
    return frames


def _images(video: Video, start: int, stop: int, threads: int) -> Generator[UInt8[np.ndarray, "H W 3"], None, None]:
    if _is_image_folder(video.uri):
        return folder_images(video.uri, start, stop, video.shown_turns)
    return decoded_images(video.uri, start, stop, threads)


def _is_image_folder(uri: str) -> bool:
    try:
        return is_folder(uri)
    except OSError as error:
        raise unreadable(uri, error) from error


def prefetched(items: Iterator[T], depth: int = 1) -> Iterator[T]:
    """The same items, produced in a thread up to `depth` ahead of the consumer, starting at the first request.

    An error is raised where its item would have appeared. If the consumer stops early and closes or drops this
    iterator, the thread ends after its current items and closes `items`. It is a daemon thread, so a decoder that hangs
    does not block the end of the process.
    """
    if depth < 1:
        raise ValueError(f"a depth of {depth}: it must be at least 1")
    pool = ThreadPool(1)
    try:
        ahead = deque(pool.apply_async(next, (items, _END)) for _ in range(depth))
        while (item := ahead.popleft().get()) is not _END:
            ahead.append(pool.apply_async(next, (items, _END)))
            yield cast(T, item)
            del item  # do not hold a finished chunk of frames while waiting for the next
    finally:
        if isinstance(items, Generator):
            pool.apply_async(items.close)
        pool.close()
