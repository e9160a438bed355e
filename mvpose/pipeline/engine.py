"""The two ways to run a stage over tasks: a plain loop, and an actor pool of Ray Data."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from mvpose.errors import ConfigError, ResultsError
from mvpose.pipeline.worker import ClipWorker, StageSpec, run_batch, task_rows
from mvpose.records import Task

Receipt = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Where the work runs. None of this changes a result."""

    local: bool = False
    """A plain loop in this process, without Ray."""
    address: str | None = None
    """A running Ray cluster ("auto", "ray://host:10001", ...); without it a Ray of this machine is started."""
    workers: int | None = None
    """Actors of the pool; without it one a core of this machine, or one a CPU of the cluster but one."""
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    max_attempts: int = 3
    """A clip whose worker died this often becomes a failure row."""
    object_store_mib: int = 256
    """Of a Ray started here. Rows are ids and receipts; frames never enter the store."""

    def __post_init__(self) -> None:
        for name in ("workers", "max_attempts"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"{name} is {value}; it must be 1 or more.")
        if self.cpus_per_worker <= 0 or self.gpus_per_worker < 0:
            raise ConfigError("a worker needs some CPU (cpus_per_worker above 0) and no negative share of a GPU.")


class Engine:
    """Runs stages; a Ray is started at the first stage that needs one and ended by `close`."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self._started = False

    def run(self, spec: StageSpec, tasks: list[Task]) -> Iterator[Receipt]:
        """Receipts of the tasks as they are committed, in no particular order; ResultsError if they cannot be."""
        if not tasks:
            return iter(())
        if self.config.local:
            return _checked(_plain_loop(spec, tasks))
        self._start()
        return _checked(_ray_data(spec, task_rows(tasks), self.config, self._pool_size(len(tasks))))

    def describe(self) -> str:
        """Where the work runs, in words."""
        if self.config.local:
            return "in this process"
        return f"on the Ray cluster at {self.config.address}" if self.config.address else "on a Ray of this machine"

    def close(self) -> None:
        """End the Ray that this engine started or joined."""
        if self._started:
            import ray

            ray.shutdown()

    def _start(self) -> None:
        if self._started:
            return
        import ray

        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray's C++ side warns of every actor with arguments; what concerns a job comes as an exception.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        # One thread a worker and few malloc arenas: two fused actors scale 1.7x on two cores, and the plateau of
        # memory falls from 2.5 to 2.35 GiB (measured).
        env = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2", "OPENCV_FFMPEG_THREADS": "1"}
        settings: dict[str, Any] = {"runtime_env": {"env_vars": env}, "log_to_driver": False, "logging_level": "ERROR"}
        if self.config.address:
            ray.init(address=self.config.address, **settings)
        else:
            # One logical CPU more than workers: an actor pool that takes all CPUs hangs Ray Data's own small tasks.
            # "local": a Ray that somebody else runs on this machine is not joined unasked.
            ray.init(
                address="local",
                num_cpus=int(self.local_workers() * self.config.cpus_per_worker) + 1,
                object_store_memory=self.config.object_store_mib * 2**20,
                include_dashboard=False,
                **settings,
            )
        self._started = True

    def local_workers(self) -> int:
        """Workers on this machine: as asked for, or one a core; one in a plain loop."""
        if self.config.local:
            return 1
        return self.config.workers or len(os.sched_getaffinity(0))

    def _pool_size(self, num_tasks: int) -> int:
        import ray

        cpus = ray.cluster_resources().get("CPU", 0.0)
        wanted = self.config.workers or (
            int((cpus - 1) // self.config.cpus_per_worker) if self.config.address else self.local_workers()
        )
        if wanted < 1 or wanted * self.config.cpus_per_worker + 1 > cpus:
            raise ConfigError(
                f"{max(wanted, 1)} workers of {self.config.cpus_per_worker} CPUs need one CPU beside them, and the "
                f"cluster has {cpus:g}: use fewer workers, or add CPUs."
            )
        return min(wanted, num_tasks)


def _checked(receipts: Iterator[Receipt]) -> Iterator[Receipt]:
    """Receipts until the storage fails a worker: then the job ends with that worker's sentence."""
    for receipt in receipts:
        if receipt["storage_error"]:
            raise ResultsError(receipt["storage_error"])
        yield receipt


def _plain_loop(spec: StageSpec, tasks: list[Task]) -> Iterator[Receipt]:
    worker = ClipWorker(spec)
    for task in tasks:
        batch = {name: column.to_numpy() for name, column in _columns(task_rows([task]))}
        receipts = worker(batch)
        yield {name: column[0] for name, column in receipts.items()}


def _columns(table: pa.Table) -> Iterator[tuple[str, pa.ChunkedArray]]:
    return zip(table.column_names, table.columns, strict=True)


def _ray_data(spec: StageSpec, rows: pa.Table, config: EngineConfig, pool_size: int) -> Iterator[Receipt]:
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    dataset = ray.data.from_arrow(rows).repartition(target_num_rows_per_block=1)
    resources = {"num_cpus": config.cpus_per_worker, "batch_size": 1}
    if spec.keeps_weights:
        pool = ray.data.ActorPoolStrategy(size=pool_size)
        receipts = dataset.map_batches(
            ClipWorker, fn_constructor_args=(spec,), compute=pool, num_gpus=config.gpus_per_worker, **resources
        )
    else:
        pool = ray.data.TaskPoolStrategy(size=pool_size)
        run: Any = partial(run_batch, spec)
        receipts = dataset.map_batches(run, compute=pool, **resources)
    yield from receipts.iter_rows()
