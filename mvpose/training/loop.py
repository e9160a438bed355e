"""The training loop, independent of the data source and the number of processes."""

from __future__ import annotations

import copy
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mvpose.errors import MvposeError
from mvpose.metrics import joint_errors as metrics
from mvpose.models.network_settings import FieldsMethod
from mvpose.models.objective import comparable, consistency_term, flatness_term, lifting_objective, objective
from mvpose.models.single_view.affinity_fields import limb_tree
from mvpose.models.single_view.field_network import field_objective
from mvpose.skeleton import SKELETONS
from mvpose.training.batches import Batch, GroupBatch, LiftingBatch, TrainingBatch
from mvpose.training.checkpoints import Best, Checkpoints, Position, Trained
from mvpose.training.initial_weights import build_initial
from mvpose.training.metrics_log import Meter, Report, judged_by
from mvpose.training.optimisation import (
    average_weights,
    build_optimiser,
    rate_share,
    set_rate,
    step_if_finite,
)
from mvpose.training.training_config import TrainConfig

MAX_SKIPPED = 20
"""Maximum consecutive steps without a finite gradient; after more, the training fails."""


Save = Callable[[Trained, Position], None]


class TrainingError(MvposeError):
    """A training failed."""


@dataclass(frozen=True)
class Process:
    """One process of a training."""

    rank: int = 0
    workers: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


@dataclass(frozen=True, eq=False)
class Length:
    """Length of a training."""

    total: int
    """Steps."""
    per_epoch: int


class NetworkWithLoss(nn.Module):
    """A network with its objective; maps a batch and the progress (0..1) to the terms of the loss.

    It is one module so that processes exchange the gradients of exactly the parameters that the loss uses.
    """

    def __init__(self, network: nn.Module, config: TrainConfig) -> None:
        super().__init__()
        self.network = network
        self.config = config

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Weighted terms by name; their sum is the loss."""
        if isinstance(batch, LiftingBatch):
            poses = lifted(self.network, batch, self.config)
            return lifting_objective(poses, batch.poses, batch.known, self.config.objective, progress)
        if isinstance(batch, GroupBatch):
            return field_terms(self.network, batch, self.config)
        views, method, goal = batch.present.shape[1], self.config.method, self.config.objective
        batch = as_taken(batch, self.config)
        prediction = answer(self.network, batch, self.config)
        terms = objective(prediction, batch.truth, method.size, goal, progress)
        if goal.consistency:
            share = goal.warm_up.share(progress)
            terms["flatness"] = goal.consistency * (1.0 - share) * flatness_term(prediction)
            if share:
                limbs = SKELETONS[method.skeleton].bone_indices
                term = consistency_term(prediction, batch.truth, views, method.size, limbs, goal.root[0])
                terms["consistency"] = goal.consistency * share * term
        return terms


def train_loop(
    config: TrainConfig,
    length: Length,
    batches: Callable[[Position], Iterator[Batch]],
    validation: Callable[[], Iterator[Batch]],
    process: Process,
    checkpoints: Checkpoints,
    report: Report,
    save: Save | None = None,
    leaving: Callable[[], bool] = lambda: False,
) -> Position:
    """Train from the last checkpoint to the end; return the last position, with the best figures.

    `batches(position)` gives this process's batches from a position onwards, `validation()` its share of the held-out
    samples. `report` is called in every process; only one of them should write. TrainingError if gradients stay
    non-finite. `save` keeps a checkpoint, by default in `checkpoints`, and `leaving` says that a machine is about to be
    taken away, so that one is due; both are called in every process.
    """
    save = save or checkpoints.save
    trained = begin(config, process.device)
    position = checkpoints.latest().shared_by(process.workers)
    checkpoints.load(trained, position)
    first = position.step
    upcoming, meter, skipped = batches(position), Meter(), Skipped(process.device)
    judged: nn.Module | None = None
    for step in range(first, length.total):
        requested = time.perf_counter()
        batch = next(upcoming).to(process.device)
        meter.waited += time.perf_counter() - requested
        if judged is None:
            judged = joined(NetworkWithLoss(trained.network, config), process, batch)
        seed_step(config.seed, step, process.rank)
        share = rate_share(config.optimisation, step, length.total)
        figures = one_step(judged, trained, batch, config, step, share, step / length.total)
        skipped.count(figures["gradient_norm"])
        meter.add(config.optimisation.batch, figures, share * config.optimisation.rate)
        position = replace(position, step=step + 1)
        if position.step % config.log_every == 0:
            report(
                position.step, meter.figures(length.total - position.step) | {"train/epoch": step / length.per_epoch}
            )
            skipped.check(position.step)
            meter = Meter()
        every = config.validate_every or length.per_epoch
        if position.step % every == 0 or position.step == length.total:
            skipped.check(position.step)
            figures = validate(trained.judged, validation(), config, process)
            position = _kept(position, figures, trained, save, report)
            meter = Meter()
        elif position.step % config.checkpoints.every == 0 or (position.step % config.log_every == 0 and leaving()):
            save(trained, position)
        if step == first:
            # Waiting for the first batch includes the start of its readers.
            meter = Meter()
    return position


def begin(config: TrainConfig, device: torch.device) -> Trained:
    """The network, its averaged copy and its optimiser before the first step."""
    torch.manual_seed(config.seed)
    network = build_initial(config).to(device)
    if device.type == "cuda":
        network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    averaged = copy.deepcopy(network).eval().requires_grad_(False) if config.optimisation.average else None
    if config.optimisation.compile:
        network.compile()
    return Trained(network.train(), averaged, build_optimiser(network, config.optimisation))


def as_taken(batch: TrainingBatch, config: TrainConfig) -> TrainingBatch:
    """A batch of samples as the network takes them: a monocular one takes every view alone."""
    return batch.each_view() if config.rule.one_view else batch


def answer(network: nn.Module, batch: TrainingBatch, config: TrainConfig):
    """The network's prediction, in the requested precision."""
    low = config.optimisation.precision == "bfloat16"
    with torch.autocast(batch.crops.device.type, torch.bfloat16, enabled=low):
        return network(batch.crops, batch.projections, batch.present, keep_maps=config.keeps_maps)


