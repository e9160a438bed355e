"""Run the stages of a job over its clips and captures: in a plain loop, or on Ray."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Generator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mvpose.accelerator import Device, compute_device, require_gpus
from mvpose.errors import ConfigError, ResultsError, StageError
from mvpose.pipeline.capacity import CPUS_PER_FINISHER, ClusterNode, Need, pool_limits
from mvpose.pipeline.prometheus import counted
from mvpose.ray_session import LocalRay, ray_session, worker_environment

if TYPE_CHECKING:
    from mvpose.pipeline.open_work import OpenWork
    from mvpose.pipeline.worker import JobStages, Receipt

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

    def watch(self, receipt: Receipt, *, several: bool) -> None:
        """Look at a receipt; StageError once enough first clips raise the same error. `several`: more than one
        capture is to do."""
        if self.decided or receipt["earlier"]:
            return
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
    """Workers that decode and detect (default: one per core of this machine, or as many as fit on the cluster with a
    sixteenth of its CPUs free for the stages over captures)."""
    min_workers: int | None = None
    """Start with this many workers and grow to `workers` as nodes join; 0 starts before any node is up (default: a
    fixed number, which must fit when the job starts)."""
    cpus_per_worker: float = 1.0
    """CPUs reserved per worker. A task of the stages over captures reserves one."""
    clips_per_worker: int = 1
    """Clips that a worker does at once. On a GPU, several keep it busy while others are decoded, by as many threads as
    all of them have cameras: `mvpose benchmark gpu` says how many, and how many CPUs."""
    gpus: float = 0.0
    """GPUs per worker that runs a network, reserved by Ray and used by the network. 0.25 puts four workers on a GPU;
    0 uses the CPU."""
    model_resources: Mapping[str, float] = field(default_factory=dict)
    """Custom Ray resources reserved by each worker with a model, by name."""
    model_nodes: str = ""
    """Label `key=value` (`ray start --labels`) of the nodes that decode frames and run the model."""
    other_nodes: str = ""
    """Label `key=value` of the nodes that run the stages over captures."""
    max_attempts: int = 3
    """Maximum attempts per clip: if its worker dies this often, the clip is recorded as failed."""
    clip_timeout_s: float | None = None
    """Seconds until a clip is recorded as failed (default: 10 minutes plus 2.5 s per camera and frame; once a worker
    has done three clips, 10 times the slowest of them, but at least 2 minutes)."""
    object_store_mib: int = 256
    """Object store of a Ray started here, in MiB. Rows are ids and receipts; frames never enter the store."""
    metrics_port: int | None = None
    """Port where Prometheus reads the metrics of Ray and the job, for a Ray started here (default: any free port)."""

    def __post_init__(self) -> None:
        for name in ("workers", "max_attempts", "clips_per_worker"):
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
        """Requirements of a worker with or without the model."""
        resources = {"CPU": self.cpus_per_worker}
        if with_model:
            resources |= {"GPU": self.gpus, **self.model_resources}
        return Need(resources, _labels(self.model_nodes if with_model else self.other_nodes))

    @property
    def finisher(self) -> Need:
        """Requirements of a task of the stages over captures, which compute in one thread."""
        return Need({"CPU": 1.0}, _labels(self.other_nodes))

    def device(self, stated: Mapping[str, str | None]) -> Device:
        """Device of the networks; ConfigError if it contradicts `stated` (see `compute_device`)."""
        return compute_device(self.gpus, here=self.address is None, stated=stated)


def _in_one_thread(receipts: Generator[Receipt]) -> Generator[Receipt]:
    """With torch in one thread, as in Ray's workers: the last bits of a convolution depend on the number of threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from receipts
    finally:
        torch.set_num_threads(before)


def _labels(label: str) -> dict[str, str]:
    key, _, value = label.partition("=")
    return {key: value} if label else {}


class Engine:
    """Runs stages on the Ray that `start` starts or joins, or in a plain loop; `close` shuts down a started Ray.

    Worker logs are kept in `logs/` of `output`, if one is given.
    """

    def __init__(self, config: EngineConfig, output: str = "") -> None:
        self.config, self.output = config, output
        self._started = False
        self._session = ExitStack()

    def run(self, stages: JobStages, work: OpenWork) -> Generator[Receipt]:
        """Receipts of all stages as their results are committed, in no particular order; ResultsError if commits fail.

        StageError if a stage cannot be created, or raised the same error on its first clips.
        """
        several = {spec.kind: sum(map(bool, work.clips_left.values())) > 1 for spec in stages.of_clips}
        several |= {spec.kind: len(work.clips_left) > 1 for spec in stages.of_captures}
        first = {kind: FirstClips(kind) for kind in several}
        if not work.clips_left:
            return
        with closing(self._receipts(stages, work)) as receipts:
            for receipt in receipts:
                yield receipt
                first[receipt["stage"]].watch(receipt, several=several[receipt["stage"]])

    def _receipts(self, stages: JobStages, work: OpenWork) -> Generator[Receipt]:
        if self.config.local:
            from mvpose.pipeline.one_pass import plain_loop

            return _in_one_thread(_checked(plain_loop(stages, work)))
        self.start()
        from mvpose.pipeline.ray_pass import ray_pass

        pool = self.config.need(with_model=True)
        limits = self.pool_limits(pool, self.config.finisher)
        replaceable = stages.changed(lambda spec: replace(spec, replaceable=True))
        receipts = ray_pass(replaceable, work, pool, limits, self.config.finisher, self.config.clips_per_worker)
        return counted(_checked(receipts), stages, work, limits[1])

    def describe(self) -> str:
        """Describe where the work runs."""
        if self.config.local:
            return "in this process"
        return f"on the Ray cluster at {self.config.address}" if self.config.address else "with Ray on this machine"

    def start(self) -> None:
        """Start Ray on this machine, or join the one at `address`, unless already done (see `ray_session`)."""
        if self._started:
            return
        config, workers = self.config, self.local_workers()
        local = LocalRay(
            cpus=math.ceil(workers * config.cpus_per_worker) + max(1, workers // CPUS_PER_FINISHER),
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

    def pool_limits(self, need: Need, beside: Need | None = None) -> tuple[int, int]:
        """Minimum and maximum number of workers on the running Ray; ConfigError if they do not fit.

        A task that needs `beside` can always run next to them.
        """
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
        return pool_limits(nodes, need, self.config.min_workers, workers, beside)


def _checked(receipts: Generator[Receipt]) -> Generator[Receipt]:
    """Pass receipts through until a worker has a storage error or no stage; the job then ends with that error.

    What runs is stopped at once, not when the error and its traceback are gone: Ray may be shut down by then.
    """
    with closing(receipts):
        for receipt in receipts:
            if receipt["unmade"]:
                raise StageError(receipt["unmade"])
            if receipt["storage_error"]:
                raise ResultsError(receipt["storage_error"])
            yield receipt
