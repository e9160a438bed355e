"""The two ways to run a stage over tasks: a plain loop, and an actor pool of Ray Data."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pyarrow as pa

from mvpose.errors import ConfigError, ResultsError, StageError
from mvpose.pipeline.capacity import Need, Node, pool_limits
from mvpose.pipeline.defects import FirstClips
from mvpose.pipeline.metrics import counted
from mvpose.pipeline.worker import ClipWorker, StageSpec, run_batch, task_rows
from mvpose.records import Task

Receipt = dict[str, Any]
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENCV_FFMPEG_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
}
"""One thread a worker: two fused actors scale 1.7x on two cores. The rest keeps freed memory for the next frames and
does not give it back: a clip of 300 frames of four 1080p cameras asks the system for 100 in place of 130,000 pages,
which was 1.3 of its 6.5 s of processor on a virtual machine; the peak is 1.3 in place of 1.4 GiB (glibc 2.36)."""


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Where the work runs. None of this changes a result."""

    local: bool = False
    """A plain loop in this process, without Ray."""
    address: str | None = None
    """A running Ray cluster ("auto", "ray://host:10001", ...); without it a Ray of this machine is started."""
    workers: int | None = None
    """Of each stage; without it one a core of this machine, or as many as fit in the cluster beside one free CPU."""
    min_workers: int | None = None
    """Begin with so few and grow to `workers` as the cluster does; 0 begins before any node is there. Without it the
    number is fixed, and has to fit when a stage begins."""
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    """Of the workers that hold the model; 0.25 puts four of them on a GPU."""
    model_resources: Mapping[str, float] = field(default_factory=dict)
    """Custom resources of Ray that a worker with the model takes, by name."""
    model_nodes: str = ""
    """Label `key=value` (`ray start --labels`) of the nodes where the model runs, with the decoding of its frames."""
    other_nodes: str = ""
    """Label `key=value` of the nodes where the stages without a model run."""
    max_attempts: int = 3
    """A clip whose worker died this often becomes a failure row."""
    clip_timeout_s: float | None = None
    """Seconds after which a clip becomes a failure row. Without it 10 minutes and 2.5 s for each camera and frame; once
    a worker has done three clips, 10 times what the slowest of them took, and 2 minutes at least."""
    wave_clips: int = 4096
    """Clips that go through all stages before the next ones begin; a capture stays whole. In each wave workers wait for
    the last clip of a stage and load the model anew, so let one last ten minutes or more; 4096 hold 25 MB here."""
    object_store_mib: int = 256
    """Of a Ray started here. Rows are ids and receipts; frames never enter the store."""
    metrics_port: int | None = None
    """Where a Ray started here lets Prometheus read its figures and the job's; any free port without it."""

    def __post_init__(self) -> None:
        for name in ("workers", "max_attempts", "wave_clips"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"{name} is {value}; it must be 1 or more.")
        if self.cpus_per_worker <= 0 or self.gpus_per_worker < 0:
            raise ConfigError("a worker needs some CPU (cpus_per_worker above 0) and no negative share of a GPU.")
        if self.min_workers is not None and not 0 <= self.min_workers <= (self.workers or -1):
            raise ConfigError(
                f"min_workers is {self.min_workers}; it needs workers, the most, and lies from 0 to that."
            )
        if self.clip_timeout_s is not None and self.clip_timeout_s <= 0:
            raise ConfigError(f"clip_timeout_s is {self.clip_timeout_s:g}; it must be above 0.")
        for name in ("model_nodes", "other_nodes"):
            if (label := getattr(self, name)) and not all(part.strip() for part in label.partition("=")):
                raise ConfigError(f"{name} is {label!r}; it is a label `key=value`.")

    def need(self, *, with_model: bool) -> Need:
        """What a worker of a stage with or without the model asks of its node."""
        label = self.model_nodes if with_model else self.other_nodes
        key, _, value = label.partition("=")
        resources = {"CPU": self.cpus_per_worker}
        if with_model:
            resources |= {"GPU": self.gpus_per_worker, **self.model_resources}
        return Need(resources, {key: value} if label else {})


