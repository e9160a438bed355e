"""How many CPUs keep a GPU busy, measured on the footage itself."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from mvpose.device_images import uploaded
from mvpose.footage.video.frames import read_images
from mvpose.models.detection.detector import TopDownDetector
from mvpose.records import Video

FRAMES = 32
HOST_MS = 0.5
"""The host's own work for a camera's frame beside decoding (`mvpose benchmark gpu`)."""


@dataclass(frozen=True)
class Feeding:
    """Milliseconds for a frame of one camera: of a CPU that decodes it, and of the device that finds people in it."""

    decode_ms: float
    device_ms: float | None
    """None: no such device here."""
    cameras: int

    def __str__(self) -> str:
        text = f"Decoding takes {self.decode_ms:.1f} ms of a CPU for a frame of one camera"
        if self.device_ms is None:
            return f"{text}. How many CPUs a GPU needs: mvpose benchmark gpu, on a machine that has one."
        cpus = max(1, math.ceil((self.decode_ms + HOST_MS) / self.device_ms))
        return (
            f"{text}, and its 2D joints {self.device_ms:.2f} ms of this GPU: {cpus} CPUs keep one busy "
            f"(--cpus-per-worker {cpus} --clips-per-worker {math.ceil(cpus / self.cameras)})."
        )


def measured_feeding(videos: Sequence[Video], fps: float, detector: TopDownDetector | None) -> Feeding:
    """Decode the first frames of a capture on one core, and look for people in them where the detector is, if any."""
    video = videos[0]
    stop = min(FRAMES, video.num_frames)
    start = time.thread_time()
    deque(read_images(video, 0, stop), 0)
    decode_ms = 1000 * (time.thread_time() - start) / stop
    if detector is None:
        return Feeding(decode_ms, None, len(videos))
    device = detector.images_on or torch.device("cpu")
    together, step = detector.config.look(fps)
    images = uploaded(list(islice(read_images(video, 0, stop), together)), device)
    detector.follow([images], [None], step)
    start = time.perf_counter()
    detector.follow([images], [None], step)
    return Feeding(decode_ms, 1000 * (time.perf_counter() - start) / len(images), len(videos))
