"""Person crops of a sample's images, so that training does not read full frames."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8

from mvpose.datasets.sample import Sample, SampleImage
from mvpose.footage.video.frames import probe, read_frames
from mvpose.footage.video.image_folder import read_image

# Reading ahead is cheaper than seeking up to about a key-frame interval of common footage.
READ_ON_FRAMES = 64


@dataclass(frozen=True, kw_only=True)
class CropConfig:
    """Settings of person crops."""

    side: int = 0
    """Side of a crop in pixels; 0 keeps the images in place and stores only their locations."""
    margin: float = 1.5
    """Side of the crop, relative to the box about the joints."""
    quality: int = 90
    """JPEG quality, 0 to 100."""


def cropped_samples(samples: Iterable[Sample], config: CropConfig) -> Iterator[Sample]:
    """Samples with encoded square crops; cameras and boxes are in crop pixels; lens distortion remains.

    Views without a box are dropped, and samples that lose all views with them. Videos are read forwards, so samples
    should be ordered by frame. VideoError if an image cannot be read.
    """
    with ExitStack() as stack:
        readers: dict[str, VideoReader] = {}
        for sample in samples:
            boxed = sample.select(
                [n for n, b in zip(sample.rig.names, sample.box, strict=True) if np.isfinite(b).all()]
            )
            if not len(boxed.rig):
                continue
            for image in boxed.images:
                if image.frame >= 0 and image.uri not in readers:
                    readers[image.uri] = stack.enter_context(closing(VideoReader(image.uri)))
            yield _cropped(boxed, readers, config)


class VideoReader:
    """Frames of a video in any order, fastest forwards; the last one is cached."""

    def __init__(self, uri: str) -> None:
        self.video = probe(uri, camera="")
        self._next = 0
        self._last: tuple[int, np.ndarray] | None = None
        self._frames: Iterator[UInt8[np.ndarray, "n H W 3"]] = iter(())

    def frame(self, number: int) -> UInt8[np.ndarray, "H W 3"]:
        """One decoded frame; VideoTooShortError if the video has fewer."""
        if self._last is not None and self._last[0] == number:
            return self._last[1]
        if not self._next <= number < self._next + READ_ON_FRAMES or self._last is None:
            self.close()
            self._frames = read_frames(self.video, number, max(number + 1, self.video.num_frames), chunk=1)
            self._next = number
        while self._next <= number:
            self._last = (self._next, next(self._frames)[0])
            self._next += 1
        assert self._last is not None
        return self._last[1]

    def close(self) -> None:
        """Release the decoder."""
        if isinstance(self._frames, Generator):
            self._frames.close()


def _cropped(sample: Sample, readers: dict[str, VideoReader], config: CropConfig) -> Sample:
    origin, extent = _squares(sample.box, config.margin)
    images = []
    for image, (left, top), side in zip(sample.images, origin, extent, strict=True):
        whole = read_image(image.uri) if image.frame < 0 else readers[image.uri].frame(image.frame)
        part = _cut(whole, int(left), int(top), int(side))
        # Both keep pixel areas: a pixel centre c maps to (c + 0.5) s - 0.5, as in `CameraRig.resized`.
        method = cv2.INTER_AREA if side > config.side else cv2.INTER_LINEAR
        small = cv2.resize(part, (config.side, config.side), interpolation=method)
        _, data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, config.quality])
        images.append(SampleImage(image.uri, image.frame, data.tobytes()))
    scale = config.side / extent
    size = torch.full((len(extent), 2), config.side)
    rig = sample.rig.cropped(torch.from_numpy(origin).to(sample.rig.centre), size)
    rig = rig.resized(torch.from_numpy(np.stack([scale, scale], axis=-1)).to(rig.focal), size)
    corners = (sample.box.reshape(-1, 2, 2) - origin[:, None] + 0.5) * scale[:, None, None] - 0.5
    return replace(sample, rig=rig, images=tuple(images), box=corners.reshape(-1, 4))


def _squares(box: Float[np.ndarray, "V 4"], margin: float) -> tuple[Float[np.ndarray, "V 2"], Float[np.ndarray, " V"]]:
    """Top-left pixels and sides of the crop squares, in whole pixels."""
    sides = np.maximum(box[:, 2:] - box[:, :2], 1.0).max(axis=1)
    extent = np.ceil(margin * sides).clip(2)
    return np.round((box[:, :2] + box[:, 2:]) / 2 - (extent[:, None] - 1) / 2), extent


def _cut(image: UInt8[np.ndarray, "H W 3"], left: int, top: int, side: int) -> UInt8[np.ndarray, "S S 3"]:
    """Cut out a square; black beyond the image's edge."""
    out = np.zeros((side, side, 3), np.uint8)
    part = image[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)]
    down, right = max(-top, 0), max(-left, 0)
    out[down : down + part.shape[0], right : right + part.shape[1]] = part
    return out
