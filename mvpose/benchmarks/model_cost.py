"""Cost of the multi-view methods: time, operations, parameters, memory; and their components against plain loops."""

from __future__ import annotations

import gc
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mvpose import scenes
from mvpose.benchmarks import loops
from mvpose.config import structure, without_other_kinds
from mvpose.geometry.triangulation import Kernel, triangulate
from mvpose.models.method import build_method
from mvpose.models.multiview import open_views
from mvpose.models.network_settings import Method
from mvpose.models.volumes.cube import Cube
from mvpose.models.volumes.volumetric import VolumetricConfig, unproject
from mvpose.tracking.circumstances import machine

BASELINE = "baseline"
METHODS = (BASELINE, "fusion", "canonical_fusion", "canonical_fusion-pooling", "algebraic", "ransac", "volumetric")


@dataclass(frozen=True, kw_only=True)
class ModelsBenchmark:
    """Time each method on the same crops, in turns, so that other load on the machine affects all alike."""

    methods: tuple[str, ...] = METHODS
    """`canonical_fusion` concatenates; with `-pooling` or `-attention` it accepts any number of views."""
    depths: tuple[int, ...] = (50,)
    """Depths of the ResNet backbones: 18, 34, 50, 101, 152."""
    batches: tuple[int, ...] = (1, 16)
    views: int = 4
    side: int = 256
    """Side of a crop in pixels."""
    voxels: int = 64
    """Voxels per side of the volumetric method's cube. All other sizes are the papers'."""
    device: str = "cpu"
    """`cpu` or `cuda`."""
    precision: str = "float32"
    """`float32` or `bfloat16` (autocast)."""
    rounds: int = 5
    """Runs of each method; the median counts."""
    parts: bool = True
    """Also time unprojection and triangulation against a loop over samples, views and joints; on CUDA, unprojection
    with the default engine and in Triton."""
    json: str | None = None
    """Output file for the figures."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of one method at one batch size."""

    method: str
    depth: int
    batch: int
    ms_per_frame: float
    """A frame is one person in all views."""
    ratio: float | None
    """Ratio to the Baseline: median of the rounds' ratios."""
    parameters: int
    gigaflops_per_frame: float
    """Multiplications and additions; torch does not count grid sampling and triangulation."""
    peak_megabytes: float | None
    """Increase during the call, of the GPU's allocator or of the process."""


def run(config: ModelsBenchmark) -> dict:
    """Print one table per backbone and batch size; returns, and with `config.json` writes, the figures.

    Raises ValueError for an unavailable device.
    """
    if config.device != "cpu" and not torch.cuda.is_available():
        raise ValueError(f"device {config.device!r} is not available; this machine has cpu only")
    about = machine(config.device)
    print(f"{about['processor']}, torch {about['torch']}, {about['threads']} threads, {config.precision}")
    costs: list[Cost] = []
    for depth in config.depths:
        networks = {name: _network(name, depth, config) for name in config.methods}
        for batch in config.batches:
            costs += _table(networks, depth, batch, config)
    parts = [part for batch in config.batches for part in _parts(batch, config)] if config.parts else []
    figures = {"machine": about, "config": asdict(config), "costs": [asdict(c) for c in costs], "parts": parts}
    if config.json:
        with open(config.json, "w") as file:
            json.dump(figures, file, indent=1)
    return figures


def _network(name: str, depth: int, config: ModelsBenchmark) -> nn.Module:
    method, _, fusion = name.partition("-")
    described = {
        "method": method,
        "size": (config.side, config.side),
        "backbone": {"depth": depth},
        "fusion": {"views": config.views, "fusion": fusion or "concatenation"},
        "volumetric": {"voxels": config.voxels},
    }
    chosen = structure(without_other_kinds(described, Method), Method, f"method {name!r}")
    torch.manual_seed(0)
    return build_method(chosen).to(config.device).eval()


def _table(networks: dict[str, nn.Module], depth: int, batch: int, config: ModelsBenchmark) -> list[Cost]:
    """Measure and print all methods at one batch size."""
    crops, projections = _inputs(batch, config)

    def call(network: nn.Module) -> None:
        with torch.inference_mode(), _autocast(config):
            network(crops, projections)

    calls = {name: (lambda n=network: call(n)) for name, network in networks.items()}
    peaks = {name: _peak_megabytes(work, config.device) for name, work in calls.items()}
    seconds = _in_turns(list(calls.values()), config)
    by_name = dict(zip(calls, seconds, strict=True))
    print(f"\nResNet-{depth}, batch {batch}, {config.views} views of {config.side} px")
    print(f"{'':28}{'ms/frame':>10}{'x base':>8}{'Mparam':>8}{'GFLOP':>9}{'peak MB':>9}")
    costs = [
        Cost(
            method=name,
            depth=depth,
            batch=batch,
            ms_per_frame=1000 * statistics.median(by_name[name]) / batch,
            ratio=_ratio(by_name[name], by_name.get(BASELINE)),
            parameters=sum(p.numel() for p in network.parameters()),
            gigaflops_per_frame=_gigaflops(network, config),
            peak_megabytes=peaks[name],
        )
        for name, network in networks.items()
    ]
    for cost in costs:
        ratio = "" if cost.ratio is None else f"{cost.ratio:.2f}"
        peak = "" if cost.peak_megabytes is None else f"{cost.peak_megabytes:,.0f}"
        print(
            f"{cost.method:28}{cost.ms_per_frame:10.1f}{ratio:>8}{cost.parameters / 1e6:8.1f}"
            f"{cost.gigaflops_per_frame:9.1f}{peak:>9}"
        )
    return costs


