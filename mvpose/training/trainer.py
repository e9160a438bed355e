"""Distributed training: Ray Data reads and augments samples, Ray Train runs the loop and replaces lost workers.

Workers and the driver may be killed, so all of them must agree on the position in the data. The order of the samples
therefore depends only on seed and epoch (`mvpose.training.order`), and Ray Data does not shuffle. Its dataset lists the
remaining *takes*, one per row. A take is the set of samples that one worker reads for one step. `streaming_split`
distributes the blocks round-robin in their order, so worker w of W gets the takes w, W + w, ... Ray Train receives the
dataset as a function. It calls the function again whenever it restarts the workers, and the new dataset starts after
the last checkpoint.

Checkpoints have this package's own format and are stored in the output folder, as without Ray. A run started on Ray can
therefore be resumed without it and vice versa, and Ray's own folder in the output can be deleted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import ray.data
import ray.train
import torch.distributed as dist
from ray.exceptions import RayError
from ray.train import DataConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from mvpose.ray_session import LocalRay, ray_session
from mvpose.storage.locations import absolute, join
from mvpose.tracking import system_figures
from mvpose.training.batches import Batch, batch_of
from mvpose.training.checkpoints import Checkpoints
from mvpose.training.feed import Feed
from mvpose.training.loop import Length, Process, TrainingError, train_loop
from mvpose.training.metrics_log import Journal, Report, validated
from mvpose.training.training_config import ComputeConfig, TrainConfig

POLL_SECONDS = 1.0
PREFETCHED = 2
"""Batches that a worker prefetches."""


@dataclass(frozen=True)
class Job:
    """The input of the workers."""

    config: TrainConfig
    output: str

    @property
    def checkpoints(self) -> Checkpoints:
        """The checkpoints of this training."""
        return Checkpoints(join(self.output, "checkpoints"), self.config.checkpoints.keep)


def train_on_ray(config: TrainConfig, output: str, report: Report) -> None:
    """Train to the end on a Ray cluster or a local Ray; checkpoints, journal and logs are written to `output`.

    `report` is called in this thread. TrainingError if workers were lost too often or the training failed.
    """
    job = Job(config.located(), absolute(output))
    compute = config.compute
    with ray_session(compute.address, local_ray(compute), compute.environment, job.output):
        _follow(_trainer(job).fit, Journal(job.output), report)


def _trainer(job: Job) -> TorchTrainer:
    compute = job.config.compute
    options = ray.data.ExecutionOptions(preserve_order=True)
    return TorchTrainer(
        train_worker,
        train_loop_config={"job": job},
        scaling_config=scaling(compute),
        torch_config=TorchConfig(backend="nccl" if compute.gpus > 0 else "gloo"),
        run_config=RunConfig(
            name="ray", storage_path=job.output, failure_config=FailureConfig(max_failures=compute.max_failures)
        ),
        datasets={"train": partial(remaining_takes, job)},
        dataset_config=DataConfig(execution_options=options, enable_shard_locality=False),
    )


def scaling(compute: ComputeConfig) -> ScalingConfig:
    """Resources that Ray Train reserves for the workers. A worker uses the GPU assigned to it."""
    gpus = {"GPU": compute.gpus} if compute.gpus > 0 else {}
    return ScalingConfig(
        num_workers=compute.workers,
        use_gpu=compute.gpus > 0,
        resources_per_worker={"CPU": compute.cpus_per_worker, **gpus},
    )


def remaining_takes(job: Job) -> ray.data.Dataset:
    """The samples from the last checkpoint to the end: one block per take, ordered by step and worker."""
    config = job.config
    feed = Feed.open(config)
    workers, first = config.compute.workers, job.checkpoints.latest().step
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    # A take must stay one block, however large its crops are, because Ray distributes blocks.
    context.target_max_block_size = None
    takes = ray.data.range((feed.total_steps - first) * workers).repartition(target_num_rows_per_block=1)
    return takes.map_batches(
        TakeMaker,
        fn_constructor_args=(job, first),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=max(config.compute.loaders, 1)),
        num_cpus=1,
    )


class TakeMaker:
    """Map take numbers to samples; called by Ray Data."""

    def __init__(self, job: Job, first: int) -> None:
        feed = Feed.open(job.config)
        self._order, self._first, self._workers = feed.order, first, job.config.compute.workers
        self._reader = feed.reader(training=True)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The samples of one take, with a column of its step."""
        step, rank = divmod(int(batch["id"][0]), self._workers)
        take = self._order.take(self._first + step, rank, self._workers)
        columns = self._reader[take]
        return {**columns, "step": np.full(len(take.rows), take.step)}


