"""How many workers fit on a cluster, checked before a stage starts: a pool that does not fit would hang Ray."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mvpose.errors import ConfigError


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


def pool_limits(nodes: Sequence[ClusterNode], need: Need, minimum: int | None, maximum: int | None) -> tuple[int, int]:
    """Minimum and maximum size of a pool; ConfigError if it does not fit on the cluster, or would use every CPU.

    Without `minimum` the size is fixed: `maximum`, or as many workers as fit. With it, only `minimum` workers have to
    fit now (none if it is 0), and the pool grows up to `maximum` as nodes join. One CPU always stays outside the pool:
    a pool that takes all CPUs hangs Ray Data, whose own small tasks then wait forever (measured;
    ray-project/ray#44687).
    """
    cpus = sum(node.resources.get("CPU", 0.0) for node in nodes)
    room = sum(need.fits(node) for node in nodes)
    beside_one_cpu = min(room, math.floor((cpus - 1) / need.resources["CPU"] + 1e-9))
    requested = maximum if minimum is None else minimum
    if room == 0 and requested != 0:
        raise ConfigError(
            f"no node of the cluster has room for a worker, which needs {need}; the nodes are {_text(nodes)}."
        )
    if requested is None:
        requested = max(1, beside_one_cpu)
    if requested > max(beside_one_cpu, 0):
        raise ConfigError(
            f"{requested} workers of {need} do not fit: one CPU must stay free, and the cluster then has room for "
            f"{max(beside_one_cpu, 0)} ({_text(nodes)}): use fewer workers, or add nodes."
        )
    if minimum is None or maximum is None:
        return requested, requested
    if maximum > beside_one_cpu and cpus - room * need.resources["CPU"] < 1:
        raise ConfigError(
            f"a pool that grows to {maximum} workers of {need} would take every CPU of this cluster ({_text(nodes)}), "
            "and Ray needs one for itself. To keep workers off one node, set model_nodes or model_resources, or use "
            "more GPUs or CPUs per worker."
        )
    return max(1, minimum), maximum


def _text(nodes: Sequence[ClusterNode]) -> str:
    """Describe the nodes; identical ones are counted."""
    words = [
        " ".join([*(f"{node.resources[r]:g} {r}" for r in sorted(node.resources)), *_labels(node)]) for node in nodes
    ]
    return "; ".join(f"{words.count(word)} x {word}" for word in dict.fromkeys(words)) or "no nodes"


def _labels(node: ClusterNode) -> list[str]:
    return [f"{key}={value}" for key, value in sorted(node.labels.items())]