class Engine:
    """Runs stages on the Ray that `start` starts or joins, or in a plain loop; `close` ends what was started."""

    def __init__(self, config: EngineConfig) -> None:
        self.config = config
        self._started = False
        self._first: dict[str, FirstClips] = {}

    def run(self, spec: StageSpec, tasks: list[Task], *, later: int = 0) -> Iterator[Receipt]:
        """Receipts of the tasks as they are committed, in no particular order; ResultsError if they cannot be.

        StageError where the stage cannot be made, or has raised alike on its first clips, in all runs by this engine.
        So many of its tasks as `later` says are still to come in other runs.
        """
        if not tasks:
            return iter(())
        several = later > 0 or len({task.clip.capture_id for task in tasks}) > 1
        first = self._first.setdefault(spec.kind, FirstClips(spec.kind))
        return first.watched(_checked(self._receipts(spec, tasks, later)), several=several)

    def _receipts(self, spec: StageSpec, tasks: list[Task], later: int) -> Iterator[Receipt]:
        if self.config.local:
            return _plain_loop(spec, tasks)
        self.start()
        need = self.config.need(with_model=spec.keeps_weights)
        least, most = self.pool_limits(need)
        limits = min(least, len(tasks)), min(most, len(tasks))
        receipts = _ray_data(replace(spec, replaceable=True), task_rows(tasks), need, limits)
        return counted(receipts, spec.kind, len(tasks), limits[1], later)

    def describe(self) -> str:
        """Where the work runs, in words."""
        if self.config.local:
            return "in this process"
        return f"on the Ray cluster at {self.config.address}" if self.config.address else "on a Ray of this machine"

    def start(self) -> None:
        """Start a Ray on this machine, or join the one at `address`; a Ray that this process has already is used.

        Ray's Python packages are quiet from then on: what concerns a job comes as an exception.
        """
        import ray
        import ray.data

        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        if ray.is_initialized():
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        # Ray's C++ side warns of every actor with arguments; what concerns a job comes as an exception.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        settings: dict[str, Any] = {
            "runtime_env": {"env_vars": WORKER_ENVIRONMENT},
            "log_to_driver": False,
            "logging_level": "ERROR",
        }
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
                _metrics_export_port=self.config.metrics_port,
                **settings,
            )
        self._started = True

    def close(self) -> None:
        """End the Ray that this engine started, or leave the one it joined."""
        if self._started:
            import ray

            ray.shutdown()
            self._started = False

    def local_workers(self) -> int:
        """Workers on this machine: as asked for, or one a core; one in a plain loop."""
        if self.config.local:
            return 1
        return self.config.workers or len(os.sched_getaffinity(0))

    def pool_limits(self, need: Need) -> tuple[int, int]:
        """Least and largest number of workers on the Ray that runs; ConfigError if they cannot be had."""
        import ray

        nodes = [
            Node(
                {name: amount for name, amount in node["Resources"].items() if name in {"CPU", "GPU", *need.resources}},
                {key: value for key, value in node["Labels"].items() if not key.startswith("ray.io/node-id")},
            )
            for node in ray.nodes()
            if node["Alive"]
        ]
        workers = self.config.workers if self.config.address else self.local_workers()
        return pool_limits(nodes, need, self.config.min_workers, workers)


def _checked(receipts: Iterator[Receipt]) -> Iterator[Receipt]:
    """Receipts until the storage fails a worker, or one has no stage: then the job ends with that worker's sentence."""
    for receipt in receipts:
        if receipt["unmade"]:
            raise StageError(receipt["unmade"])
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


def tasks_together(tasks: int, workers: int) -> int:
    """Clips that a worker of a stage without a model is given at a time: as many as it is given portions, at most 32.

    Ray looks for finished tasks ten times a second, so that a worker waits 0.06 s after each portion, while such a
    stage takes 0.1 s for a clip of 300 frames: one clip at a time cost 12 % of a decode-bound job. Large portions make
    workers wait for the last one; the square root balances the two.
    """
    return max(1, min(32, math.isqrt(tasks // workers)))


def _ray_data(spec: StageSpec, rows: pa.Table, need: Need, limits: tuple[int, int]) -> Iterator[Receipt]:
    import ray.data

    together = 1 if spec.keeps_weights else tasks_together(rows.num_rows, limits[1])
    dataset = ray.data.from_arrow(rows).repartition(target_num_rows_per_block=together)
    amounts = dict(need.resources)
    asked: dict[str, Any] = {
        "batch_size": together,
        "num_cpus": amounts.pop("CPU"),
        "label_selector": dict(need.labels) or None,
    }
    if spec.keeps_weights:
        least, most = limits
        # Of its own accord Ray hands a worker clips ahead, and they wait behind one that is slow while others are idle.
        pool = ray.data.ActorPoolStrategy(min_size=least, max_size=most, max_tasks_in_flight_per_actor=1)
        asked |= {"num_gpus": amounts.pop("GPU"), "resources": amounts or None}
        receipts = dataset.map_batches(ClipWorker, fn_constructor_args=(spec,), compute=pool, **asked)
    else:
        pool = ray.data.TaskPoolStrategy(size=limits[1])
        run: Any = partial(run_batch, spec)
        receipts = dataset.map_batches(run, compute=pool, **asked)
    yield from receipts.iter_rows()
