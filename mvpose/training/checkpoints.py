"""Checkpoints of a training on disk or S3. A killed training resumes without any effect on its result.

    checkpoints/000000120/weights.safetensors    the network
                          averaged.safetensors   its averaged weights, if used
                          optimiser.pt           only tensors and numbers, read with `weights_only`
                          state.json             step, numbers of workers and best figures; written last, so a folder
                                                 without it is ignored
    checkpoints/best-000000080.safetensors       the best weights so far, named by `state.json`

Learning rate and random state are functions of the step (see `mvpose.training.loop.seed_step`), and the position in the
data is one of the step and of the numbers of workers so far (see `mvpose.training.order`).
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

from mvpose.storage.commits import remove_file, write_whole
from mvpose.storage.locations import (
    exists,
    filesystem,
    is_remote,
    join,
    list_folder,
    name,
    read_bytes,
    read_text,
)
from mvpose.training.order import ALONE, Split

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
    """Progress of a training."""

    step: int = 0
    """Completed steps."""
    best: Best | None = None
    splits: tuple[Split, ...] = ()
    """Numbers of workers so far: they decide which samples an epoch has used."""

    def shared_by(self, workers: int) -> Position:
        """The position of a training that so many workers continue."""
        if self.splits and self.splits[-1].workers == workers:
            return self
        return replace(self, splits=(*self.splits, Split(self.step, workers)))


@dataclass(frozen=True, eq=False)
class Trained:
    """The state that a training changes."""

    network: nn.Module
    averaged: nn.Module | None
    optimiser: torch.optim.Optimizer

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and saved."""
        return self.network if self.averaged is None else self.averaged


class Checkpoints:
    """The checkpoints of one training, in `folder` (a path or s3:// URI)."""

    def __init__(self, folder: str, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def latest(self) -> Position:
        """The position of the last checkpoint; the start if there is none."""
        whole = self._whole()
        return _position(read_text(join(whole[-1], MARK))) if whole else Position()

    def save(self, trained: Trained, position: Position) -> None:
        """Write a checkpoint, then remove surplus checkpoints and superseded best weights."""
        self.write(self.content(trained, position), position)

    def content(self, trained: Trained, position: Position) -> dict[str, bytes]:
        """The files of a checkpoint by their place in the folder, as they are at the time of the call.

        With the best weights, if they are those of this position.
        """
        files = {"weights.safetensors": weights_bytes(trained.network)}
        if trained.averaged is not None:
            files["averaged.safetensors"] = weights_bytes(trained.averaged)
        optimiser = io.BytesIO()
        torch.save(trained.optimiser.state_dict(), optimiser)
        files["optimiser.pt"] = optimiser.getvalue()
        best = {}
        if position.best is not None and position.best.step == position.step:
            best[_best(position.step)] = weights_bytes(trained.judged)
        # The mark is the last one.
        files[MARK] = json.dumps(asdict(position)).encode()
        return best | {f"{position.step:09d}/{file}": content for file, content in files.items()}

    def write(self, files: dict[str, bytes], position: Position) -> None:
        """Write the content of a checkpoint, then remove surplus checkpoints and superseded best weights."""
        for file, content in files.items():
            write_whole(join(self.folder, file), content)
        self._tidy(position)

    def load(self, trained: Trained, position: Position) -> None:
        """Load the state of the position that `latest` returned; step 0 loads nothing."""
        if not position.step:
            return
        folder = self._at(position.step)
        load_weights(trained.network, read_bytes(join(folder, "weights.safetensors")))
        if trained.averaged is not None:
            load_weights(trained.averaged, read_bytes(join(folder, "averaged.safetensors")))
        content = io.BytesIO(read_bytes(join(folder, "optimiser.pt")))
        state = torch.load(content, map_location="cpu", weights_only=True)
        for saved, own in zip(state["param_groups"], trained.optimiser.param_groups, strict=True):
            # The implementation is this machine's: a GPU's is another one.
            saved["fused"] = own["fused"]
        trained.optimiser.load_state_dict(state)

    def load_best(self, network: nn.Module, best: Best) -> None:
        """Load the best weights into a network."""
        load_weights(network, read_bytes(join(self.folder, _best(best.step))))

    def _at(self, step: int) -> str:
        return join(self.folder, f"{step:09d}")

    def _whole(self) -> list[str]:
        """Complete checkpoints, oldest first."""
        if not exists(self.folder):
            return []
        return [uri for uri in list_folder(self.folder) if _STEP.fullmatch(name(uri)) and exists(join(uri, MARK))]

    def _tidy(self, position: Position) -> None:
        kept = self._whole()[-self.keep :]
        best = None if position.best is None else _best(position.best.step)
        for uri in list_folder(self.folder):
            if _BEST.fullmatch(name(uri)) and best is not None and name(uri) != best:
                remove_file(uri)
            elif _STEP.fullmatch(name(uri)) and name(uri) < name(kept[0]):
                # Remove the mark first, so that a partly removed checkpoint is ignored.
                for file in FILES:
                    remove_file(join(uri, file))
                if not is_remote(uri):
                    with suppress(OSError):  # the folder is not empty
                        os.rmdir(filesystem(uri)[1])


def _best(step: int) -> str:
    return f"best-{step:09d}.safetensors"


def weights_bytes(network: nn.Module) -> bytes:
    """A network's state dict as safetensors."""
    return save({key: tensor.detach().cpu().contiguous() for key, tensor in network.state_dict().items()})


def load_weights(network: nn.Module, content: bytes) -> None:
    """Load safetensors into a network, strictly."""
    state: dict[str, Tensor] = load(content)
    network.load_state_dict(state)


def _position(text: str) -> Position:
    values = json.loads(text)
    # Before splits were stored, any number of workers used the samples of a single one.
    splits = tuple(Split(**split) for split in values.get("splits", [asdict(ALONE[0])]))
    return Position(values["step"], Best(**values["best"]) if values["best"] else None, splits)
