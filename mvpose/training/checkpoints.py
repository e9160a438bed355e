"""The whole state of a training on disk or S3, so that a killed one goes on as if nothing had happened.

    checkpoints/000000120/weights.safetensors    the network
                          averaged.safetensors   its averaged weights, where there are any
                          optimiser.pt           tensors and numbers alone, read with `weights_only`
                          state.json             step, best figure; written last: without it the folder does not count
    checkpoints/best-000000080.safetensors       the best weights so far, which `state.json` names

Learning rate, position in the data and random state are functions of the step (see `mvpose.training.order` and
`mvpose.training.loop.seed_step`), so the step stands for all of them, on any number of workers.
"""

from __future__ import annotations

import io
import json
import os
import re
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from mvpose.archive.commits import remove_file, write_whole
from mvpose.archive.locations import (
    exists,
    filesystem,
    is_remote,
    join,
    list_folder,
    name,
    read_bytes,
    read_text,
)

MARK = "state.json"
FILES = (MARK, "weights.safetensors", "averaged.safetensors", "optimiser.pt")
_STEP, _BEST = re.compile(r"\d{9}"), re.compile(r"best-\d{9}\.safetensors")


@dataclass(frozen=True)
class Best:
    """The best validation so far."""

    step: int
    figures: dict[str, float]


@dataclass(frozen=True)
class Position:
    """How far a training has come."""

    step: int = 0
    """Steps done."""
    best: Best | None = None


@dataclass(frozen=True, eq=False)
class Trained:
    """What a training changes."""

    network: nn.Module
    averaged: nn.Module | None
    optimiser: torch.optim.Optimizer

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and kept."""
        return self.network if self.averaged is None else self.averaged


class Checkpoints:
    """The checkpoints of one training, in `folder` (a path or s3:// URI)."""

    def __init__(self, folder: str, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def latest(self) -> Position:
        """Where to go on; the start, where there is no checkpoint."""
        whole = self._whole()
        return _position(read_text(join(whole[-1], MARK))) if whole else Position()

    def save(self, trained: Trained, position: Position) -> None:
        """Write a checkpoint, then remove those that are one too many, and best weights that were beaten."""
        folder = self._at(position.step)
        write_whole(join(folder, "weights.safetensors"), weights_bytes(trained.network))
        if trained.averaged is not None:
            write_whole(join(folder, "averaged.safetensors"), weights_bytes(trained.averaged))
        optimiser = io.BytesIO()
        torch.save(trained.optimiser.state_dict(), optimiser)
        write_whole(join(folder, "optimiser.pt"), optimiser.getvalue())
        write_whole(join(folder, MARK), json.dumps(asdict(position)).encode())
        self._tidy(position)

    def load(self, trained: Trained, position: Position) -> None:
        """Fill a training with the state of a step that `latest` named; step 0 leaves it as it is."""
        if not position.step:
            return
        folder = self._at(position.step)
        load_weights(trained.network, read_bytes(join(folder, "weights.safetensors")))
        if trained.averaged is not None:
            load_weights(trained.averaged, read_bytes(join(folder, "averaged.safetensors")))
        content = io.BytesIO(read_bytes(join(folder, "optimiser.pt")))
        trained.optimiser.load_state_dict(torch.load(content, map_location="cpu", weights_only=True))

    def save_best(self, network: nn.Module, position: Position, figures: dict[str, float]) -> Position:
        """Keep these weights as the best; they count once a checkpoint of the position that is returned is written."""
        write_whole(self._best(position.step), weights_bytes(network))
        return replace(position, best=Best(position.step, figures))

    def load_best(self, network: nn.Module, best: Best) -> None:
        """Fill a network with the best weights."""
        load_weights(network, read_bytes(self._best(best.step)))

    def _at(self, step: int) -> str:
        return join(self.folder, f"{step:09d}")

    def _best(self, step: int) -> str:
        return join(self.folder, f"best-{step:09d}.safetensors")

    def _whole(self) -> list[str]:
        """Checkpoints that count, oldest first."""
        if not exists(self.folder):
            return []
        return [uri for uri in list_folder(self.folder) if _STEP.fullmatch(name(uri)) and exists(join(uri, MARK))]

    def _tidy(self, position: Position) -> None:
        kept = self._whole()[-self.keep :]
        best = None if position.best is None else self._best(position.best.step)
        for uri in list_folder(self.folder):
            if _BEST.fullmatch(name(uri)) and best is not None and name(uri) != name(best):
                remove_file(uri)
            elif _STEP.fullmatch(name(uri)) and name(uri) < name(kept[0]):
                # The mark goes first: a checkpoint that is half removed must not count.
                for file in FILES:
                    remove_file(join(uri, file))
                if not is_remote(uri):
                    with suppress(OSError):  # something else is in it
                        os.rmdir(filesystem(uri)[1])


def weights_bytes(network: nn.Module) -> bytes:
    """A network's state dict as safetensors."""
    return save({key: tensor.detach().cpu().contiguous() for key, tensor in network.state_dict().items()})


def load_weights(network: nn.Module, content: bytes) -> None:
    """Fill a network from safetensors, strictly."""
    state: dict[str, Tensor] = load(content)
    network.load_state_dict(state)


def _position(text: str) -> Position:
    values = json.loads(text)
    return Position(values["step"], Best(**values["best"]) if values["best"] else None)
