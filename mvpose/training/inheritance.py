"""Start a training with the state of another one, for population based training."""

from __future__ import annotations

import io
import os

import torch

from mvpose.models.method import build_method
from mvpose.storage.commits import write_whole
from mvpose.storage.locations import join, list_folder, name, read_bytes
from mvpose.training.checkpoints import MARK, Checkpoints
from mvpose.training.optimisation import build_optimiser
from mvpose.training.training_config import TrainConfig

OPTIMISER = "optimiser.pt"


def bequeath(output: str, folder: str) -> None:
    """Copy the last checkpoint of a training, and its best weights, to a local `folder`."""
    source = join(output, "checkpoints")
    step = f"{Checkpoints(source, 1).latest().step:09d}"
    for uri in (*list_folder(join(source, step)), *list_folder(source)):
        if name(uri).startswith("best-"):
            write_whole(join(folder, name(uri)), read_bytes(uri))
        elif not name(uri).isdigit():
            write_whole(join(folder, step, name(uri)), read_bytes(uri))


def inherit(config: TrainConfig, folder: str, output: str) -> None:
    """Copy the checkpoint from `bequeath`, with the rates of `config`, unless the training has a checkpoint already."""
    source, target = os.path.join(folder, "checkpoints"), join(output, "checkpoints")
    if Checkpoints(target, 1).latest().step:
        return
    (step,) = [name(uri) for uri in list_folder(source) if name(uri).isdigit()]
    for uri in list_folder(source):
        if name(uri).startswith("best-"):
            write_whole(join(target, name(uri)), read_bytes(uri))
    for uri in list_folder(join(source, step)):
        content = read_bytes(uri)
        if name(uri) == OPTIMISER:
            content = _with_rates_of(config, content)
        if name(uri) != MARK:
            write_whole(join(target, step, name(uri)), content)
    write_whole(join(target, step, MARK), read_bytes(join(source, step, MARK)))


def _with_rates_of(config: TrainConfig, content: bytes) -> bytes:
    """An optimiser state with the rates and decays of `config`."""
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    with torch.device("meta"):
        fresh = build_optimiser(build_method(config.method, pretrained=False), config.optimisation)
    for group, other in zip(state["param_groups"], fresh.param_groups, strict=True):
        group.update({key: other[key] for key in ("lr", "full_rate", "weight_decay")})
    sink = io.BytesIO()
    torch.save(state, sink)
    return sink.getvalue()
