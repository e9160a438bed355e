"""`mvpose train`: train a multi-view network, and record it in MLflow."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated

import tyro

from mvpose import tracking
from mvpose.archive.locations import absolute, join
from mvpose.archive.output_folder import require_output
from mvpose.config import flatten
from mvpose.errors import ConfigError
from mvpose.tracking import TrackingConfig
from mvpose.training.config import ComputeConfig, TrainConfig
from mvpose.training.feed import Feed
from mvpose.training.initial_weights import with_placed_weights
from mvpose.training.progress import Report, told
from mvpose.training.run import begin_training, finished, run_id_of, train


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
    require_output(command.output, "mvpose train", "run.json", "initial")
    config = replace(config, method=with_placed_weights(config.method, command.tracking, command.output))
    data = begin_training(config, feed, command.output)
    if finished(command.output):
        print(f"Nothing to do. {_summary(command.output, train(config, command.output))}")
        return 0
    run_id = tracking.start_run(
        command.tracking,
        command.output.rstrip("/").rsplit("/", 1)[-1],
        flatten(config),
        tags={"mvpose.data_digest": data, "mvpose.output": absolute(command.output)},
        run_id=run_id_of(command.output),
    )
    succeeded = False
    try:
        figures = train(config, command.output, _teller(feed.total_steps, run_id, command.tracking))
        succeeded = True
    finally:
        tracking.end_run(command.tracking, run_id, succeeded=succeeded)
    print(_summary(command.output, figures))
    print(tracking.described(command.tracking, run_id))
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


def _teller(total: int, run_id: str, store: TrackingConfig) -> Report:
    """Prints figures and hands them to MLflow."""

    def tell(step: int, figures: dict[str, float]) -> None:
        print(told(step, total, figures), flush=True)
        tracking.log_metrics(store, run_id, figures | tracking.system_figures(), step)

    return tell
