"""What a GPU and its host take for each part of the job, and so how many CPUs keep a GPU busy.

On a machine without a GPU, `--device cpu` runs the same code on CPU tensors: a check of the path and of the host's
cost, not of a speed.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TypeVar
from unittest.mock import patch

import numpy as np
import torch

from mvpose.accelerator import Device, require_cuda
from mvpose.benchmarks import solvers
from mvpose.benchmarks.solvers import TriangulationBenchmark
from mvpose.capture import Capture
from mvpose.device_images import uploaded
from mvpose.errors import VideoError
from mvpose.footage.archive_settings import CatalogueConfig
from mvpose.footage.catalogue import find_captures
from mvpose.footage.video.frames import read_images
from mvpose.models.detection import joint_network, person_network
from mvpose.models.detection.detector import TopDownDetector
from mvpose.models.detection.detector_settings import DetectorConfig, Precision
from mvpose.models.detection.joint_network import crop_from_image, crops
from mvpose.models.detection.person_boxes import letterboxed
from mvpose.pipeline.detections import chunks_of_views, detections
from mvpose.pipeline.engine import EngineConfig
from mvpose.pipeline.job import ReconstructJob, reconstruct_archive
from mvpose.records import Clip, Video
from mvpose.tracking.circumstances import machine

T = TypeVar("T")
FRAMES = 32
ONE_CORE, ON_DEVICE, ON_HOST = "decode, one core", "images and networks, float32", "host without decoding and those"


@dataclass(frozen=True, kw_only=True)
class GpuBenchmark:
    """Decoding, images, networks, DLT and the whole job on a GPU, in under 5 minutes; ends with a table."""

    archive: str
    """Archive with at least one capture of videos."""
    catalogue: CatalogueConfig = field(default_factory=CatalogueConfig)
    device: Device = "cuda"
    batches: tuple[int, ...] = (16, 64, 256)
    """Crops per batch of the joint network."""
    clips_per_worker: tuple[int, ...] = (1, 4, 8)
    clip_frames: int = 120
    points: int = 100_000_000
    """Points of the triangulation."""
    seconds: float = 0.5
    """Duration of each measurement."""
    json: str | None = None
    """Output file for the figures."""


Figure = tuple[str, float, str]
"""Name, value, unit."""


def run(config: GpuBenchmark) -> dict[str, float]:
    """Print each figure as it is measured, then all of them; returns them by name. ConfigError without a GPU."""
    if config.device == "cuda":
        require_cuda(1.0)
    capture = find_captures(config.archive, config.catalogue).captures[0]
    precisions: tuple[Precision, ...] = ("float32", "float16") if config.device == "cuda" else ("float32",)
    figures = list[Figure]()
    for figure in _figures(config, capture, precisions):
        figures.append(figure)
        print(_line(figure), flush=True)
    known = {name: value for name, value, _ in figures}
    about = machine(config.device)
    print(f"\n{about['processor']}, {len(os.sched_getaffinity(0))} CPUs, {capture.capture_id}")
    for figure in [*figures, *_advice(known)]:
        print(_line(figure))
    if config.json:
        with open(config.json, "w") as file:
            json.dump({"machine": about, "figures": known}, file, indent=1)
    return known


def _figures(config: GpuBenchmark, capture: Capture, precisions: tuple[Precision, ...]) -> Iterator[Figure]:
    yield from _decoding(config, capture)
    yield from _images(config, capture)
    for precision in precisions:
        yield from _networks(config, precision)
    yield from _detection(config, capture)
    yield from _triangulation(config)
    yield from _jobs(config)


def _decoding(config: GpuBenchmark, capture: Capture) -> Iterator[Figure]:
    """Milliseconds of a camera's frame on one core, and frames per second of all cores, and of the GPU's decoder."""
    stop = min(capture.num_frames, config.clip_frames)

    def decode(video: Video, device: Device) -> int:
        return sum(1 for _ in read_images(video, 0, min(stop, video.num_frames), device))

    first = capture.videos[0]
    yield ONE_CORE, 1000 * _cpu_seconds(partial(decode, first, "cpu")) / decode(first, "cpu"), "ms/camera-frame"
    cores = len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(cores) as pool:
        videos = [capture.videos[i % len(capture.videos)] for i in range(2 * cores)]
        started = time.perf_counter()
        total = sum(pool.map(lambda video: decode(video, "cpu"), videos))
        yield f"decode, {cores} cores", total / (time.perf_counter() - started), "camera-frames/s"
        if config.device == "cuda":
            try:
                started = time.perf_counter()
                total = sum(pool.map(lambda video: decode(video, "cuda"), videos))
                yield "decode, the GPU's decoder", total / (time.perf_counter() - started), "camera-frames/s"
            except VideoError as error:
                print(f"not decoded on the GPU: {error}")


def _images(config: GpuBenchmark, capture: Capture) -> Iterator[Figure]:
    """What it takes to bring frames to the device and to cut from them there, and in the host's memory."""
    video, device = capture.videos[0], torch.device(config.device)
    images = list(islice(read_images(video, 0, min(FRAMES, video.num_frames)), FRAMES))
    there = uploaded(images, device)
    height, width, _ = images[0].shape
    box = np.tile([0.4 * width, 0.2 * height, 0.6 * width, 0.9 * height], (len(images), 1))
    affine, size = crop_from_image(box, (192, 256)), (192, 256)

    def per_image(work: Callable[[], object]) -> float:
        return 1000 * _median_seconds(work, config) / len(images)

    yield "upload", per_image(lambda: uploaded(images, device)), "ms/camera-frame"
    yield "crop on the device", per_image(lambda: crops(there, affine, size)), "ms/crop"
    yield "crop in the host's memory", per_image(lambda: crops(images, affine, size)), "ms/crop"
    yield "letterbox on the device", per_image(lambda: letterboxed(there, (416, 416))), "ms/image"
    yield "letterbox in the host's memory", per_image(lambda: letterboxed(images, (416, 416))), "ms/image"


