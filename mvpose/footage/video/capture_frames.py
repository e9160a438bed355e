"""Read the frames of a capture in all views. A frame missing from a view is absent, never replaced by another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from jaxtyping import Bool, UInt8

from mvpose.accelerator import Device
from mvpose.capture import Capture
from mvpose.device_images import AnyImage, DeviceImage
from mvpose.footage.video.frames import prefetched, read_frames, read_images
from mvpose.images import Image, to_rgb
from mvpose.records import Video

CHUNK = 8


@dataclass(frozen=True, eq=False)
class ViewFrames:
    """Successive frames of a capture in one view."""

    images: UInt8[np.ndarray, "m H W 3"] | list[Image] | list[DeviceImage]
    """The frames that the view has: RGB, as decoded, or on a device."""
    there: Bool[np.ndarray, " n"]
    """Which of the n frames the view has."""

    def image(self, t: int) -> AnyImage | None:
        """The image of the t-th frame, if the view has it."""
        return self.images[np.count_nonzero(self.there[:t])] if self.there[t] else None


def view_frames(
    video: Video, start: int, stop: int, chunk: int, *, as_decoded: bool = False, decoder: Device = "cpu"
) -> Iterator[ViewFrames]:
    """Frames [start, stop) of the capture in chunks of `chunk` (the last may be smaller); errors like `read_frames`.

    `decoder` is where images `as_decoded` are decoded.
    """
    own = video.frames_of(np.arange(start, stop))
    there = own >= 0
    if not as_decoded and there.all() and own[-1] - own[0] == len(own) - 1:
        for images in read_frames(video, int(own[0]), int(own[-1]) + 1, chunk):
            yield ViewFrames(images, np.ones(len(images), bool))
        return
    single = _images_at(video, own[there].tolist(), chunk, as_decoded=as_decoded, decoder=decoder)
    width, height = video.size
    for first in range(0, len(own), chunk):
        part = there[first : first + chunk]
        images = list(islice(single, int(part.sum())))
        yield ViewFrames(images if as_decoded else np.array(images, np.uint8).reshape(-1, height, width, 3), part)
        del images


def frames_of_views(capture: Capture, start: int, stop: int) -> Iterator[list[UInt8[np.ndarray, "_ _ 3"]]]:
    """The images of all views for each frame of the capture; black where a view has no image."""
    readers = [prefetched(view_frames(video, start, stop, CHUNK)) for video in capture.videos]
    black = [np.zeros((*video.size[::-1], 3), np.uint8) for video in capture.videos]
    for views in zip(*readers, strict=True):
        for t in range(len(views[0].there)):
            images = [view.image(t) for view in views]
            yield [nothing if own is None else to_rgb(own) for own, nothing in zip(images, black, strict=True)]


def _images_at(video: Video, frames: list[int], chunk: int, *, as_decoded: bool, decoder: Device) -> Iterator[Image]:
    """The images of ascending frame numbers of a video, in its own numbering, in one pass."""
    if not frames:
        return
    wanted, start, stop = set(frames), frames[0], frames[-1] + 1
    if as_decoded:
        images = read_images(video, start, stop, decoder)
    else:
        images = (image for some in read_frames(video, start, stop, chunk) for image in some)
    for number, image in enumerate(images, start):
        if number in wanted:
            yield image
