"""The flags of the verbs about networks. They import nothing heavy, so that `--help` is there at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from mvpose.models.network_settings import NetworkConfig
from mvpose.tracking import TrackingConfig
from mvpose.training.training_config import ComputeConfig, TrainConfig
from mvpose.training.tuning_space import Space, SweepConfig

TRAINING = (
    "--data",
    "--output",
    "--method.method",
    "--method.skeleton",
    "--method.backbone.kind",
    "--method.backbone.weights",
    "--samples.views",
    "--optimisation.rate",
    "--optimisation.batch",
    "--optimisation.epochs",
    "--optimisation.precision",
    "--augmentation.mirror",
    "--seed",
    "--dry-run",
    "--local",
    "--address",
    "--workers",
    "--gpu",
    "--loaders",
)
COMMON = {
    "train": TRAINING,
    "tune": (*TRAINING, "--sweep.trials", "--sweep.searcher", "--sweep.scheduler", "--retrain-epochs", "--register"),
}
"""The flags that most users need, by verb: `--help` shows these, `--help-all` all."""


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


@dataclass(frozen=True, kw_only=True)
class Tune(TrainConfig):
    """Search settings of a training. Run the same command again to go on after an interruption: no trial that has
    ended is repeated. The space is a table of the TOML file."""

    space: Annotated[Space, tyro.conf.Suppress] = field(default_factory=dict)
    """Ranges by the dotted names of settings: uniform, loguniform, integer or choice."""
    sweep: SweepConfig = field(default_factory=SweepConfig)
    output: str = ""
    """Folder or s3:// URI. With Ray on several machines it must be one that all of them see."""
    retrain_epochs: int = 0
    """Train anew with the best trial's settings, for so many epochs, into OUTPUT/best."""
    register: str = ""
    """Register the best network under this name: of the best trial, or what was trained anew."""
    compute: Annotated[ComputeConfig, tyro.conf.arg(name="")] = field(default_factory=ComputeConfig)
    """Of each trial. With one worker a trial trains in its own process, without Ray Train."""
    tracking: TrackingConfig = field(default_factory=lambda: TrackingConfig(experiment="tune"))
    dry_run: bool = False
    """Say what would be searched on what, and do nothing."""

    def training(self) -> TrainConfig:
        """What each trial trains, before its own settings."""
        return TrainConfig(**{name: getattr(self, name) for name in TrainConfig.__dataclass_fields__})


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Judge models or runs on tables of truth: every metric, with intervals, as tables and a page."""

    models: tyro.conf.Positional[tuple[str, ...]] = ()
    """Folders of trained models, outputs of `mvpose reconstruct`, or versions in the registry (models:/NAME@ALIAS,
    models:/NAME/3). Several are compared."""
    data: tuple[str, ...] = ()
    """Tables of samples, one for each benchmark named; without it benchmarks/NAME, rendered if need be."""
    benchmark: tuple[str, ...] = ()
    """Benchmarks by name."""
    protocol: str | None = None
    """Without a benchmark: only what counts under this protocol of a dataset."""
    views: tuple[int, ...] = ()
    """Numbers of views; without them those of the benchmark, or all cameras and each of 4, 3, 2 below that."""
    unseen: bool = False
    """Without a benchmark: training has seen none of the cameras."""
    output: str | None = None
    """Where the results go; without it the folder `evaluation` of the model, or of this place for several; a version
    in the registry has one of its own there."""
    worst: int = 8
    """Samples with the largest error on the page."""
    centroids: str | None = None
    """Cluster centres for PSS: what `mvpose dataset clusters` wrote, or .npy (k, J, 3) in the truth's order."""
    network: Annotated[NetworkConfig, tyro.conf.arg(name="")] = field(default_factory=NetworkConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Where the registry is."""
