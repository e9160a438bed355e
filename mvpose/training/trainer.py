"""Distributed training: Ray Train runs the loop in several workers and replaces lost ones.

Workers and the driver may be killed, so all of them must agree on the position in the data. The order of the samples
therefore depends only on seed, epoch and the number of workers (`mvpose.training.order`). Each worker reads its own
share of the table, in loader processes beside it (`mvpose.training.loading`): Ray Data would hand any row group to any
process, and each of them would read most of the table.

Checkpoints have this package's own format and are stored in the output folder, as without Ray. A thread writes them,
and Ray gets files that name them: a run started on Ray can be resumed without it and vice versa, and Ray's own folder
in the output can be deleted. The number of workers may be a range. Ray then starts as many as there is room for, and
starts them again from the last checkpoint when machines come or go: batches keep their size, and the epoch continues
with the samples that it has not used.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import ray.train
import torch.distributed as dist
from ray.exceptions import RayError
from ray.train import Checkpoint, CheckpointConfig, CheckpointUploadMode, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from mvpose.ray_session import LocalRay, ray_session
from mvpose.storage.locations import absolute, join
from mvpose.tracking import system_figures
from mvpose.training.batches import Batch
from mvpose.training.checkpoints import Checkpoints, Position, Trained
from mvpose.training.feed import Feed
from mvpose.training.loop import Length, Process, TrainingError, train_loop
from mvpose.training.metrics_log import Journal, Report, validated
from mvpose.training.training_config import ComputeConfig, TrainConfig

POLL_SECONDS = 1.0


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
    return TorchTrainer(
        train_worker,
        train_loop_config={"job": job},
        scaling_config=scaling(compute),
        torch_config=TorchConfig(backend="nccl" if compute.gpus > 0 else "gloo"),
        run_config=RunConfig(
            name="ray",
            storage_path=job.output,
            failure_config=FailureConfig(max_failures=compute.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=job.config.checkpoints.keep),
        ),
    )


def scaling(compute: ComputeConfig) -> ScalingConfig:
    """Resources that Ray Train reserves for the workers and their loaders. A worker uses the GPU assigned to it."""
    gpus = {"GPU": compute.gpus} if compute.gpus > 0 else {}
    elastic = compute.min_workers < compute.max_workers
    return ScalingConfig(
        num_workers=(compute.min_workers, compute.max_workers) if elastic else compute.min_workers,
        use_gpu=compute.gpus > 0,
        resources_per_worker={"CPU": compute.cpus_per_worker + compute.loaders, **gpus},
    )


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

    def save(trained: Trained, position: Position) -> None:
        report_checkpoint(job, process, trained, position)

    length = Length(feed.total_steps, feed.order.steps_per_epoch)
    validation = partial(feed.validation_batches, process.rank, process.workers)

    def batches(position: Position) -> Iterator[Batch]:
        return feed.batches(position.step, process.rank, position.splits)

    train_loop(config, length, batches, validation, process, job.checkpoints, on_figures, save, preemption_notices())


def report_checkpoint(job: Job, process: Process, trained: Trained, position: Position) -> None:
    """Write a checkpoint in a thread, and report it to Ray when it is complete. Every worker calls it at the same step.

    What Ray keeps is a file that names the checkpoint. Training goes on as soon as the state is copied.
    """
    figures = {"step": position.step, **(position.best.figures if position.best else {})}
    if process.rank:
        ray.train.report(figures, checkpoint_upload_mode=CheckpointUploadMode.ASYNC)
        return
    checkpoints = job.checkpoints
    storage: Any = ray.train.get_context().get_storage()
    files, folder = checkpoints.content(trained, position), tempfile.mkdtemp()
    with open(os.path.join(folder, "checkpoint.json"), "w") as file:
        json.dump({"folder": checkpoints.folder, "step": position.step}, file)

    def upload(pointer: Checkpoint, name: str) -> Checkpoint:
        checkpoints.write(files, position)
        return storage.persist_current_checkpoint(pointer, name)

    ray.train.report(
        figures,
        checkpoint=Checkpoint.from_directory(folder),
        checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
        checkpoint_upload_fn=upload,
    )


def preemption_notices() -> Callable[[], bool]:
    """A function that says whether more machines of the training are about to be taken away than it said before.

    Ray hears of it from the cloud's drain notices and restarts the workers when the machine goes, which does not count
    as a failure. All workers call it at the same step.
    """
    known: set[str] = set()

    def leaving() -> bool:
        notice = ray.train.get_preemption_info()
        nodes = set(notice.preempted_node_ids) - known if notice else set()
        known.update(nodes)
        return bool(nodes)

    return leaving


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
    cpus = math.ceil(compute.max_workers * (compute.cpus_per_worker + compute.loaders)) + 1
    return LocalRay(cpus=cpus, gpus=compute.gpus)
