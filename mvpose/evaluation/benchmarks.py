"""Benchmarks by name: which table, which samples of it, which cameras, so that figures can be quoted."""

from __future__ import annotations

from dataclasses import dataclass

from mvpose.config import nearest
from mvpose.datasets.protocols import PROTOCOLS, Protocol
from mvpose.datasets.rendered.corpus import Rendered
from mvpose.datasets.sample import TEST
from mvpose.errors import ConfigError

VIEWS = (4, 3, 2)
CURVE = (28, 24, 20, 16, 12, 8, 6, 4, 3, 2)


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A protocol on a table, by the numbers of views that are reported."""

    protocol: Protocol
    views: tuple[int, ...] = ()
    """Empty for all cameras of the protocol, and each of 4, 3, 2 below that."""
    unseen: bool = False
    """Whether the cameras are ones that training has not seen."""
    rendered: Rendered | None = None
    """How its table is made: the same samples anywhere. None where a dataset of others is converted."""

    def command(self, output: str) -> str:
        """The command line that makes the table."""
        made = self.rendered
        if made is None:
            return f"mvpose dataset convert ... --output {output}"
        return (
            f"mvpose dataset render --rig {made.rig} --train {made.train} --test {made.test} --seed {made.seed} "
            f"--output {output}"
        )


def _rendered(views: tuple[int, ...], unseen: bool, rendered: Rendered) -> Benchmark:
    protocol = Protocol(dataset="rendered", split=TEST, source="mvpose: people and motions that training has not seen")
    return Benchmark(protocol=protocol, views=views, unseen=unseen, rendered=rendered)


# Rigs that a network trained by the protocol's own authors had not seen.
_UNSEEN = ("total_capture-unseen-cameras", "panoptic-cmu1", "panoptic-cmu2", "panoptic-cmu3", "panoptic-cmu4")

BENCHMARKS: dict[str, Benchmark] = {
    "rendered-ring4": _rendered(VIEWS, False, Rendered(rig="ring4", train=0, test=1000, seed=20260001)),
    "rendered-unseen-rig": _rendered(VIEWS, True, Rendered(rig="random", train=0, test=1000, seed=20260002)),
    "rendered-ring31": _rendered(CURVE, True, Rendered(rig="ring31", train=0, test=200, seed=20260003)),
    **{
        name: Benchmark(protocol=protocol, unseen=name in _UNSEEN)
        for name, protocol in PROTOCOLS.items()
        if not name.endswith("-train")
    },
}


def benchmark_named(name: str) -> Benchmark:
    """A benchmark by name; ConfigError names those there are."""
    if name not in BENCHMARKS:
        raise ConfigError(f"no benchmark is named {name!r} ({nearest(name, BENCHMARKS)}).")
    return BENCHMARKS[name]
