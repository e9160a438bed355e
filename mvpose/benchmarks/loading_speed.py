"""Loading of training samples by the number of loader processes: speed, bytes read, and time that a training waits.

The table is synthetic: crops of blurred noise, each encoded for itself, so that nothing in it compresses. Bytes are
those that the loader processes asked the kernel for, in cache or not, from their first sample to their last of an
epoch, and their CPU time is of the same span. Compare speeds of one run only: on a shared machine they differ between
runs, and CPU time per sample is the figure to trust.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import psutil
import torch

from mvpose.benchmarks.drawn_observations import room_ring
from mvpose.datasets.sample import TRAIN, VALIDATION, Sample, SampleImage, observed
from mvpose.datasets.sample_table import sample_files, write_samples
from mvpose.scenes import ring4
from mvpose.skeleton import HUMAN36M17
from mvpose.storage.locations import list_folder, read_text
from mvpose.tracking.circumstances import machine
from mvpose.training.batches import Batch
from mvpose.training.feed import Feed
from mvpose.training.loading import Columns, Reader, read_by_processes
from mvpose.training.order import Split, Take
from mvpose.training.training_config import ComputeConfig, OptimisationConfig, SamplesConfig, TrainConfig

VIEWS, SIDE = 4, 384
ROWS_PER_FILE = 1024
ROW_BYTES = 130_000
"""About the size of a row, to know the number of rows before writing them."""


@dataclass(frozen=True, kw_only=True)
class LoadingBenchmark:
    """Loading of training samples by the number of loader processes, on a synthetic table."""

    gigabytes: float = 5.0
    """Size of the table."""
    loaders: tuple[int, ...] = (1, 2, 4, 8)
    """Loader processes per worker."""
    workers: tuple[int, ...] = (1,)
    """Workers of the training, all of them in this process."""
    batch: int = 32
    step_ms: float = 40.0
    """Duration of a training step in the measurement of waiting."""
    paced_steps: int = 100
    """Steps of that measurement."""
    shuffled_groups: int = 16
    scratch: str | None = None
    """Folder for the table, which is deleted afterwards (default: the system's temporary folder)."""
    json: str | None = None
    """Output file for the figures."""


def run(config: LoadingBenchmark) -> dict[str, object]:
    """Print one line per number of workers and loaders; returns figures by name."""
    figures: dict[str, object] = {"machine": machine("cpu")}
    with tempfile.TemporaryDirectory(dir=config.scratch) as folder:
        uri = os.path.join(folder, "table")
        write_table(uri, max(round(config.gigabytes * 1e9 / ROW_BYTES), config.batch))
        size = sum(os.path.getsize(file) for file in sample_files(uri))
        figures["bytes of the table"] = size
        print(f"table of {size / 1e9:.2f} GB")
        print(f"{'workers':>8}{'loaders':>8}{'samples/s':>12}{'CPU ms/sample':>15}{'read / table':>14}{'waiting':>9}")
        for workers in config.workers:
            for loaders in config.loaders:
                speed, cpu_ms, read = _flat_out(config, uri, workers, loaders, folder)
                waiting = _paced(config, uri, workers, loaders)
                name = f"{workers} workers, {loaders} loaders each"
                figures |= {
                    f"{name}, samples/s": speed,
                    f"{name}, CPU ms per sample": cpu_ms,
                    f"{name}, bytes read per epoch over the table": read / size,
                    f"{name}, share of time spent waiting": waiting,
                }
                print(f"{workers:8}{loaders:8}{speed:12.1f}{cpu_ms:15.2f}{read / size:14.3f}{waiting:9.1%}", flush=True)
    if config.json:
        with open(config.json, "w") as file:
            json.dump(figures, file, indent=1)
    return figures


def write_table(uri: str, rows: int) -> None:
    """A table of people whose crops are noise, with one validation sample."""
    rig = room_ring(VIEWS).cropped(torch.full((VIEWS, 2), (1000.0 - SIDE) / 2), torch.full((VIEWS, 2), SIDE))
    walk = ring4(num_frames=64, skeleton=HUMAN36M17).joints[:, 0]
    people = walk - walk[:, :1] * (1.0, 1.0, 0.0)
    visible, box = observed(rig, people)
    rng = np.random.default_rng(0)
    noise = cv2.GaussianBlur(rng.integers(0, 256, (2 * SIDE, 2 * SIDE, 3), dtype=np.uint8), (0, 0), 1.2)

    def crop() -> SampleImage:
        x, y = rng.integers(0, SIDE, 2)
        encoded = cv2.imencode(".jpg", noise[y : y + SIDE, x : x + SIDE], [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
        return SampleImage(crop=encoded.tobytes())

    def samples(first: int, stop: int) -> Iterator[Sample]:
        for row in range(first, stop):
            pose = row % len(people)
            yield Sample(
                capture_id=f"capture{first}", frame=row, position=row, person=0, subject="s", action="walk",
                split=TRAIN if row else VALIDATION, damaged=False, rig=rig,
                images=tuple(crop() for _ in range(VIEWS)), xyz=people[pose], visible=visible[pose], box=box[pose],
                skeleton=HUMAN36M17,
            )  # fmt: skip

    for first in range(0, rows, ROWS_PER_FILE):
        stop = min(first + ROWS_PER_FILE, rows)
        write_samples(os.path.join(uri, f"{first:08d}.parquet"), samples(first, stop), HUMAN36M17, "noise")


def _feed(config: LoadingBenchmark, uri: str, steps: int) -> Feed:
    return Feed.open(
        TrainConfig(
            data=uri,
            samples=SamplesConfig(views=VIEWS, shuffled_groups=config.shuffled_groups),
            optimisation=OptimisationConfig(batch=config.batch, epochs=1, steps=steps),
            compute=ComputeConfig(local=True),
        )
    )


def _flat_out(
    config: LoadingBenchmark, uri: str, workers: int, loaders: int, folder: str
) -> tuple[float, float, float]:
    """One epoch that nothing holds up: samples/s once all workers have a batch, CPU ms per sample, and bytes read."""
    with tempfile.TemporaryDirectory(dir=folder) as counts, ThreadPoolExecutor(workers) as pool:

        def read(rank: int) -> list[float]:
            feed = _feed(config, uri, steps=0)
            return [time.perf_counter() for _ in _batches(feed, rank, workers, loaders, counts)]

        arrivals = list(pool.map(read, range(workers)))
        began = max(times[0] for times in arrivals)
        steps = sum(moment > began for times in arrivals for moment in times) / workers
        seconds = max(times[-1] for times in arrivals) - began
        counted = [json.loads(read_text(uri)) for uri in list_folder(counts)]
        cpu_ms, total = (sum(figure) for figure in zip(*counted, strict=True))
        return steps * config.batch / seconds, cpu_ms / (len(arrivals[0]) * config.batch), float(total)


def _paced(config: LoadingBenchmark, uri: str, workers: int, loaders: int) -> float:
    """Share of its time that the first worker waits for batches, if the steps between them take their time."""
    feed = _feed(config, uri, steps=config.paced_steps)
    batches = _batches(feed, 0, workers, loaders, "")
    next(batches)
    began, waited = time.perf_counter(), 0.0
    for _ in range(1, config.paced_steps):
        time.sleep(config.step_ms / 1000)
        requested = time.perf_counter()
        next(batches)
        waited += time.perf_counter() - requested
    return waited / (time.perf_counter() - began)


def _batches(feed: Feed, rank: int, workers: int, loaders: int, counts: str) -> Iterator[Batch]:
    splits = (Split(0, workers),)
    source = Metered(feed.reader(training=True, loaders=loaders), counts)
    return read_by_processes(
        source, lambda step: feed.order.parts(step, rank, splits, loaders), range(feed.total_steps), loaders
    )


class Metered:
    """A reader that keeps in a folder what its process has spent since its first take: CPU ms, and bytes read."""

    def __init__(self, source: Reader, counts: str) -> None:
        self._source, self._counts = source, counts
        self._before: tuple[float, int] | None = None

    def __getitem__(self, take: Take) -> Columns:
        if not self._counts:
            return self._source[take]
        self._before = self._before or _spent()
        columns = self._source[take]
        spent = [after - before for after, before in zip(_spent(), self._before, strict=True)]
        with open(os.path.join(self._counts, str(os.getpid())), "w") as file:
            json.dump(spent, file)
        return columns


def _spent() -> tuple[float, int]:
    return 1000 * time.process_time(), psutil.Process().io_counters().read_chars
