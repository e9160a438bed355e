"""`mvpose train`: train a multi-view network, and record it in MLflow."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Annotated

import tyro

from mvpose import tracking
from mvpose.archive.commits import create_once
from mvpose.archive.locations import exists, join, read_text
from mvpose.config import flatten
from mvpose.errors import ConfigError
from mvpose.tracking import TrackingConfig
from mvpose.training.config import ComputeConfig, TrainConfig
from mvpose.training.feed import Feed
from mvpose.training.progress import told
from mvpose.training.run import begin_training, finished, train


@dataclass(frozen=True, kw_only=True)
class Train(TrainConfig):
    """Train a multi-view network on a table of samples. Run the same command again to go on after an interruption."""

    output: str = ""
    """Folder or s3:// URI. With Ray on several machines it must be one that all of them see."""
    compute: Annotated[ComputeConfig, tyro.conf.arg(name="")] = field(default_factory=ComputeConfig)
    tracking: TrackingConfig = field(default_factory=lambda: TrackingConfig(experiment="train"))
    dry_run: bool = False
    """Say what would be trained on what, and do nothing."""

    def training(self) -> TrainConfig:
        """What is trained, without what the command adds."""
        return TrainConfig(**{name: getattr(self, name) for name in TrainConfig.__dataclass_fields__})


def run(command: Train) -> int:
    """Exit code 0; what goes wrong is an error."""
    if not command.data or not command.output:
        raise ConfigError(
            "say which table and which output: mvpose train --config jobs/configs/train-small-canonical-fusion.toml "
            "--data TABLE --output OUT"
        )
    config = command.training()
    config.check()
    feed = Feed.open(config)
    print(_described(config, feed))
    if command.dry_run:
        return 0
    data = begin_training(config, feed, command.output)
    if finished(command.output):
        print(f"Nothing to do. {_summary(command.output, train(config, command.output))}")
        return 0
    run_id, store = _opened(command, data)
    succeeded = False
    try:
        figures = train(config, command.output, _teller(feed.total_steps, run_id, store))
        succeeded = True
    finally:
        if run_id is not None:
            tracking.end_run(store, run_id, succeeded=succeeded)
    print(_summary(command.output, figures))
    if run_id is not None:
        print(f"MLflow run {run_id} in {tracking.tracking_uri(store)}")
    return 0


def _described(config: TrainConfig, feed: Feed) -> str:
    where = "in this process" if config.compute.local else f"on Ray with {config.compute.workers} workers"
    return (
        f"Training {config.method.method} {where}, on {'GPU' if config.compute.gpu else 'CPU'}: "
        f"{len(feed.order)} samples of {config.data}, {feed.order.steps_per_epoch} steps of "
        f"{config.optimisation.batch} an epoch, {feed.total_steps} steps, validation on {len(feed.validation_rows)}."
    )


def _summary(output: str, figures: dict[str, float]) -> str:
    return (
        f"Best validation MPJPE {1000 * figures['validation/mpjpe_m']:.1f} mm at step {figures['step']:.0f}: "
        f"model in {join(output, 'model')}"
    )


def _teller(total: int, run_id: str | None, store: TrackingConfig):
    """Prints figures and hands them to MLflow."""

    def tell(step: int, figures: dict[str, float]) -> None:
        print(told(step, total, figures), flush=True)
        if run_id is not None:
            tracking.log_figures(store, run_id, figures)

    return tell


def _opened(command: Train, data_digest: str) -> tuple[str | None, TrackingConfig]:
    """The MLflow run of this output, the same one whenever the training is gone on with, and where it is."""
    uri = join(command.output, "tracking.json")
    if command.tracking.enabled and not exists(uri):
        name = command.output.rstrip("/").rsplit("/", 1)[-1]
        settings = flatten(command.training()) | {"data_digest": data_digest}
        run_id = tracking.start_run(command.tracking, name, settings)
        if run_id is None:
            return None, command.tracking
        create_once(uri, json.dumps({"run_id": run_id, "uri": tracking.tracking_uri(command.tracking)}).encode())
    if not command.tracking.enabled:
        return None, command.tracking
    known = json.loads(read_text(uri))
    return known["run_id"], replace(command.tracking, uri=known["uri"])
