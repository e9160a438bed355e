"""`mvpose benchmark`: measure, print a table, write JSON."""

from __future__ import annotations

from typing import Annotated

import tyro

from mvpose.benchmarks import (
    cover,
    detector_recall,
    job_speed,
    memory,
    model_cost,
    overhead,
    scale,
    solvers,
    verdicts_on_faults,
)
from mvpose.benchmarks.cover import CoverBenchmark
from mvpose.benchmarks.detector_recall import DetectionBenchmark
from mvpose.benchmarks.job_speed import JobBenchmark
from mvpose.benchmarks.memory import MemoryBenchmark
from mvpose.benchmarks.model_cost import ModelsBenchmark
from mvpose.benchmarks.overhead import OverheadBenchmark
from mvpose.benchmarks.scale import ScaleBenchmark
from mvpose.benchmarks.solvers import TriangulationBenchmark
from mvpose.benchmarks.verdicts_on_faults import VerdictBenchmark

Benchmark = (
    Annotated[TriangulationBenchmark, tyro.conf.subcommand("triangulation")]
    | Annotated[ModelsBenchmark, tyro.conf.subcommand("models")]
    | Annotated[JobBenchmark, tyro.conf.subcommand("job")]
    | Annotated[ScaleBenchmark, tyro.conf.subcommand("scale")]
    | Annotated[MemoryBenchmark, tyro.conf.subcommand("memory")]
    | Annotated[OverheadBenchmark, tyro.conf.subcommand("overhead")]
    | Annotated[DetectionBenchmark, tyro.conf.subcommand("detection")]
    | Annotated[CoverBenchmark, tyro.conf.subcommand("cover")]
    | Annotated[VerdictBenchmark, tyro.conf.subcommand("verdicts")]
)


def run(
    command: TriangulationBenchmark
    | ModelsBenchmark
    | JobBenchmark
    | ScaleBenchmark
    | MemoryBenchmark
    | OverheadBenchmark
    | DetectionBenchmark
    | CoverBenchmark
    | VerdictBenchmark,
) -> int:
    """Run the named benchmark."""
    if isinstance(command, JobBenchmark):
        job_speed.run(command)
    elif isinstance(command, ScaleBenchmark):
        scale.run(command)
    elif isinstance(command, MemoryBenchmark):
        memory.run(command)
    elif isinstance(command, OverheadBenchmark):
        overhead.run(command)
    elif isinstance(command, DetectionBenchmark):
        detector_recall.run(command)
    elif isinstance(command, CoverBenchmark):
        cover.run(command)
    elif isinstance(command, VerdictBenchmark):
        verdicts_on_faults.run(command)
    elif isinstance(command, ModelsBenchmark):
        model_cost.run(command)
    else:
        solvers.run(command)
    return 0
