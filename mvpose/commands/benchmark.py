"""`mvpose benchmark`: measure, print a table, write JSON."""

from __future__ import annotations

from typing import Annotated

import tyro

from mvpose.benchmarks import (
    cover,
    crowds,
    detector_recall,
    fusion_gain,
    gpu,
    job_speed,
    median_cost,
    memory,
    model_cost,
    overhead,
    peers,
    pictorial_precision,
    reliability,
    resized_footage,
    scale,
    sigma_reliability,
    solvers,
    stage_cost,
    verdicts_on_faults,
)
from mvpose.benchmarks.cover import CoverBenchmark
from mvpose.benchmarks.crowds import AssociationBenchmark
from mvpose.benchmarks.detector_recall import DetectionBenchmark
from mvpose.benchmarks.fusion_gain import FusionBenchmark
from mvpose.benchmarks.gpu import GpuBenchmark
from mvpose.benchmarks.job_speed import JobBenchmark
from mvpose.benchmarks.median_cost import MediansBenchmark
from mvpose.benchmarks.memory import MemoryBenchmark
from mvpose.benchmarks.model_cost import ModelsBenchmark
from mvpose.benchmarks.overhead import OverheadBenchmark
from mvpose.benchmarks.peers import PeersBenchmark
from mvpose.benchmarks.pictorial_precision import PictorialBenchmark
from mvpose.benchmarks.reliability import ConfidenceBenchmark
from mvpose.benchmarks.resized_footage import ResizeBenchmark
from mvpose.benchmarks.scale import ScaleBenchmark
from mvpose.benchmarks.sigma_reliability import SigmaBenchmark
from mvpose.benchmarks.solvers import TriangulationBenchmark
from mvpose.benchmarks.stage_cost import StagesBenchmark
from mvpose.benchmarks.verdicts_on_faults import VerdictBenchmark

Benchmark = (
    Annotated[TriangulationBenchmark, tyro.conf.subcommand("triangulation")]
    | Annotated[ModelsBenchmark, tyro.conf.subcommand("models")]
    | Annotated[JobBenchmark, tyro.conf.subcommand("job")]
    | Annotated[ScaleBenchmark, tyro.conf.subcommand("scale")]
    | Annotated[MemoryBenchmark, tyro.conf.subcommand("memory")]
    | Annotated[MediansBenchmark, tyro.conf.subcommand("medians")]
    | Annotated[OverheadBenchmark, tyro.conf.subcommand("overhead")]
    | Annotated[GpuBenchmark, tyro.conf.subcommand("gpu")]
    | Annotated[PeersBenchmark, tyro.conf.subcommand("peers")]
    | Annotated[DetectionBenchmark, tyro.conf.subcommand("detection")]
    | Annotated[CoverBenchmark, tyro.conf.subcommand("cover")]
    | Annotated[FusionBenchmark, tyro.conf.subcommand("fusion")]
    | Annotated[ConfidenceBenchmark, tyro.conf.subcommand("confidence")]
    | Annotated[SigmaBenchmark, tyro.conf.subcommand("sigma")]
    | Annotated[StagesBenchmark, tyro.conf.subcommand("stages")]
    | Annotated[AssociationBenchmark, tyro.conf.subcommand("association")]
    | Annotated[ResizeBenchmark, tyro.conf.subcommand("resize")]
    | Annotated[VerdictBenchmark, tyro.conf.subcommand("verdicts")]
    | Annotated[PictorialBenchmark, tyro.conf.subcommand("pictorial")]
)


def run(
    command: TriangulationBenchmark
    | ModelsBenchmark
    | JobBenchmark
    | ScaleBenchmark
    | MemoryBenchmark
    | MediansBenchmark
    | OverheadBenchmark
    | GpuBenchmark
    | PeersBenchmark
    | DetectionBenchmark
    | CoverBenchmark
    | FusionBenchmark
    | ConfidenceBenchmark
    | SigmaBenchmark
    | StagesBenchmark
    | AssociationBenchmark
    | ResizeBenchmark
    | VerdictBenchmark
    | PictorialBenchmark,
) -> int:
    """Run the named benchmark."""
    if isinstance(command, JobBenchmark):
        job_speed.run(command)
    elif isinstance(command, ScaleBenchmark):
        scale.run(command)
    elif isinstance(command, MemoryBenchmark):
        memory.run(command)
    elif isinstance(command, MediansBenchmark):
        median_cost.run()
    elif isinstance(command, OverheadBenchmark):
        overhead.run(command)
    elif isinstance(command, GpuBenchmark):
        gpu.run(command)
    elif isinstance(command, PeersBenchmark):
        peers.run(command)
    elif isinstance(command, DetectionBenchmark):
        detector_recall.run(command)
    elif isinstance(command, CoverBenchmark):
        cover.run(command)
    elif isinstance(command, FusionBenchmark):
        fusion_gain.run(command)
    elif isinstance(command, ConfidenceBenchmark):
        reliability.run(command)
    elif isinstance(command, SigmaBenchmark):
        sigma_reliability.run(command)
    elif isinstance(command, StagesBenchmark):
        stage_cost.run(command)
    elif isinstance(command, AssociationBenchmark):
        crowds.run(command)
    elif isinstance(command, ResizeBenchmark):
        resized_footage.run(command)
    elif isinstance(command, VerdictBenchmark):
        verdicts_on_faults.run(command)
    elif isinstance(command, PictorialBenchmark):
        pictorial_precision.run(command)
    elif isinstance(command, ModelsBenchmark):
        model_cost.run(command)
    else:
        solvers.run(command)
    return 0
