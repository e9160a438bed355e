"""How weights move: optimiser, learning rate over time, averaged weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from mvpose.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class OptimisationConfig:
    """Optimiser, schedule and length of a training."""

    optimiser: Literal["adamw", "adam", "sgd"] = "adamw"
    rate: float = 1e-3
    """Learning rate."""
    slow_rate: float | None = None
    """Learning rate of the parts named in `slow`; empty for the same as the others."""
    slow: tuple[str, ...] = ("backbone",)
    """Parts of the network, by the names of its modules."""
    weight_decay: float = 1e-4
    """Not on biases and normalisations."""
    momentum: float = 0.9
    """Of SGD."""
    batch: int = 32
    """Samples a step, over all workers."""
    accumulate: int = 1
    """Parts that a worker's share is computed in, one after the other, for less memory."""
    epochs: int = 50
    steps: int = 0
    """Steps instead of epochs."""
    schedule: Literal["constant", "step", "cosine"] = "cosine"
    rise: int = 500
    """Steps over which the rate rises from 0, at most a tenth of all."""
    drops: tuple[float, ...] = (0.6, 0.85)
    """Of the schedule `step`: progress (0..1) at which the rate is divided by ten."""
    clip: float = 10.0
    """Largest norm of the gradient; 0 does not clip."""
    average: float = 0.999
    """Decay of the averaged weights (EMA), which are validated and kept; 0 does without."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 runs networks under autocast; weights, geometry and losses stay in float32."""

    def __post_init__(self) -> None:
        if min(self.batch, self.accumulate) < 1 or self.rate <= 0 or (self.epochs < 1 and self.steps < 1):
            raise ConfigError("optimisation needs a batch, a part and an epoch of 1 or more, and a rate above 0.")
        if not 0 <= self.average < 1:
            raise ConfigError(f"optimisation.average is {self.average}; it is a decay from 0 to below 1.")

    def total_steps(self, steps_per_epoch: int) -> int:
        """Length of the training."""
        return self.steps or self.epochs * steps_per_epoch


def build_optimiser(network: nn.Module, config: OptimisationConfig) -> torch.optim.Optimizer:
    """An optimiser over what is to be trained; each group remembers its full rate as `full_rate`."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            slow = config.slow_rate is not None and not set(config.slow).isdisjoint(name.split("."))
            rate = config.slow_rate if slow and config.slow_rate is not None else config.rate
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    if not groups:
        raise ConfigError("nothing of this network is to be trained: its backbone is frozen and it has no other part.")
    options = [{"params": p, "lr": r, "full_rate": r, "weight_decay": d} for (r, d), p in groups.items()]
    match config.optimiser:
        case "adamw":
            return torch.optim.AdamW(options)
        case "adam":
            return torch.optim.Adam(options)
        case "sgd":
            return torch.optim.SGD(options, momentum=config.momentum)


def rate_share(config: OptimisationConfig, step: int, total: int) -> float:
    """Share of the full learning rate in step `step` (from 0) of `total`: a function of the step, so without state."""
    rise = min(config.rise, total // 10)
    if step < rise:
        return (step + 1) / rise
    progress = (step - rise) / max(total - rise, 1)
    match config.schedule:
        case "constant":
            return 1.0
        case "step":
            return 0.1 ** sum(step / total >= drop for drop in config.drops)
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * progress))


def set_rate(optimiser: torch.optim.Optimizer, share: float) -> None:
    """Give every group its share of its full rate."""
    for group in optimiser.param_groups:
        group["lr"] = group["full_rate"] * share


@torch.no_grad()
def average_weights(averaged: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Move the averaged weights and statistics towards the network's, faster in the first steps (from 0)."""
    keep = min(decay, (1 + step) / (10 + step))
    for mean, value in zip(averaged.state_dict().values(), network.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1.0 - keep)
        else:
            mean.copy_(value)
