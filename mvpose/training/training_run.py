"""Start or resume a training, from settings to a saved model. Called by `mvpose train` and by sweeps.

OUTPUT/run.json         settings and the digest of the data, written once
       metrics.jsonl    figures by step (on S3: metrics/, see `mvpose.training.metrics_log`)
       checkpoints/     the training state (see `mvpose.training.checkpoints`)
       model/           the best weights in the format of `mvpose.models.saved`, written when the training ends
"""

from __future__ import annotations

import json
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from importlib.metadata import version

import torch
from torch import nn

from mvpose.config import differences
from mvpose.errors import ConfigError
from mvpose.models.method import build_method
from mvpose.models.pictorial_step import solved_by
from mvpose.models.saved import DESCRIPTION, WEIGHTS, save_model
from mvpose.storage.commits import create_once, write_whole
from mvpose.storage.locations import exists, is_remote, join, read_text
from mvpose.tracking.circumstances import commit
from mvpose.training.batches import Batch
from mvpose.training.checkpoints import Checkpoints, Position
from mvpose.training.feed import Feed
from mvpose.training.initial_weights import earlier_lineages, with_earlier_origins
from mvpose.training.loop import Length, Process, TrainingError, train_loop
from mvpose.training.metrics_log import Journal, Report
from mvpose.training.training_config import TrainConfig, without_places

MODEL = "model"


def train(
    config: TrainConfig, output: str, report: Report | None = None, say: Callable[[str], None] = print
) -> dict[str, float]:
    """Start a training, or resume one that was stopped; return the figures of the best validation and its `step`.

    `output` is a folder or s3:// URI. `report` is called in this thread with each step and its figures; an exception
    that it raises stops the training. `say` gets lines about the cache of tokens, if there is one. ConfigError if
    settings contradict each other or `output` was created with other settings. TrainingError if gradients stay
    non-finite or no validation finds a joint.
    """
    report_line: Report = report or (lambda step, figures: None)
    feed = Feed.open(config)
    data = begin_training(config, feed, output)
    checkpoints = Checkpoints(join(output, "checkpoints"), config.checkpoints.keep)
    if not exists(join(output, MODEL, DESCRIPTION)):
        feed.make_caches(say)
        if config.compute.local:
            position = _train_here(feed, checkpoints, output, report_line)
        else:
            from mvpose.training.trainer import train_on_ray

            train_on_ray(config, output, report_line)
            position = checkpoints.latest()
        _write_model(feed, checkpoints, position, data, output)
    best = checkpoints.latest().best
    assert best is not None
    return best.figures | {"step": float(best.step)}


def run_id_of(output: str) -> str:
    """The ID of the training in `output`; resuming keeps it."""
    return json.loads(read_text(join(output, "run.json")))["run_id"]


def finished(output: str) -> bool:
    """Whether a training is finished."""
    return exists(join(output, MODEL, DESCRIPTION))


def _train_here(feed: Feed, checkpoints: Checkpoints, output: str, report_line: Report) -> Position:
    journal = Journal(output)
    journal.rewind(checkpoints.latest().step)

    def written(step: int, figures: dict[str, float]) -> None:
        journal.write(step, figures)
        report_line(step, figures)

    process = Process(device=torch.device(feed.config.compute.device))
    length = Length(feed.total_steps, feed.order.steps_per_epoch)

    def batches(position: Position) -> Iterator[Batch]:
        return feed.batches(position.step, splits=position.splits)

    return train_loop(feed.config, length, batches, feed.validation_batches, process, checkpoints, written)


def begin_training(config: TrainConfig, feed: Feed, output: str) -> str:
    """Record the settings and the digest of the data; return the digest.

    ConfigError if settings contradict each other, or, with the differences, if `output` was created with other settings
    or data.
    """
    config.check()
    if config.method.solver != "dlt":
        # A trained network that lacks limb lengths could not be loaded.
        solved_by(nn.Identity(), config.method, feed.limb_lengths(), config.method.solver)
    uri = join(output, "run.json")
    digests = feed.digests()
    data, settings = digests["data_digest"], config.settings() | digests
    record = {"version": version("mvpose"), "commit": commit(), "run_id": uuid.uuid4().hex, "settings": settings}
    if create_once(uri, json.dumps(record, indent=1, default=str).encode()):
        return data
    known = json.loads(read_text(uri))["settings"]
    changed = differences(without_places(known), without_places(settings))
    if changed:
        raise ConfigError(
            f"{output} was created with other settings ({'; '.join(changed)}). Use another output, or the same "
            "settings to resume."
        )
    return data


def _write_model(feed: Feed, checkpoints: Checkpoints, position: Position, data: str, output: str) -> None:
    config = feed.config
    if position.best is None:
        raise TrainingError("no validation found a joint: train longer, or lower optimisation.rate.")
    network = build_method(config.method, pretrained=False)
    checkpoints.load_best(network, position.best)
    lineage = {
        "data": config.data,
        "data_digest": data,
        "settings": config.settings(),
        "run_id": run_id_of(output),
        "commit": commit(),
        "version": version("mvpose"),
        "step": position.best.step,
        "metrics": position.best.figures,
        **with_earlier_origins(feed.lineage(), earlier_lineages(config)),
    }
    if not is_remote(output):
        save_model(join(output, MODEL).removeprefix("file://"), network, config.rule, config.method, lineage)
        return
    with tempfile.TemporaryDirectory() as folder:
        save_model(folder, network, config.rule, config.method, lineage)
        for name in (WEIGHTS, DESCRIPTION):
            with open(os.path.join(folder, name), "rb") as file:
                write_whole(join(output, MODEL, name), file.read())
