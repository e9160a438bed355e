"""`mvpose benchmark`: measure, print a table, write JSON."""

from __future__ import annotations

from typing import Annotated

import tyro

from mvpose.benchmarks import job, triangulation
from mvpose.benchmarks.job import JobBenchmark
from mvpose.benchmarks.triangulation import TriangulationBenchmark

Benchmark = (
    Annotated[TriangulationBenchmark, tyro.conf.subcommand("triangulation")]
    | Annotated[JobBenchmark, tyro.conf.subcommand("job")]
)


def run(command: TriangulationBenchmark | JobBenchmark) -> int:
    """Run the benchmark that was named."""
    if isinstance(command, JobBenchmark):
        job.run(command)
    else:
        triangulation.run(command)
    return 0
