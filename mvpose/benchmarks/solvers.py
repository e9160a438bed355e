"""Speed and accuracy of triangulation methods, on the same data in the same run."""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from mvpose.benchmarks.contenders import CONTENDERS, Contender, Solved
from mvpose.benchmarks.drawn_observations import DrawnObservations, observe
from mvpose.geometry.triangulation import DltMethod
from mvpose.tracking.circumstances import machine

T = TypeVar("T")
REFERENCE = "torch.linalg.svd"
GIGABYTE = 1e9


@dataclass(frozen=True, kw_only=True)
class TriangulationBenchmark:
    """Triangulate synthetic joints in a room with this package and with the installed alternatives."""

    points: tuple[int, ...] = (1_700, 170_000, 1_000_000)
    """Numbers of points: 100 and 10,000 frames of 17 joints, and a million."""
    views: tuple[int, ...] = (4, 8, 16)
    dtypes: tuple[str, ...] = ("float32", "float64")
    outlier_shares: tuple[float, ...] = (0.0, 0.1)
    outlier_px: float = 150.0
    noise_px: float = 2.0
    device: str = "cpu"
    """`cpu` or `cuda`."""
    seconds: float = 0.5
    """Duration of each measurement in seconds, with at least three repetitions; the median counts."""
    contenders: tuple[str, ...] = ()
    """Only contenders whose name contains one of these words."""
    json: str | None = None
    """Output file for the figures."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One contender on one set of data. Accuracy is over its output points; `ratio` is to torch.linalg.svd."""

    contender: str
    points: int
    timed_points: int
    views: int
    dtype: str
    outlier_share: float
    points_per_s: float
    median_mm: float
    p95_mm: float
    found_share: float
    ratio: float | None = None
    gigabytes_per_s: float | None = None
    share_of_copy: float | None = None
    gigaflops: float | None = None


def run(config: TriangulationBenchmark) -> dict:
    """Print a table as it grows; returns, and with `config.json` writes, the figures and the machine.

    Raises ValueError for an unavailable device.
    """
    if config.device != "cpu" and not (config.device.startswith("cuda") and torch.cuda.is_available()):
        raise ValueError(f"device {config.device!r} is not available; this machine has {_devices()}")
    copy = _copy_gigabytes_per_s(config.device)
    about = machine(config.device) | {"copy_gigabytes_per_s": copy}
    missing = [c.name for c in CONTENDERS if not c.installed]
    print(f"{about['processor']}, torch {torch.__version__}, {about['threads']} threads, copy {copy:.1f} GB/s")
    if missing:
        print(f"not installed: {', '.join(missing)} (pip install 'mvpose[peers]')")
    measurements = []
    for num, views, dtype, share in itertools.product(
        config.points, config.views, config.dtypes, config.outlier_shares
    ):
        measurements += _table(config, num, views, dtype, share, copy)
    figures = {"machine": about, "config": asdict(config), "measurements": [asdict(m) for m in measurements]}
    if config.json:
        with open(config.json, "w") as file:
            json.dump(figures, file, indent=1)
    return figures


def _table(
    config: TriangulationBenchmark, num: int, views: int, dtype: str, share: float, copy: float
) -> list[Measurement]:
    """Measure and print one set of data."""
    seen = observe(
        num,
        views,
        dtype=getattr(torch, dtype),
        device=config.device,
        noise_px=config.noise_px,
        outlier_share=share,
        outlier_px=config.outlier_px,
    )
    print(f"\n{num:,} points, {views} views, {dtype}, {share:.0%} outliers")
    print(f"{'':32}{'points/s':>14}{'x svd':>9}{'median mm':>11}{'p95 mm':>10}{'found':>8}{'GB/s':>8}{'of copy':>9}")
    rows = [_measured(c, seen, config, dtype, share, copy) for c in _entered(config)]
    rate = next((row.points_per_s for row in rows if row.contender == REFERENCE), None)
    rows = [replace(row, ratio=row.points_per_s / rate if rate else None) for row in rows]
    for row in sorted(rows, key=lambda r: -r.points_per_s):
        print(_line(row))
    return rows


