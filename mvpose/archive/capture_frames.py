"""Frames of a capture in all of its views: what the views lack of an instant is absent, never another frame."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8

from mvpose.archive.video import prefetched, read_frames
from mvpose.records import Capture, Video

CHUNK = 8


@dataclass(frozen=True, eq=False)
class ViewFrames:
    """Successive frames of a capture as one view shows them."""

    pictures: UInt8[np.ndarray, "m H W 3"]
    """Those that the view has."""
    there: Bool[np.ndarray, " n"]
    """Which they are of the n frames."""

    def picture(self, t: int) -> UInt8[np.ndarray, "H W 3"] | None:
        """The picture of the t-th frame, if the view has it."""
        return self.pictures[np.count_nonzero(self.there[:t])] if self.there[t] else None


def view_frames(video: Video, start: int, stop: int, chunk: int) -> Iterator[ViewFrames]:
    """Frames [start, stop) of the capture, `chunk` at a time (fewer in the last); errors as `read_frames`."""
    own = video.frames_of(np.arange(start, stop))
    there = own >= 0
    if there.all() and own[-1] - own[0] == len(own) - 1:
        for pictures in read_frames(video, int(own[0]), int(own[-1]) + 1, chunk):
            yield ViewFrames(pictures, np.ones(len(pictures), bool))
        return
    single = _pictures_at(video, own[there].tolist(), chunk)
    width, height = video.size
    for first in range(0, len(own), chunk):
        part = there[first : first + chunk]
        pictures = [next(single) for _ in range(int(part.sum()))]
        yield ViewFrames(np.array(pictures, np.uint8).reshape(-1, height, width, 3), part)


def frames_of_views(capture: Capture, start: int, stop: int) -> Iterator[list[UInt8[np.ndarray, "_ _ 3"]]]:
    """The pictures of all views, frame by frame of the capture; black where a view has none."""
    readers = [prefetched(view_frames(video, start, stop, CHUNK)) for video in capture.videos]
    black = [np.zeros((*video.size[::-1], 3), np.uint8) for video in capture.videos]
    for views in zip(*readers, strict=True):
        for t in range(len(views[0].there)):
            pictures = [view.picture(t) for view in views]
            yield [nothing if own is None else own for own, nothing in zip(pictures, black, strict=True)]


def _pictures_at(video: Video, frames: list[int], chunk: int) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The pictures of rising frames of a video, in its own numbering; one pass from the first to the last."""
    if not frames:
        return
    wanted, number = set(frames), frames[0]
    for pictures in read_frames(video, frames[0], frames[-1] + 1, chunk):
        for picture in pictures:
            if number in wanted:
                yield picture
            number += 1