def _parts(batch: int, config: ModelsBenchmark) -> list[dict]:
    """Unprojection and triangulation of a batch against their loops, with the largest difference of the results."""
    crops, projections = _inputs(batch, config)
    views = open_views(crops, projections, None, 2.0)
    volumetric = VolumetricConfig(voxels=config.voxels)
    torch.manual_seed(0)
    features = torch.randn(
        batch, config.views, volumetric.channels, config.side // 4, config.side // 4, device=config.device
    )
    centre = torch.tensor([0.0, 0.0, 1.0], device=config.device).expand(batch, 3)
    cube = Cube(centre, torch.eye(3, device=config.device).expand(batch, 3, 3), volumetric.side, volumetric.voxels)
    points = torch.rand(batch, config.views, 17, 2, device=config.device) * config.side
    weights = torch.rand(batch, config.views, 17, device=config.device) + 0.1

    def fast_points() -> Tensor:
        return triangulate(points.transpose(1, 2), projections[:, None], weights.transpose(1, 2), check=False).points

    pairs: dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]] = {
        "unprojection": (
            lambda: unproject(features, views, cube, "softmax"),
            lambda: loops.unprojected(features, projections, views.size, cube),
        ),
        "triangulation": (fast_points, lambda: loops.triangulated(points, projections, weights)),
    }
    if config.device != "cpu":
        pairs["unprojection, fused"] = (
            lambda: unproject(features, views, cube, "softmax", engine=Kernel.FUSED),
            pairs["unprojection"][1],
        )
    found = []
    for name, (fast, slow) in pairs.items():
        with torch.inference_mode():
            fast_s, slow_s = _in_turns([fast, slow], config)
        ratio = statistics.median(s / f for f, s in zip(fast_s, slow_s, strict=True))
        times = {"fast_ms": 1000 * statistics.median(fast_s), "loop_ms": 1000 * statistics.median(slow_s)}
        found.append({"part": name, "batch": batch, **times, "ratio": ratio})
        print(f"{name}, batch {batch}: {times['fast_ms']:.1f} ms, loop {times['loop_ms']:.1f} ms, {ratio:.1f} x")
    return found


def _inputs(batch: int, config: ModelsBenchmark) -> tuple[Tensor, Tensor]:
    """Noise crops and a ring of cameras that look at (0, 0, 1) m."""
    rig = (scenes.ring4 if config.views <= 4 else scenes.ring31)(num_frames=1).rig
    rig = rig.select(rig.names[: config.views])
    square = torch.full((len(rig), 2), config.side)
    rig = rig.resized(square / rig.size, square)
    generator = torch.Generator().manual_seed(0)
    shape = (batch, config.views, 3, config.side, config.side)
    crops = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    projections = rig.projections.float().expand(batch, -1, -1, -1).contiguous()
    return crops.to(config.device), projections.to(config.device)


def _in_turns(calls: Sequence[Callable[[], object]], config: ModelsBenchmark) -> list[list[float]]:
    """Seconds of each call in each round, after one warm-up round; the device is synchronised at every reading."""
    seconds: list[list[float]] = [[] for _ in calls]
    for round_number in range(config.rounds + 1):
        for call, taken in zip(calls, seconds, strict=True):
            start = _now(config.device)
            call()
            end = _now(config.device)
            if round_number:
                taken.append(end - start)
    return seconds


def _now(device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def _ratio(seconds: list[float], base: list[float] | None) -> float | None:
    return None if base is None else statistics.median(s / b for s, b in zip(seconds, base, strict=True))


def _gigaflops(network: nn.Module, config: ModelsBenchmark) -> float:
    crops, projections = _inputs(1, config)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(crops, projections)
    return counter.get_total_flops() / 1e9


def _autocast(config: ModelsBenchmark):
    device = torch.device(config.device).type
    return torch.autocast(device, torch.bfloat16, enabled=config.precision == "bfloat16")


def _peak_megabytes(work: Callable[[], None], device: str) -> float | None:
    """Peak memory during a call above that before it; None if the system does not report it."""
    gc.collect()
    if device != "cpu":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    if not os.path.exists("/proc/self/clear_refs"):
        return None
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # resets the high-water mark
    before = _high_water_kilobytes()
    work()
    # Linux sums a process's pages over its cores in batches, so a small call can seem to end below its start.
    return max(0, _high_water_kilobytes() - before) / 1e3


def _high_water_kilobytes() -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