def _entered(config: TriangulationBenchmark) -> Iterator[Contender]:
    for contender in CONTENDERS:
        named = not config.contenders or any(word in contender.name for word in config.contenders)
        if named and contender.installed and (contender.cuda or config.device == "cpu"):
            yield contender


def _measured(
    contender: Contender, seen: DrawnObservations, config: TriangulationBenchmark, dtype: str, share: float, copy: float
) -> Measurement:
    maximum = contender.max_points * (1 if config.device == "cpu" else 50)
    part = seen.first(min(maximum, len(seen.points_world)))
    solve = contender.prepare(part)
    seconds, solved = timed(solve, config.device, config.seconds)
    median, p95, found = _accuracy(solved, part.points_world)
    num, views = part.pixels.shape[:2]
    traffic, work = (None, None) if contender.fused is None else _counted(contender.fused, num, views, part.pixels)
    return Measurement(
        contender=contender.name,
        points=len(seen.points_world),
        timed_points=num,
        views=2 if contender.two_views else views,
        dtype=dtype,
        outlier_share=share,
        points_per_s=num / seconds,
        median_mm=median,
        p95_mm=p95,
        found_share=found,
        gigabytes_per_s=None if traffic is None else traffic / seconds / GIGABYTE,
        share_of_copy=None if traffic is None else traffic / seconds / GIGABYTE / copy,
        gigaflops=None if work is None else work / seconds / 1e9,
    )


def timed(work: Callable[[], T], device: str, at_least_s: float) -> tuple[float, T]:
    """Median seconds of a call after one warm-up call, and its result; the device is done before the clock is read."""
    cuda = device != "cpu"
    times, result = [], work()
    while len(times) < 3 or sum(times) < at_least_s:
        if cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        result = work()
        if cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times), result


def _accuracy(solved: Solved, truth: Tensor) -> tuple[float, float, float]:
    """Median and 95th percentile in mm over the output points, and their share of all points."""
    points = torch.as_tensor(solved, device=truth.device).double()
    found = points.isfinite().all(dim=-1) & (points != 0).any(dim=-1)
    errors = 1000.0 * (points - truth)[found].norm(dim=-1).sort().values
    if len(errors) == 0:
        return float("nan"), float("nan"), 0.0
    median, p95 = (float(errors[int(q * (len(errors) - 1))]) for q in (0.5, 0.95))
    return median, p95, float(found.double().mean())


def _counted(method: DltMethod, num: int, views: int, pixels: Tensor) -> tuple[int, int]:
    """Bytes that must move (pixels in, points and flags out) and floating-point operations of a fused kernel.

    A row costs 8 to form, 8 to normalise and 24 to accumulate; a view has two, and 6 for its depth. A solution costs
    about 60 by normal equations, 60 and 45 per iteration by SII.
    """
    traffic = num * (pixels.element_size() * (2 * views + 3) + 1)
    return traffic, num * (views * (2 * 40 + 6) + (60 if method == DltMethod.NORMAL else 150))


def _copy_gigabytes_per_s(device: str) -> float:
    """Bytes read and written by the best of ten copies of 256 MB (CPU) or 4 GB (GPU)."""
    source = torch.empty((2**28 if device == "cpu" else 2**32) // 4, dtype=torch.float32, device=device).fill_(1.0)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        target.copy_(source)
        if device != "cpu":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * source.numel() * 4 / best / GIGABYTE


def _line(row: Measurement) -> str:
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    bandwidth = "" if row.gigabytes_per_s is None else f"{row.gigabytes_per_s:.2f}"
    share = "" if row.share_of_copy is None else f"{row.share_of_copy:.0%}"
    accuracy = f"{row.median_mm:11.2f}{row.p95_mm:10.2f}{row.found_share:8.1%}"
    return f"{row.contender:32}{row.points_per_s:14,.0f}{ratio:>9}{accuracy}{bandwidth:>8}{share:>9}"


def _devices() -> str:
    return "cpu" + (f" and {torch.cuda.device_count()} cuda" if torch.cuda.is_available() else " only")
