"""Named benchmarks: a fixed table, selection of samples and cameras, so that figures are comparable."""

from __future__ import annotations

from dataclasses import dataclass

from mvpose.config import nearest
from mvpose.datasets.origins import RENDERED_PEOPLE
from mvpose.datasets.protocols import PROTOCOLS, Protocol
from mvpose.datasets.sample import TEST
from mvpose.errors import ConfigError
from mvpose.rendering.corpus import Rendered

VIEWS = (4, 3, 2)
CURVE = (28, 24, 20, 16, 12, 8, 6, 4, 3, 2)


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A protocol on a table, with the reported numbers of views."""

    protocol: Protocol
    views: tuple[int, ...] = ()
    """Numbers of views; empty for all cameras of the protocol, and each of 4, 3, 2 below that."""
    unseen: bool = False
    """Whether training has seen none of the cameras."""
    rendered: Rendered | None = None
    """Settings that render its table reproducibly. None if an external dataset is converted."""

    def command(self, output: str) -> str:
        """The command line that creates the table."""
        made = self.rendered
        if made is None:
            return f"mvpose dataset convert ... --output {output}"
        return (
            f"mvpose dataset render --rig {made.rig} --train {made.train} --validation {made.validation} "
            f"--test {made.test} --seed {made.seed} --output {output}"
        )


def _rendered(views: tuple[int, ...], unseen: bool, rendered: Rendered) -> Benchmark:
    protocol = Protocol(
        dataset=RENDERED_PEOPLE, split=TEST, source="mvpose: people and motions that training has not seen"
    )
    return Benchmark(protocol=protocol, views=views, unseen=unseen, rendered=rendered)


# Rigs that no network trained on the original protocol has seen.
_UNSEEN = ("total_capture-unseen-cameras", "panoptic-cmu1", "panoptic-cmu2", "panoptic-cmu3", "panoptic-cmu4")

BENCHMARKS: dict[str, Benchmark] = {
    "rendered-ring4": _rendered(VIEWS, False, Rendered(rig="ring4", train=0, validation=0, test=1000, seed=20260001)),
    "rendered-unseen-rig": _rendered(
        VIEWS, True, Rendered(rig="random", train=0, validation=0, test=1000, seed=20260002)
    ),
    "rendered-ring31": _rendered(CURVE, True, Rendered(rig="ring31", train=0, validation=0, test=200, seed=20260003)),
    **{
        name: Benchmark(protocol=protocol, unseen=name in _UNSEEN)
        for name, protocol in PROTOCOLS.items()
        if not name.endswith("-train")
    },
}


def benchmark_named(name: str) -> Benchmark:
    """Return a benchmark by name; ConfigError lists similar names."""
    if name not in BENCHMARKS:
        raise ConfigError(f"no benchmark is named {name!r} ({nearest(name, BENCHMARKS)}).")
    return BENCHMARKS[name]