def field_terms(network: nn.Module, batch: GroupBatch, config: TrainConfig) -> dict[str, Float[Tensor, ""]]:
    """The objective of part affinity fields on a batch, in the requested precision."""
    method, low = config.method, config.optimisation.precision == "bfloat16"
    assert isinstance(method, FieldsMethod)
    with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=low):
        stages = network(batch.images)
    skeleton, limb_width = limb_tree(SKELETONS[method.skeleton]), method.fields.limb_width
    return field_objective(stages, batch.people, skeleton, method.size, config.objective.sigma, limb_width)


def lifted(network: nn.Module, batch: LiftingBatch, config: TrainConfig) -> Float[Tensor, "B T J 3"]:
    """The poses that a lifter gives, in the requested precision."""
    low = config.optimisation.precision == "bfloat16"
    with torch.autocast(batch.points.device.type, torch.bfloat16, enabled=low):
        return network(batch.points, batch.seen).float()


def seed_step(seed: int, step: int, rank: int) -> None:
    """Seed Python, NumPy and torch (CPU and CUDA) for one step of one process.

    The random state is then a function of the position and is not stored. A resumed training, even with another
    number of processes, makes the draws that it would have made without the interruption.
    """
    number = int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])
    random.seed(number)
    np.random.seed(number)  # noqa: NPY002 libraries may draw from the legacy generator
    torch.manual_seed(number)


def one_step(
    judged: nn.Module,
    trained: Trained,
    batch: Batch,
    config: TrainConfig,
    step: int,
    share: float,
    progress: float,
) -> dict[str, Float[Tensor, ""]]:
    """Forward, backward, clip, step, average; return the terms of the loss and the gradient norm, on the device.

    A step whose gradient is not finite is skipped. On a GPU nothing waits for the device, and the averaged weights then
    still move towards the unchanged ones.
    """
    settings = config.optimisation
    set_rate(trained.optimiser, share)
    trained.optimiser.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    parts = batch.parts(settings.accumulate)
    for i, part in enumerate(parts):
        with _exchanged(judged, last=i == len(parts) - 1):
            terms = judged(part, progress)
            loss = torch.stack(list(terms.values())).sum() / len(parts)
            loss.backward()
        for name, value in {"loss": loss * len(parts), **terms}.items():
            sums[name] = sums.get(name, 0.0) + value.detach() / len(parts)
    norm = torch.nn.utils.clip_grad_norm_(trained.network.parameters(), settings.clip or math.inf)
    if step_if_finite(trained.optimiser, norm) and trained.averaged is not None:
        average_weights(trained.averaged, trained.network, settings.average, step)
    return sums | {"gradient_norm": norm.detach()}


class Skipped:
    """Counts consecutive steps without a finite gradient, on the device."""

    def __init__(self, device: torch.device) -> None:
        self._now, self._longest = torch.zeros((), device=device), torch.zeros((), device=device)

    def count(self, norm: Float[Tensor, ""]) -> None:
        """Add a step."""
        self._now = torch.where(norm.isfinite(), 0.0, self._now + 1)
        self._longest = torch.maximum(self._longest, self._now)

    def check(self, step: int) -> None:
        """TrainingError if there were more than `MAX_SKIPPED`."""
        if (longest := int(self._longest)) > MAX_SKIPPED:
            raise TrainingError(f"no finite gradient in {longest} steps up to {step}: lower optimisation.rate.")


