"""The accelerator setting: `--gpus` per worker sets what Ray reserves and which device the networks use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from mvpose.errors import ConfigError

Device = Literal["cpu", "cuda"]


def require_gpus(gpus: float) -> None:
    """ConfigError unless `gpus` is 0, a fraction of a GPU, or a whole number: Ray supports no other amounts."""
    if gpus < 0 or (gpus > 1 and gpus != int(gpus)):
        raise ConfigError(f"--gpus {gpus:g}: use 0, a fraction of a GPU (0.25), or a whole number of GPUs per worker.")


def compute_device(gpus: float, *, here: bool, stated: Mapping[str, str | None] | None = None) -> Device:
    """`cuda` if a worker reserves a GPU or a fraction of one, else `cpu`.

    `stated` holds the devices in other settings, by flag; None means unset. `here` means that the work runs on this
    machine, which then needs a GPU. ConfigError names both settings if they contradict each other.
    """
    for flag, device in (stated or {}).items():
        if gpus > 0 and device == "cpu":
            raise ConfigError(f"--gpus {gpus:g} reserves a GPU, but {flag} cpu does not use it: drop one of them.")
        if gpus == 0 and device == "cuda":
            raise ConfigError(f"{flag} cuda needs a GPU, but --gpus 0 reserves none: drop {flag}, or use --gpus 1.")
    if gpus > 0 and here:
        require_cuda(gpus)
    return "cuda" if gpus > 0 else "cpu"


def require_cuda(gpus: float) -> int:
    """Number of GPUs of this machine; ConfigError if torch finds none."""
    import torch

    if not torch.cuda.is_available():
        raise ConfigError(
            f"--gpus {gpus:g} needs a GPU, but torch finds no CUDA device on this machine: use --gpus 0, or a cluster "
            "with GPUs (--address)."
        )
    return torch.cuda.device_count()


def require_no_gpus(gpus: float, work: str) -> None:
    """ConfigError if GPUs are requested for work that runs no network."""
    if gpus > 0:
        raise ConfigError(f"--gpus {gpus:g} reserves a GPU, but {work} runs no network: drop --gpus.")
