"""Environment of a run: versions, commit, machine, load."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import distributions
from typing import Any

import psutil


def environment() -> dict[str, object]:
    """Return Python, platform, cores, memory, GPUs, and the version of every installed package."""
    import torch

    packages = {d.name: d.version for d in distributions() if d.name}
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "memory_mib": psutil.virtual_memory().total // 2**20,
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "packages": dict(sorted(packages.items())),
    }


def commit() -> str:
    """Git commit of the running code, with `+changes` if the working tree differs; empty outside a repository.

    An image without git names its commit in `MVPOSE_COMMIT`.
    """
    if stated := os.environ.get("MVPOSE_COMMIT"):
        return stated
    here = os.path.dirname(os.path.abspath(__file__))
    head, changes = (_git(here, *words) for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "-uno")))
    return f"{head}+changes" if head and changes else head


def system_figures() -> dict[str, float]:
    """Load of this machine since the last call, under the names that MLflow's system metrics page expects.

    GPU memory is that of this process's PyTorch; utilisation requires the NVML bindings.
    """
    import torch

    memory = psutil.virtual_memory()
    figures = {
        "system/cpu_utilization_percentage": psutil.cpu_percent(),
        "system/system_memory_usage_megabytes": memory.used / 1e6,
        "system/system_memory_usage_percentage": memory.percent,
        "system/process_memory_megabytes": psutil.Process().memory_info().rss / 1e6,
    }
    for i in range(torch.cuda.device_count()):
        figures[f"system/gpu_{i}_memory_usage_megabytes"] = torch.cuda.max_memory_allocated(i) / 1e6
        try:
            figures[f"system/gpu_{i}_utilization_percentage"] = float(torch.cuda.utilization(i))
        except ModuleNotFoundError:
            continue
    return figures


def _git(folder: str, *words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, timeout=10)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def machine(device: str) -> dict[str, Any]:
    """Return processor, threads, load and versions, to qualify benchmark figures."""
    import torch

    return {
        "processor": torch.cuda.get_device_name() if device != "cpu" else _processor(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def peak_mib(pid: int | None = None) -> float:
    """Peak memory of a process in MiB, by default this one. `ru_maxrss` is unsuitable: a child inherits its parent's.
    FileNotFoundError if it has ended, ValueError if it is a zombie."""
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
