"""How many workers fit on a cluster, checked before a job starts: a pool that does not fit would hang Ray."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mvpose.errors import ConfigError

CPUS_PER_FINISHER = 16
"""One CPU of so many is left to the stages over captures, if the size of the pool is not given: they take 1.4 s of a
core for 10 s of four cameras, of which decoding and detecting take 54 s with the default detector (measured)."""


@dataclass(frozen=True)
class ClusterNode:
    """Resources and labels of a cluster node."""

    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Need:
    """Resources and labels that one worker requires of its node."""

    resources: Mapping[str, float]
    """Amounts by Ray's resource names: CPU, GPU, and custom ones."""
    labels: Mapping[str, str] = field(default_factory=dict)

    def fits(self, node: ClusterNode) -> int:
        """Number of workers that fit on a node."""
        if any(node.labels.get(key) != value for key, value in self.labels.items()):
            return 0
        requested = {name: amount for name, amount in self.resources.items() if amount > 0}
        return min(math.floor(node.resources.get(name, 0.0) / amount + 1e-9) for name, amount in requested.items())

    def __str__(self) -> str:
        requested = [f"{amount:g} {name}" for name, amount in self.resources.items() if amount > 0]
        return ", ".join(requested + [f"label {key}={value}" for key, value in self.labels.items()])


ONE_CPU = Need({"CPU": 1.0})


def pool_limits(
    nodes: Sequence[ClusterNode], need: Need, minimum: int | None, maximum: int | None, beside: Need | None = None
) -> tuple[int, int]:
    """Minimum and maximum size of a pool; ConfigError if it does not fit on the cluster, or would use every CPU.

    Without `minimum` the size is fixed: `maximum`, or as many workers as fit. With it, only `minimum` workers have to
    fit now (none if it is 0), and the pool grows up to `maximum` as nodes join. Wherever Ray places the workers, one
    task that needs `beside` (default: one CPU) still fits: a pool that takes all CPUs holds up everything else until it
    ends, and hangs Ray Data where that has tasks of its own (measured; ray-project/ray#44687). If `beside` is given, a
    pool without `maximum` leaves a sixteenth of the CPUs to such tasks.
    """
    cpus = sum(node.resources.get("CPU", 0.0) for node in nodes)
    room = sum(need.fits(node) for node in nodes)
    blocking = [_blocking(node, need, beside or ONE_CPU) for node in nodes if (beside or ONE_CPU).fits(node)]
    largest = max(0, int(min(room, sum(blocking) - 1))) if blocking else 0
    requested = maximum if minimum is None else minimum
    if room == 0 and requested != 0:
        raise ConfigError(
            f"no node of the cluster has room for a worker, which needs {need}; the nodes are {_text(nodes)}."
        )
    if not blocking and requested != 0:
        raise ConfigError(
            f"no node of the cluster has room for the stages over captures, which need {beside or ONE_CPU}; the nodes "
            f"are {_text(nodes)}."
        )
    if requested is None:
        left = max(1.0, cpus // CPUS_PER_FINISHER) if beside else 1.0
        requested = max(1, min(largest, math.floor((cpus - left) / need.resources["CPU"] + 1e-9)))
    if requested > largest:
        raise ConfigError(
            f"{requested} workers of {need} do not fit: one CPU must stay free, and the cluster then has room for "
            f"{largest} ({_text(nodes)}): use fewer workers, or add nodes."
        )
    if minimum is None or maximum is None:
        return requested, requested
    if maximum > largest and blocking and math.isfinite(sum(blocking)):
        raise ConfigError(
            f"a pool that grows to {maximum} workers of {need} would take every CPU of this cluster ({_text(nodes)}), "
            "and one must stay free. To keep workers off one node, set model_nodes or model_resources, or use more "
            "GPUs or CPUs per worker."
        )
    return max(1, minimum), maximum


def _blocking(node: ClusterNode, need: Need, beside: Need) -> float:
    """The number of workers that leave no room on a node for a task that needs `beside`; infinite if none can."""
    free = node.resources["CPU"] - beside.resources["CPU"]
    number = math.floor(free / need.resources["CPU"] + 1e-9) + 1
    return float(number) if number <= need.fits(node) else math.inf


def _text(nodes: Sequence[ClusterNode]) -> str:
    """Describe the nodes; identical ones are counted."""
    words = [
        " ".join([*(f"{node.resources[r]:g} {r}" for r in sorted(node.resources)), *_labels(node)]) for node in nodes
    ]
    return "; ".join(f"{words.count(word)} x {word}" for word in dict.fromkeys(words)) or "no nodes"


def _labels(node: ClusterNode) -> list[str]:
    return [f"{key}={value}" for key, value in sorted(node.labels.items())]
