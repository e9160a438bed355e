"""The machine that figures are measured on."""

from __future__ import annotations

import os
import platform
from typing import Any

import torch


def machine(device: str) -> dict[str, Any]:
    """Processor, threads, load and versions that figures are of."""
    return {
        "processor": torch.cuda.get_device_name() if device != "cpu" else _processor(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def peak_mib(pid: int | None = None) -> float:
    """The most memory that a process has held, this one without `pid`; not `ru_maxrss`, since a child is born with its
    parent's. FileNotFoundError if it has ended, ValueError if it is a zombie."""
    with open(f"/proc/{pid or 'self'}/status") as file:
        (line,) = (line for line in file if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def _processor() -> str:
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            named = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
        if named:
            return named[0]
    return platform.machine()
