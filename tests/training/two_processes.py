"""What each of two processes of a training does: run by `test_distributed.py`, which does the same in one process.

Weights and truth are float64. Statistics of normalisation layers are frozen in training steps: they are each process's
own.
"""

import os
import subprocess
import sys
from dataclasses import replace

import torch
import torch.distributed as dist
import torch.multiprocessing

from mvpose.models.objective import ObjectiveConfig
from mvpose.models.objective_settings import WarmUp
from mvpose.training.batches import TrainingBatch
from mvpose.training.checkpoints import Trained
from mvpose.training.feed import Feed
from mvpose.training.loop import NetworkWithLoss, Process, begin, joined, one_step, validate
from mvpose.training.trainer import system_of_workers
from mvpose.training.training_config import NONE, TrainConfig
from tests.training.test_training_run import TINY

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WORKERS, BATCH, STEPS = 2, 8, 3
UNEVEN, IN_PARTS = "uneven", "in parts"


def settings(table: str, accumulate: int = 1) -> TrainConfig:
    """Every term counts from the first step; momentum and averaging carry a wrong gradient on."""
    optimisation = replace(TINY.optimisation, batch=BATCH, optimiser="sgd", rate=1e-2, clip=1.0, accumulate=accumulate)
    goal = ObjectiveConfig(heatmaps=1.0, warm_up=WarmUp(start=0.0, full=0.1))
    return replace(TINY, data=table, augmentation=NONE, objective=goal, optimisation=optimisation)


def batch_of(feed: Feed, step: int, process: Process, uneven: bool) -> TrainingBatch:
    """The share of one process in a step. If `uneven`, most labels of its first samples are missing."""
    whole = feed.order.take(step)
    columns = {name: torch.from_numpy(array) for name, array in feed.reader(training=True)[whole].items()}
    if uneven:
        for name in ("known", "inside", "before"):
            columns[name][::WORKERS] &= torch.rand(columns[name][::WORKERS].shape, generator=seeded()) < 0.3
    mine = {name: value[process.rank :: process.workers] for name, value in columns.items()}
    return TrainingBatch.of({n: v.double() if v.is_floating_point() else v for n, v in mine.items()})


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def doubled(trained: Trained) -> Trained:
    for network in (trained.network, trained.averaged):
        if network is not None:
            network.double().eval()
            network.register_forward_pre_hook(lambda _, inputs: (inputs[0].double() / 255, *inputs[1:]))
    return trained


def trained_steps(table: str, process: Process, kind: str) -> dict[str, torch.Tensor]:
    """Gradients of the first step, weights and averages after the last, by name."""
    config = settings(table, accumulate=2 if kind == IN_PARTS and process.workers > 1 else 1)
    feed, trained = Feed.open(config), doubled(begin(config, process.device))
    first = batch_of(feed, 0, process, uneven=kind == UNEVEN)
    judged = joined(NetworkWithLoss(trained.network, config), process, first)
    found = {}
    for step in range(STEPS):
        batch = batch_of(feed, step, process, uneven=kind == UNEVEN)
        one_step(judged, trained, batch, config, step, 1.0, (step + 1) / STEPS)
        if step == 0:
            gradients = {n: p.grad for n, p in trained.network.named_parameters()}
            found |= {f"gradient/{n}": g.clone() for n, g in gradients.items() if g is not None}
    assert trained.averaged is not None
    found |= {f"weight/{n}": p.detach() for n, p in trained.network.named_parameters()}
    return found | {f"average/{n}": p.detach() for n, p in trained.averaged.named_parameters()}


def validated(table: str, process: Process) -> dict[str, float]:
    """Validation of a network whose weights and statistics differ between processes, on an odd number of samples."""
    config = settings(table)
    feed, trained = Feed.open(config), begin(config, process.device)
    feed = replace(feed, validation_rows=feed.validation_rows[:7])
    for tensor in trained.network.state_dict().values():
        tensor.add_(process.rank)
    batches = feed.validation_batches(process.rank, process.workers)
    return validate(trained.network, batches, config, process)


def work(rank: int, table: str, folder: str) -> None:
    """One process; leaves what it found in `folder`."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=WORKERS)
    process = Process(rank, WORKERS)
    found = {kind: trained_steps(table, process, kind) for kind in (UNEVEN, IN_PARTS)}
    torch.save(
        {**found, "validated": validated(table, process), "system": system_of_workers(process)},
        os.path.join(folder, f"{rank}.pt"),
    )
    dist.destroy_process_group()


def run_both(table: str, folder: str) -> list[dict]:
    """What the two processes found. They are forked from one that has imported what they need, in 6 s of CPU time."""
    subprocess.run([sys.executable, "-m", __name__, table, folder], check=True, cwd=REPOSITORY)
    return [torch.load(os.path.join(folder, f"{rank}.pt")) for rank in range(WORKERS)]


if __name__ == "__main__":
    import torch._dynamo  # by the first optimiser of a process, if not here

    torch.multiprocessing.start_processes(work, tuple(sys.argv[1:]), nprocs=WORKERS, start_method="fork")
