"""`mvpose benchmark`: measure, print a table, write JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import tyro

from mvpose.benchmarks import (
    cover,
    crowds,
    detector_recall,
    fusion_gain,
    gpu,
    job_speed,
    loading_speed,
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
    synchronisation_seeds,
    verdicts_on_faults,
)
from mvpose.benchmarks.cover import CoverBenchmark
from mvpose.benchmarks.crowds import AssociationBenchmark
from mvpose.benchmarks.detector_recall import DetectionBenchmark
from mvpose.benchmarks.fusion_gain import FusionBenchmark
from mvpose.benchmarks.gpu import GpuBenchmark
from mvpose.benchmarks.job_speed import JobBenchmark
from mvpose.benchmarks.loading_speed import LoadingBenchmark
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
from mvpose.benchmarks.synchronisation_seeds import SynchronisationBenchmark
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
    | Annotated[SynchronisationBenchmark, tyro.conf.subcommand("synchronisation")]
    | Annotated[PictorialBenchmark, tyro.conf.subcommand("pictorial")]
    | Annotated[LoadingBenchmark, tyro.conf.subcommand("loading")]
)


RUNS: dict[type, Callable[[Any], object]] = {
    JobBenchmark: job_speed.run,
    LoadingBenchmark: loading_speed.run,
    ScaleBenchmark: scale.run,
    MemoryBenchmark: memory.run,
    MediansBenchmark: median_cost.run,
    OverheadBenchmark: overhead.run,
    GpuBenchmark: gpu.run,
    PeersBenchmark: peers.run,
    DetectionBenchmark: detector_recall.run,
    CoverBenchmark: cover.run,
    FusionBenchmark: fusion_gain.run,
    ConfidenceBenchmark: reliability.run,
    SigmaBenchmark: sigma_reliability.run,
    StagesBenchmark: stage_cost.run,
    AssociationBenchmark: crowds.run,
    ResizeBenchmark: resized_footage.run,
    VerdictBenchmark: verdicts_on_faults.run,
    SynchronisationBenchmark: synchronisation_seeds.run,
    PictorialBenchmark: pictorial_precision.run,
    ModelsBenchmark: model_cost.run,
    TriangulationBenchmark: solvers.run,
}


def run(command: Benchmark) -> int:
    """Run the named benchmark."""
    RUNS[type(command)](command)
    return 0
