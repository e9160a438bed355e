"""Run a stage over tasks: in a plain loop, or on a Ray Data pool."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from mvpose.accelerator import Device, compute_device, require_gpus
from mvpose.errors import ConfigError, ResultsError, StageError
from mvpose.pipeline.capacity import ClusterNode, Need, pool_limits
from mvpose.pipeline.prometheus import counted
from mvpose.ray_session import LocalRay, ray_session, worker_environment

if TYPE_CHECKING:
    import pyarrow as pa

    from mvpose.pipeline.worker import StageSpec
    from mvpose.records import Task

ENOUGH = 5
"""Number of first clips that must raise the same error to stop the job. All clips of one unusual capture may do so too,
so in a job of several captures these clips must come from at least two."""
_NUMBERS = re.compile(r"0x[0-9a-f]+|\d+", re.IGNORECASE)


@dataclass
class FirstClips:
    """Outcomes of a stage's first clips since this start of the job, which the driver reads from their receipts.

    Decided once a clip has a result, has failed for a reason specific to it, or has raised a different error.
    """

    kind: str
    decided: bool = False
    alike: set[str] = field(default_factory=set)
    """Tracebacks with numbers removed."""
    captures: set[str] = field(default_factory=set)
    clips: int = 0

    def watched(self, receipts: Iterable[dict[str, Any]], *, several: bool) -> Iterator[dict[str, Any]]:
        """Pass receipts through; StageError once enough first clips raise the same error. `several`: more than one
        capture."""
        for receipt in receipts:
            yield receipt
            if self.decided:
                continue
            self.alike.add(_NUMBERS.sub("", str(receipt["traceback"])))
            self.captures.add(str(receipt["capture_id"]))
            self.clips += 1
            self.decided = not receipt["traceback"] or len(self.alike) > 1
            if not self.decided and self.clips >= ENOUGH and len(self.captures) > several:
                raise StageError(
                    f"{self.kind} failed with the same error on the first {self.clips} clips, so the job has stopped: "
                    f"{receipt['failure']} Once the cause is fixed, rerun the same command with --retry-failed to "
                    "retry these clips; without it they stay failed and only the others are tried."
                )


Receipt = dict[str, Any]
WORKER_ENVIRONMENT = worker_environment(
    threads=1, MALLOC_ARENA_MAX="1", MALLOC_MMAP_MAX_="0", MALLOC_TRIM_THRESHOLD_=str(2**30)
)
"""One thread per worker: two fused actors scale 1.7x on two cores. The other variables keep freed memory for the next
frames instead of returning it to the system: a clip of 300 frames of four 1080p cameras requests 100 instead of 130,000
pages, which took 1.3 of its 6.5 s of CPU time on a virtual machine; the peak is 1.3 instead of 1.4 GiB (glibc 2.36)."""


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Where and how the work runs. Results do not depend on these settings."""

    local: bool = False
    """Run in this process, without Ray."""
    address: str | None = None
    """Running Ray cluster ("auto", "ray://host:10001", ...; default: start Ray on this machine)."""
    workers: int | None = None
    """Workers per stage (default: one per core of this machine, or as many as fit on the cluster with one CPU free)."""
    min_workers: int | None = None
    """Start with this many workers and grow to `workers` as nodes join; 0 starts before any node is up (default: a
    fixed number, which must fit when a stage starts)."""
    cpus_per_worker: float = 1.0
    """CPUs reserved per worker."""
    gpus: float = 0.0
    """GPUs per worker that runs a network, reserved by Ray and used by the network. 0.25 puts four workers on a GPU;
    0 uses the CPU."""
    model_resources: Mapping[str, float] = field(default_factory=dict)
    """Custom Ray resources reserved by each worker with a model, by name."""
    model_nodes: str = ""
    """Label `key=value` (`ray start --labels`) of the nodes that decode frames and run the model."""
    other_nodes: str = ""
    """Label `key=value` of the nodes that run the stages without a model."""
    max_attempts: int = 3
    """Maximum attempts per clip: if its worker dies this often, the clip is recorded as failed."""
    clip_timeout_s: float | None = None
    """Seconds until a clip is recorded as failed (default: 10 minutes plus 2.5 s per camera and frame; once a worker
    has done three clips, 10 times the slowest of them, but at least 2 minutes)."""
    wave_clips: int = 4096
    """Clips per wave, which passes all stages before the next wave starts; captures are not split. In each wave workers
    wait for the last clip of a stage and reload the model, so a wave should last at least ten minutes; 4096 clips take
    25 MB here."""
    object_store_mib: int = 256
    """Object store of a Ray started here, in MiB. Rows are ids and receipts; frames never enter the store."""
    metrics_port: int | None = None
    """Port where Prometheus reads the metrics of Ray and the job, for a Ray started here (default: any free port)."""

    def __post_init__(self) -> None:
        for name in ("workers", "max_attempts", "wave_clips"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ConfigError(f"{name} is {value}; it must be 1 or more.")
        require_gpus(self.gpus)
        if self.cpus_per_worker <= 0:
            raise ConfigError("cpus_per_worker must be above 0.")
        if self.min_workers is not None and not 0 <= self.min_workers <= (self.workers or -1):
            raise ConfigError(
                f"min_workers is {self.min_workers}; set workers too, the maximum, and use 0 up to that number."
            )
        if self.clip_timeout_s is not None and self.clip_timeout_s <= 0:
            raise ConfigError(f"clip_timeout_s is {self.clip_timeout_s:g}; it must be above 0.")
        for name in ("model_nodes", "other_nodes"):
            if (label := getattr(self, name)) and not all(part.strip() for part in label.partition("=")):
                raise ConfigError(f"{name} is {label!r}; it must be a label `key=value`.")

    def need(self, *, with_model: bool) -> Need:
        """Requirements of a worker of a stage with or without the model."""
        label = self.model_nodes if with_model else self.other_nodes
        key, _, value = label.partition("=")
        resources = {"CPU": self.cpus_per_worker}
        if with_model:
            resources |= {"GPU": self.gpus, **self.model_resources}
        return Need(resources, {key: value} if label else {})

    def device(self, stated: Mapping[str, str | None]) -> Device:
        """Device of the networks; ConfigError if it contradicts `stated` (see `compute_device`)."""
        return compute_device(self.gpus, here=self.address is None, stated=stated)


class Engine:
    """Runs stages on the Ray that `start` starts or joins, or in a plain loop; `close` shuts down a started Ray.

    Worker logs are kept in `logs/` of `output`, if one is given.
    """

    def __init__(self, config: EngineConfig, output: str = "") -> None:
        self.config, self.output = config, output
        self._started = False
        self._session = ExitStack()
        self._first: dict[str, FirstClips] = {}

    def run(self, spec: StageSpec, tasks: list[Task], *, later: int = 0) -> Iterator[Receipt]:
        """Receipts of the tasks as they are committed, in no particular order; ResultsError if commits fail.

        StageError if the stage cannot be created, or raised the same error on its first clips over all runs by this
        engine. `later` is the number of its tasks still to come in other runs.
        """
        if not tasks:
            return iter(())
        several = later > 0 or len({task.clip.capture_id for task in tasks}) > 1
        first = self._first.setdefault(spec.kind, FirstClips(spec.kind))
        return first.watched(_checked(self._receipts(spec, tasks, later)), several=several)

    def _receipts(self, spec: StageSpec, tasks: list[Task], later: int) -> Iterator[Receipt]:
        if self.config.local:
            return _plain_loop(spec, tasks)
        from mvpose.pipeline.worker import task_rows

        self.start()
        need = self.config.need(with_model=spec.keeps_weights)
        minimum, maximum = self.pool_limits(need)
        limits = min(minimum, len(tasks)), min(maximum, len(tasks))
        receipts = _ray_data(replace(spec, replaceable=True), task_rows(tasks), need, limits)
        return counted(receipts, spec.kind, len(tasks), limits[1], later)

    def describe(self) -> str:
        """Describe where the work runs."""
        if self.config.local:
            return "in this process"
        return f"on the Ray cluster at {self.config.address}" if self.config.address else "with Ray on this machine"

    def start(self) -> None:
        """Start Ray on this machine, or join the one at `address`, unless already done (see `ray_session`)."""
        if self._started:
            return
        config = self.config
        local = LocalRay(
            cpus=int(self.local_workers() * config.cpus_per_worker) + 1,
            gpus=config.gpus,
            object_store_mib=config.object_store_mib,
            metrics_port=config.metrics_port,
        )
        self._session.enter_context(ray_session(config.address, local, WORKER_ENVIRONMENT, self.output))
        self._started = True

    def close(self) -> None:
        """Shut down the Ray that this engine started, or leave the one it joined."""
        self._session.close()
        self._started = False

    def local_workers(self) -> int:
        """Workers on this machine: as configured, or one per core; one in a plain loop."""
        if self.config.local:
            return 1
        return self.config.workers or len(os.sched_getaffinity(0))

    def pool_limits(self, need: Need) -> tuple[int, int]:
        """Minimum and maximum number of workers on the running Ray; ConfigError if they do not fit."""
        import ray

        nodes = [
            ClusterNode(
                {name: amount for name, amount in node["Resources"].items() if name in {"CPU", "GPU", *need.resources}},
                {key: value for key, value in node["Labels"].items() if not key.startswith("ray.io/node-id")},
            )
            for node in ray.nodes()
            if node["Alive"]
        ]
        workers = self.config.workers if self.config.address else self.local_workers()
        return pool_limits(nodes, need, self.config.min_workers, workers)


def _checked(receipts: Iterator[Receipt]) -> Iterator[Receipt]:
    """Pass receipts through until a worker has a storage error or no stage; the job then ends with that error."""
    for receipt in receipts:
        if receipt["unmade"]:
            raise StageError(receipt["unmade"])
        if receipt["storage_error"]:
            raise ResultsError(receipt["storage_error"])
        yield receipt


def _plain_loop(spec: StageSpec, tasks: list[Task]) -> Iterator[Receipt]:
    from mvpose.pipeline.worker import ClipWorker, task_rows

    worker = ClipWorker(spec)
    for task in tasks:
        batch = {name: column.to_numpy() for name, column in _columns(task_rows([task]))}
        receipts = worker(batch)
        yield {name: column[0] for name, column in receipts.items()}


def _columns(table: pa.Table) -> Iterator[tuple[str, pa.ChunkedArray]]:
    return zip(table.column_names, table.columns, strict=True)


def tasks_together(tasks: int, workers: int) -> int:
    """Clips per batch for a worker of a stage without a model: as many as it gets batches, at most 32.

    Ray polls for finished tasks ten times per second, so a worker waits 0.06 s after each batch, while such a stage
    takes 0.1 s for a clip of 300 frames: batches of one clip cost 12 % of a decode-bound job. Large batches make
    workers wait for the last one; the square root balances the two.
    """
    return max(1, min(32, math.isqrt(tasks // workers)))


def _ray_data(spec: StageSpec, rows: pa.Table, need: Need, limits: tuple[int, int]) -> Iterator[Receipt]:
    import ray.data

    from mvpose.pipeline.worker import ClipWorker, run_batch

    together = 1 if spec.keeps_weights else tasks_together(rows.num_rows, limits[1])
    dataset = ray.data.from_arrow(rows).repartition(target_num_rows_per_block=together)
    amounts = dict(need.resources)
    requested: dict[str, Any] = {
        "batch_size": together,
        "num_cpus": amounts.pop("CPU"),
        "label_selector": dict(need.labels) or None,
    }
    if spec.keeps_weights:
        minimum, maximum = limits
        # By default Ray queues clips at a worker in advance, where they wait behind a slow one while others are idle.
        pool = ray.data.ActorPoolStrategy(min_size=minimum, max_size=maximum, max_tasks_in_flight_per_actor=1)
        requested |= {"num_gpus": amounts.pop("GPU"), "resources": amounts or None}
        receipts = dataset.map_batches(ClipWorker, fn_constructor_args=(spec,), compute=pool, **requested)
    else:
        pool = ray.data.TaskPoolStrategy(size=limits[1])
        run: Any = partial(run_batch, spec)
        receipts = dataset.map_batches(run, compute=pool, **requested)
    yield from receipts.iter_rows()