def _networks(config: GpuBenchmark, precision: Precision) -> Iterator[Figure]:
    device = torch.device(config.device)
    for batch in config.batches:
        detector = TopDownDetector(
            DetectorConfig(device=config.device, precision=precision, batch_size=batch), keep_tokens=True
        )
        width, height = detector.crop_size
        some = torch.zeros((batch, height, width, 3), dtype=torch.uint8, device=device)
        joints = _median_seconds(lambda d=detector, s=some: d._joints._network(s), config)
        yield f"joint network, {precision}, batch {batch}", 1000 * joints / batch, "ms/crop"
        some = torch.zeros((batch, 416, 416, 3), dtype=torch.uint8, device=device)
        boxes = _median_seconds(lambda d=detector, s=some: d._people._network(s), config)
        yield f"box network, {precision}, batch {batch}", 1000 * boxes / batch, "ms/image"


def _detection(config: GpuBenchmark, capture: Capture) -> Iterator[Figure]:
    """2D joints of a clip: the time in images and networks, and the host's own work beside them and decoding."""
    detector = TopDownDetector(DetectorConfig(device=config.device, precision="float32", batch_size=64))
    detector.images_on = torch.device(config.device)
    clip = Clip(capture.capture_id, 0, min(capture.num_frames, config.clip_frames))
    frames = clip.stop * len(capture.videos)

    def whole() -> None:
        deque(detections(detector, capture.videos, clip, capture.fps), 0)

    def decoding() -> None:
        deque(chunks_of_views(capture.videos, clip, FRAMES, as_decoded=True), 0)

    whole()
    spent = Spent()
    people, joints = detector._people, detector._joints
    with (
        patch.object(people, "_network", spent.timed(people._network)),
        patch.object(joints, "_network", spent.timed(joints._network)),
        patch.object(joint_network, "crops", spent.timed(joint_network.crops)),
        patch.object(person_network, "letterboxed", spent.timed(person_network.letterboxed)),
    ):
        seconds = _cpu_seconds(whole)
    host = seconds - spent.cpu - _cpu_seconds(decoding)
    yield ON_DEVICE, 1000 * spent.wall / frames, "ms/camera-frame"
    yield ON_HOST, 1000 * host / frames, "ms/camera-frame"


@dataclass
class Spent:
    """Seconds in what is watched: of the clock, and of the CPU in the calling thread."""

    wall: float = 0.0
    cpu: float = 0.0

    def timed(self, work: Callable[..., T]) -> Callable[..., T]:
        """The same callable, watched until the device is done."""

        def watched(*arguments: object) -> T:
            start, cpu = time.perf_counter(), time.thread_time()
            result = work(*arguments)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.wall, self.cpu = self.wall + time.perf_counter() - start, self.cpu + time.thread_time() - cpu
            return result

        return watched


def _triangulation(config: GpuBenchmark) -> Iterator[Figure]:
    """Weighted DLT of four views by the fused kernels, beside torch.linalg.svd and copying."""
    found = solvers.run(
        TriangulationBenchmark(
            points=(config.points,),
            views=(4,),
            dtypes=("float32",),
            outlier_shares=(0.0,),
            contenders=("fused", solvers.REFERENCE),
            device=config.device,
            seconds=config.seconds,
        )
    )
    yield "copy", found["machine"]["copy_gigabytes_per_s"], "GB/s"
    for each in found["measurements"]:
        yield f"DLT, {each['contender']}, of {each['timed_points']:,}", each["points_per_s"] / 1e6, "million points/s"
        if each["share_of_copy"] is not None:
            yield f"DLT, {each['contender']}: share of copying", 100 * each["share_of_copy"], "%"


def _jobs(config: GpuBenchmark) -> Iterator[Figure]:
    """The whole job in this process, and on Ray with one worker that does several clips at once."""
    cores = max(1, len(os.sched_getaffinity(0)) - 1)
    gpus = 1.0 if config.device == "cuda" else 0.0
    engines = {"this process": EngineConfig(local=True, gpus=gpus)} | {
        f"Ray, {clips} clips at once": EngineConfig(
            workers=1, cpus_per_worker=float(cores), gpus=gpus, clips_per_worker=clips
        )
        for clips in config.clips_per_worker
    }
    with tempfile.TemporaryDirectory() as scratch:
        for name, engine in engines.items():
            job = ReconstructJob(
                archive=config.archive,
                output=os.path.join(scratch, name),
                clip_frames=config.clip_frames,
                catalogue=config.catalogue,
                engine=engine,
            )
            started = time.perf_counter()
            summary = reconstruct_archive(job)
            yield f"whole job, {name}", summary.frames / (time.perf_counter() - started), "frames/s"


def _advice(known: dict[str, float]) -> Iterator[Figure]:
    yield "CPUs that keep one GPU busy", (known[ONE_CORE] + known[ON_HOST]) / known[ON_DEVICE], ""


def _line(figure: Figure) -> str:
    name, value, unit = figure
    return f"{name:64} {value:12.3f} {unit}".rstrip()


def _cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _median_seconds(work: Callable[[], object], config: GpuBenchmark) -> float:
    return solvers.timed(work, config.device, config.seconds)[0]
