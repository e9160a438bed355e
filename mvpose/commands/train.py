"""`mvpose train`: train a multi-view network, and record it in MLflow."""

from __future__ import annotations

from mvpose import tracking
from mvpose.commands.network_flags import Train
from mvpose.config import flatten
from mvpose.errors import ConfigError
from mvpose.storage.locations import absolute, join
from mvpose.storage.output_folder import require_output
from mvpose.tracking import TrackingConfig
from mvpose.training.feed import Feed
from mvpose.training.initial_weights import with_placed_weights
from mvpose.training.metrics_log import Report, progress_line
from mvpose.training.training_config import TrainConfig
from mvpose.training.training_run import begin_training, finished, run_id_of, train


def run(command: Train) -> int:
    """Exit code 0; failures raise."""
    if not command.data or not command.output:
        raise ConfigError(
            "missing data or output: mvpose train --config jobs/configs/train-small-canonical-fusion.toml "
            "--data TABLE --output OUT"
        )
    config = command.training()
    config.check()
    feed = Feed.open(config)
    print(_described(config, feed))
    if command.dry_run:
        return 0
    require_output(command.output, "mvpose train", "run.json", "initial")
    config = with_placed_weights(config, command.tracking, command.output)
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
        f"Training {config.method.method} {where}, on {'GPU' if config.compute.gpus else 'CPU'}: "
        f"{len(feed.order)} samples of {config.data}, {feed.order.steps_per_epoch} steps of "
        f"{config.optimisation.batch} per epoch, {feed.total_steps} steps, validation on {len(feed.validation_rows)}."
    )


def _summary(output: str, figures: dict[str, float]) -> str:
    if "validation/loss" in figures:
        best = f"loss {figures['validation/loss']:.5f}"
    else:
        best = f"MPJPE {1000 * figures['validation/mpjpe_m']:.1f} mm"
    return f"Best validation {best} at step {figures['step']:.0f}: model in {join(output, 'model')}"


def _teller(total: int, run_id: str, store: TrackingConfig) -> Report:
    """A callback that prints figures and sends them to MLflow."""

    def report_line(step: int, figures: dict[str, float]) -> None:
        print(progress_line(step, total, figures), flush=True)
        tracking.log_metrics(store, run_id, figures | tracking.system_figures(), step)

    return report_line
