"""How many workers a cluster has room for, asked before a stage starts: a pool that cannot be had would hang Ray."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mvpose.errors import ConfigError


@dataclass(frozen=True)
class ClusterNode:
    """What a node of the cluster offers."""

    resources: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Need:
    """What one worker asks of its node."""

    resources: Mapping[str, float]
    """By Ray's names: CPU, GPU, and custom ones."""
    labels: Mapping[str, str] = field(default_factory=dict)

    def fits(self, node: ClusterNode) -> int:
        """How many workers one node has room for."""
        if any(node.labels.get(key) != value for key, value in self.labels.items()):
            return 0
        requested = {name: amount for name, amount in self.resources.items() if amount > 0}
        return min(math.floor(node.resources.get(name, 0.0) / amount + 1e-9) for name, amount in requested.items())

    def __str__(self) -> str:
        requested = [f"{amount:g} {name}" for name, amount in self.resources.items() if amount > 0]
        return ", ".join(requested + [f"label {key}={value}" for key, value in self.labels.items()])


def pool_limits(nodes: Sequence[ClusterNode], need: Need, minimum: int | None, maximum: int | None) -> tuple[int, int]:
    """Least and largest size of a pool; ConfigError if the cluster cannot give it, or would be left without a CPU.

    Without `least` the size is fixed: `most`, or all that there is room for. With it only `least` has to fit now (none
    of them where it is 0), and the pool grows up to `most` as nodes come. One CPU always stays out of the pool's reach:
    a pool that takes all hangs Ray Data, whose own small tasks then wait forever (measured; ray-project/ray#44687).
    """
    cpus = sum(node.resources.get("CPU", 0.0) for node in nodes)
    room = sum(need.fits(node) for node in nodes)
    beside_one_cpu = min(room, math.floor((cpus - 1) / need.resources["CPU"] + 1e-9))
    requested = maximum if minimum is None else minimum
    if room == 0 and requested != 0:
        raise ConfigError(
            f"no node of the cluster has room for a worker, which needs {need}; there are {_text(nodes)}."
        )
    if requested is None:
        requested = max(1, beside_one_cpu)
    if requested > max(beside_one_cpu, 0):
        raise ConfigError(
            f"{requested} workers of {need} need room for all of them and one CPU beside, and the cluster has room for "
            f"{max(beside_one_cpu, 0)} ({_text(nodes)}): use fewer workers, or add nodes."
        )
    if minimum is None or maximum is None:
        return requested, requested
    if maximum > beside_one_cpu and cpus - room * need.resources["CPU"] < 1:
        raise ConfigError(
            f"a pool that grows to {maximum} workers of {need} would take every CPU of this cluster ({_text(nodes)}), "
            "and Ray needs one beside it: keep workers off one node by model_nodes, model_resources, or more "
            "GPUs or CPUs per worker."
        )
    return max(1, minimum), maximum


def _text(nodes: Sequence[ClusterNode]) -> str:
    """The nodes in words, equal ones counted."""
    words = [
        " ".join([*(f"{node.resources[r]:g} {r}" for r in sorted(node.resources)), *_labels(node)]) for node in nodes
    ]
    return "; ".join(f"{words.count(word)} x {word}" for word in dict.fromkeys(words)) or "no nodes"


def _labels(node: ClusterNode) -> list[str]:
    return [f"{key}={value}" for key, value in sorted(node.labels.items())]