@torch.no_grad()
def validate(network: nn.Module, batches: Iterator[Batch], config: TrainConfig, process: Process) -> dict[str, float]:
    """MPJPE in metres over the known joints that were found, and the share found, over all processes.

    Of answers from a single view, and of lifters, relative to the root; if the objective leaves their size open, after
    the best scale (N-MPJPE). Of part affinity fields, the loss per image.
    """
    if process.workers > 1:
        # Batch statistics differ between processes. Validate with those of the first process, which are saved.
        for tensor in network.state_dict().values():
            dist.broadcast(tensor, 0)
    training = network.training
    network.eval()
    sums = torch.zeros(3, dtype=torch.float64, device=process.device)
    for batch in batches:
        sums += _judged_sums(network, batch.to(process.device), config)
    network.train(training)
    if process.workers > 1:
        dist.all_reduce(sums)
    error, found, known = sums.tolist()
    if isinstance(config.method, FieldsMethod):
        return {"validation/loss": error / max(found, 1.0)}
    mean = error / found if found else math.nan
    return {"validation/mpjpe_m": mean, "validation/valid_share": found / max(known, 1.0)}


def _judged_sums(network: nn.Module, batch: Batch, config: TrainConfig) -> Float[Tensor, "3"]:
    """Sum of errors, number of joints found, number of joints known; or of losses, and twice the number of images."""
    if isinstance(batch, GroupBatch):
        loss, images = torch.stack(list(field_terms(network, batch, config).values())).sum(), len(batch)
        return torch.stack([loss.double() * images, *[loss.new_tensor(images, dtype=torch.float64)] * 2])
    if isinstance(batch, LiftingBatch):
        errors = metrics.joint_errors(lifted(network, batch, config).double(), batch.poses.double())
        known = batch.known.sum().double()
        return torch.stack([torch.where(batch.known, errors, 0.0).sum(), known, known])
    batch = as_taken(batch, config)
    prediction, truth = answer(network, batch, config), batch.truth
    expected, counted = comparable(prediction, truth, config.objective.root)
    found, root = prediction.joints, config.objective.root
    if config.leaves_size_open:
        found, expected = metrics.fitted_scale(found, expected, root, counted)
    errors = metrics.joint_errors(found.double(), expected.double())
    return torch.stack([torch.where(counted, errors, 0.0).sum(), counted.sum().double(), truth.known.sum().double()])


def _kept(position: Position, figures: dict[str, float], trained: Trained, save: Save, report: Report) -> Position:
    """Save a checkpoint after a validation, with the best weights if these are; return the new position."""
    name = judged_by(figures)
    error = figures[name]
    beaten = math.inf if position.best is None else position.best.figures[name]
    better = math.isfinite(error) and error < beaten
    if better:
        position = replace(position, best=Best(position.step, figures))
    save(trained, position)
    report(position.step, figures | {"validation/best": float(better)})
    return position


def joined(judged: NetworkWithLoss, process: Process, batch: Batch) -> nn.Module:
    """The module with gradients averaged over all processes. `batch` shows which parameters have one."""
    if process.workers == 1:
        return judged
    devices = [process.device] if process.device.type == "cuda" else None
    return DistributedDataParallel(judged, device_ids=devices, find_unused_parameters=not all_used(judged, batch))


def all_used(judged: NetworkWithLoss, batch: Batch) -> bool:
    """Whether every trainable parameter is part of the loss in every step.

    Terms may start late (warm-up), and what a network computes need not have a term. The graph is that of a copy, at
    the beginning and at the end: looking for unused parameters goes through it in every step.
    """
    copied, batch = copy.deepcopy(judged), batch.parts(judged.config.optimisation.accumulate)[0]
    for progress in (0.0, 1.0):
        terms = copied(batch, progress)
        used = _leaves(torch.stack(list(terms.values())).sum())
        if any(parameter.requires_grad and parameter not in used for parameter in copied.parameters()):
            return False
    return True


def _leaves(loss: Float[Tensor, ""]) -> set[Tensor]:
    """The parameters from which a loss was computed."""
    found, seen = set(), set()
    open_nodes: list[Any] = [loss.grad_fn]
    while open_nodes:
        node = open_nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(node.variable)
        open_nodes += [following for following, _ in node.next_functions]
    return found


def _exchanged(judged: nn.Module, *, last: bool):
    """Exchange gradients only in the last part of a batch."""
    if isinstance(judged, DistributedDataParallel) and not last:
        return judged.no_sync()
    return torch.enable_grad()
