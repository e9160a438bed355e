"""Footage to detected people: chunks of frames of all views, decoded ahead, through a detector."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from mvpose.accelerator import Device
from mvpose.device_images import DeviceImage, uploaded
from mvpose.footage.video.capture_frames import ViewFrames, view_frames
from mvpose.footage.video.frames import prefetched
from mvpose.models.detection.detector import Detector, TopDownDetector
from mvpose.models.detection.people import People
from mvpose.records import Clip, Video

Chunk = list[ViewFrames]
"""Successive frames of a capture in all views."""


def detections(
    detector: Detector,
    videos: Sequence[Video],
    clip: Clip,
    fps: float,
    *,
    as_decoded: bool = True,
    seconds: dict[str, float] | None = None,
) -> Iterator[tuple[Chunk, list[list[People]]]]:
    """The frames of a clip in chunks, with the people detected by view and frame.

    Images are as decoded if the detector is the default one and `as_decoded`, else RGB. The seconds spent decoding, and
    waiting for it, are added to `seconds`.
    """
    seconds = {} if seconds is None else seconds
    before: list[People | None] = [None] * len(videos)
    size, decoding, device, decoder = detector.chunk_frames, list[float](), None, "cpu"
    if isinstance(detector, TopDownDetector):
        size, decoder = detector.config.look(fps)[0], detector.config.decoder
        device = detector.images_on if as_decoded else None
    else:
        as_decoded = False
    chunks = chunks_of_views(videos, clip, size, decoding, as_decoded=as_decoded, decoder=decoder, device=device)
    while True:
        start = time.perf_counter()
        chunk = next(chunks, None)
        seconds["decode_wait"] = seconds.get("decode_wait", 0.0) + time.perf_counter() - start
        if chunk is None:
            seconds["decode"] = sum(decoding)
            return
        found = detected(detector, chunk, before, fps)
        for v, view in enumerate(chunk):
            if view.there.any():
                before[v] = found[v][int(np.flatnonzero(view.there)[-1])]
        yield chunk, found
        del chunk, found  # free them before the next ones are awaited


def detected(
    detector: Detector, chunk: Sequence[ViewFrames], before: Sequence[People | None] | None = None, fps: float = 60.0
) -> list[list[People]]:
    """Detected people by view and frame; frames that a view lacks have none.

    `before` are the people of each view's last earlier frame, if known; the default detector takes them into account.
    """
    joints = np.zeros((0, len(detector.skeleton.joints), 2), np.float32)
    nobody = People(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), joints, joints[..., 0])
    if isinstance(detector, TopDownDetector):
        images = [list(view.images) for view in chunk]
        people = detector.follow(images, before or [None] * len(chunk), detector.config.look(fps)[1])
    else:
        people = detector([np.asarray(view.images) for view in chunk])
    views = zip(map(iter, people), chunk, strict=True)
    return [[next(own) if there else nobody for there in view.there] for own, view in views]


def chunks_of_views(
    videos: Sequence[Video],
    clip: Clip,
    size: int,
    decoding: list[float] | None = None,
    *,
    as_decoded: bool = False,
    decoder: Device = "cpu",
    device: torch.device | None = None,
) -> Iterator[Chunk]:
    """Chunks of frames of all views, decoded ahead in one thread per view; their seconds go to `decoding`.

    With a `device`, images are brought there, in the same threads. `decoder`: see `view_frames`.
    """
    decoding = [] if decoding is None else decoding
    decoded = (view_frames(v, clip.start, clip.stop, size, as_decoded=as_decoded, decoder=decoder) for v in videos)
    timed = (_timed(frames if device is None else _on(device, frames), decoding) for frames in decoded)
    views = [prefetched(frames, depth=1) for frames in timed]
    for chunk in zip(*views, strict=True):
        yield list(chunk)
        del chunk


def _on(device: torch.device, chunks: Iterator[ViewFrames]) -> Iterator[ViewFrames]:
    for chunk in chunks:
        images = [image for image in chunk.images if not isinstance(image, DeviceImage)]
        yield ViewFrames(uploaded(images, device), chunk.there)
        del chunk, images  # free them before the next ones are decoded


def _timed(chunks: Iterator[ViewFrames], seconds: list[float]) -> Iterator[ViewFrames]:
    while True:
        started = time.perf_counter()
        chunk = next(chunks, None)
        seconds.append(time.perf_counter() - started)
        if chunk is None:
            return
        yield chunk
        del chunk  # free it before the next one is decoded
