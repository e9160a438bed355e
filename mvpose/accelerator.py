"""One knob for the accelerator: `--gpus`, per worker, is what Ray reserves and decides what the networks compute on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from mvpose.errors import ConfigError

Device = Literal["cpu", "cuda"]


def require_gpus(gpus: float) -> None:
    """ConfigError unless it is 0, a share of a GPU, or a whole number: Ray reserves no other amounts."""
    if gpus < 0 or (gpus > 1 and gpus != int(gpus)):
        raise ConfigError(f"--gpus {gpus:g}: name 0, a share of a GPU (0.25), or a whole number of GPUs per worker.")


def compute_device(gpus: float, *, here: bool, stated: Mapping[str, str | None] | None = None) -> Device:
    """`cuda` where a worker reserves a GPU or a share of one, else `cpu`.

    `stated` holds devices that other settings name, by flag; None states nothing. `here` means that the work runs on
    this machine, which then needs a GPU. ConfigError names both settings where two contradict each other.
    """
    for flag, device in (stated or {}).items():
        if gpus > 0 and device == "cpu":
            raise ConfigError(f"--gpus {gpus:g} reserves a GPU and {flag} cpu computes without it: drop one of them.")
        if gpus == 0 and device == "cuda":
            raise ConfigError(
                f"{flag} cuda computes on a GPU and --gpus 0 reserves none: drop {flag}, or use --gpus 1."
            )
    if gpus > 0 and here:
        require_cuda(gpus)
    return "cuda" if gpus > 0 else "cpu"


def require_cuda(gpus: float) -> int:
    """The number of GPUs of this machine; ConfigError where torch finds none."""
    import torch

    if not torch.cuda.is_available():
        raise ConfigError(
            f"--gpus {gpus:g} asks for a GPU and torch finds no CUDA device on this machine: use --gpus 0, or a "
            "cluster with GPUs (--address)."
        )
    return torch.cuda.device_count()


def require_no_gpus(gpus: float, work: str) -> None:
    """ConfigError where GPUs are asked for by work that runs no network."""
    if gpus > 0:
        raise ConfigError(f"--gpus {gpus:g} reserves a GPU, but {work} runs no network: drop --gpus.")
