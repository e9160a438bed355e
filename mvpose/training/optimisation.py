"""Optimiser, learning rate schedule and weight averaging."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mvpose.errors import ConfigError
from mvpose.training.training_config import OptimisationConfig


def build_optimiser(
    network: nn.Module, config: OptimisationConfig, *, fused: bool | None = None
) -> torch.optim.Optimizer:
    """An optimiser over the trainable parameters; each group stores its full rate as `full_rate`.

    `fused`: its steps are single kernels, which skip a step on the device; by default on GPUs.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            slow = config.slow_rate is not None and not set(config.slow).isdisjoint(name.split("."))
            rate = config.slow_rate if slow and config.slow_rate is not None else config.rate
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    if not groups:
        raise ConfigError("this network has no trainable parameters: its backbone is frozen and it has no other part.")
    options = [{"params": p, "lr": r, "full_rate": r, "weight_decay": d} for (r, d), p in groups.items()]
    if fused is None:
        fused = all(parameter.is_cuda for own in groups.values() for parameter in own)
    match config.optimiser:
        case "adamw":
            return torch.optim.AdamW(options, fused=fused or None)
        case "adam":
            return torch.optim.Adam(options, fused=fused or None)
        case "sgd":
            optimiser = torch.optim.SGD(options, momentum=config.momentum, fused=fused or None)
            if fused and config.momentum:
                # Of a first step that it skips, torch (2.13) keeps a momentum that nobody has initialised.
                for parameter in (p for own in groups.values() for p in own):
                    optimiser.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
            return optimiser


def step_if_finite(optimiser: torch.optim.Optimizer, norm: Float[Tensor, ""]) -> bool:
    """Step, unless the norm of the gradient is not finite; whether a step was made, or the device decides on it."""
    if optimiser.param_groups[0]["fused"]:
        # Reading the norm would wait for the device in every step.
        optimiser.found_inf = (~norm.isfinite()).float()  # pyright: ignore[reportAttributeAccessIssue]
    elif not math.isfinite(float(norm)):
        return False
    optimiser.step()
    return True


def rate_share(config: OptimisationConfig, step: int, total: int) -> float:
    """Share of the full learning rate in step `step` (from 0) of `total`; a pure function without state."""
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
    """Set the rate of every group to this share of its full rate."""
    for group in optimiser.param_groups:
        group["lr"] = group["full_rate"] * share


@torch.no_grad()
def average_weights(averaged: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """Move the averaged weights and statistics towards the network's, faster in the first steps (from 0)."""
    keep = min(decay, (1 + step) / (10 + step))
    pairs = list(zip(averaged.state_dict().values(), network.state_dict().values(), strict=True))
    means, values = ([pair[i] for pair in pairs if pair[0].is_floating_point()] for i in range(2))
    # A few launches on a GPU in place of one for each of the hundreds of tensors; the same bits.
    torch._foreach_lerp_(means, values, 1.0 - keep)  # pyright: ignore[reportPrivateImportUsage]
    for mean, value in pairs:
        if not mean.is_floating_point():
            mean.copy_(value)