def train_worker(settings: dict[str, Any]) -> None:
    """The function of one worker. After the loss of a worker, all restart from the last checkpoint."""
    job: Job = settings["job"]
    config, context = job.config, ray.train.get_context()
    process = Process(context.get_world_rank(), context.get_world_size(), get_device())
    feed = Feed.open(config)
    journal = Journal(job.output)
    if process.rank == 0:
        journal.rewind(job.checkpoints.latest().step)

    def on_figures(step: int, figures: dict[str, float]) -> None:
        system = {} if validated(figures) else system_of_workers(process)
        if process.rank == 0:
            journal.write(step, figures | system)
        if validated(figures):
            ray.train.report({"step": step, **figures})

    length = Length(feed.total_steps, feed.order.steps_per_epoch)
    validation = partial(feed.validation_batches, process.rank, process.workers)
    train_loop(config, length, partial(shard_batches, config), validation, process, job.checkpoints, on_figures)


def system_of_workers(process: Process) -> dict[str, float]:
    """Load of each worker's machine, as `system/worker_RANK/NAME`. Every worker calls it at the same step."""
    found: list[Any] = [system_figures()]
    if process.workers > 1:
        own, found = found[0], [None] * process.workers
        dist.all_gather_object(found, own)
    return {
        f"system/worker_{rank}/{name.removeprefix('system/')}": value
        for rank, figures in enumerate(found)
        for name, value in figures.items()
    }


def shard_batches(config: TrainConfig, start: int) -> Iterator[Batch]:
    """This worker's share of the dataset from step `start`. Earlier steps are skipped: the dataset may start before the
    last checkpoint."""
    shard = ray.train.get_dataset_shard("train")
    assert shard is not None
    size = config.optimisation.batch // config.compute.workers
    for columns in shard.iter_torch_batches(batch_size=size, prefetch_batches=PREFETCHED, device="cpu"):
        if int(columns.pop("step")[0]) >= start:
            yield batch_of(columns)


def _follow(fit: Callable[[], object], journal: Journal, report: Report) -> None:
    """Run a training in a thread and report the journal's lines, each once even if this process dies and is rerun."""
    ended: list[Exception | None] = []

    def run() -> None:
        try:
            fit()
            ended.append(None)
        except (ray.train.TrainingFailedError, RayError) as error:
            ended.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while True:
        last = not thread.is_alive()
        for line in journal.unreported():
            report(line["step"], {name: v for name, v in line.items() if name != "step" and v is not None})
            journal.mark_reported(line)
        if last:
            break
        time.sleep(POLL_SECONDS)
    if not ended:
        raise TrainingError("the training on Ray ended without a result.")
    if ended[0] is not None:
        raise TrainingError(f"the training on Ray failed: {str(ended[0]).strip().splitlines()[-1]}") from ended[0]


def local_ray(compute: ComputeConfig) -> LocalRay:
    """A local Ray for one training, with one CPU more than workers and loaders need."""
    cpus = int(compute.workers * compute.cpus_per_worker) + max(compute.loaders, 1) + 1
    return LocalRay(cpus=cpus, gpus=compute.gpus)
