"""Flags of the verbs for networks. Nothing heavy is imported, so `--help` is fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from mvpose.models.network_settings import NetworkConfig, Solver
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
    "--gpus",
    "--loaders",
)
COMMON = {
    "train": TRAINING,
    "tune": (*TRAINING, "--sweep.trials", "--sweep.searcher", "--sweep.scheduler", "--retrain-epochs", "--register"),
}
"""Common flags by verb: `--help` lists these, `--help-all` lists all."""


@dataclass(frozen=True, kw_only=True)
class Train(TrainConfig):
    """Train a multi-view network on a table of samples. Rerun the same command to resume."""

    output: str = ""
    """Folder or s3:// URI. On several machines, all of them must see it."""
    compute: Annotated[ComputeConfig, tyro.conf.arg(name="")] = field(default_factory=ComputeConfig)
    tracking: TrackingConfig = field(default_factory=lambda: TrackingConfig(experiment="train"))
    dry_run: bool = False
    """Print the planned training, and exit."""

    def training(self) -> TrainConfig:
        """The training settings alone."""
        return TrainConfig(**{name: getattr(self, name) for name in TrainConfig.__dataclass_fields__})


@dataclass(frozen=True, kw_only=True)
class Tune(TrainConfig):
    """Search training settings. Rerun the same command to resume: finished trials are not repeated. The search
    space is a table in the TOML file."""

    space: Annotated[Space, tyro.conf.Suppress] = field(default_factory=dict)
    """Ranges by the dotted names of settings: uniform, loguniform, integer or choice."""
    sweep: SweepConfig = field(default_factory=SweepConfig)
    output: str = ""
    """Folder or s3:// URI. On several machines, all of them must see it."""
    retrain_epochs: int = 0
    """Retrain with the best trial's settings for this many epochs, into OUTPUT/best (0: do not retrain)."""
    register: str = ""
    """Register the best network under this name: the retrained one, or the best trial's."""
    compute: Annotated[ComputeConfig, tyro.conf.arg(name="")] = field(default_factory=ComputeConfig)
    """Resources per trial. With one worker, a trial trains in its own process without Ray Train."""
    tracking: TrackingConfig = field(default_factory=lambda: TrackingConfig(experiment="tune"))
    dry_run: bool = False
    """Print the planned search, and exit."""

    def training(self) -> TrainConfig:
        """The training settings that every trial starts from."""
        return TrainConfig(**{name: getattr(self, name) for name in TrainConfig.__dataclass_fields__})


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Evaluate models or runs against ground truth: every metric, with intervals, as tables and a page."""

    models: tyro.conf.Positional[tuple[str, ...]] = ()
    """Folders of trained models, outputs of `mvpose reconstruct`, or versions in the registry (models:/NAME@ALIAS,
    models:/NAME/3). Several are compared."""
    data: tuple[str, ...] = ()
    """Tables of samples, one per benchmark (default: benchmarks/NAME, rendered if missing)."""
    benchmark: tuple[str, ...] = ()
    """Benchmarks by name."""
    protocol: str | None = None
    """Without a benchmark: only samples of this evaluation protocol."""
    split: str | None = None
    """Without a benchmark or protocol: the split to evaluate (default: test)."""
    views: tuple[int, ...] = ()
    """Numbers of views to evaluate (default: the benchmark's, or all cameras, then 4, 3 and 2)."""
    solver: tuple[Solver, ...] = ()
    """3D steps from a network's heatmaps: dlt (triangulation), psm, rpsm (pictorial structures). Several are compared
    (default: the model's own)."""
    unseen: bool = False
    """Without a benchmark: the cameras were not part of training."""
    output: str | None = None
    """Output folder (default: `evaluation` in the model's folder; `evaluation/NAME` in the working directory for
    several models or a registry version)."""
    worst: int = 8
    """Number of worst samples shown on the page."""
    centroids: str | None = None
    """Cluster centres for PSS: output of `mvpose dataset clusters`, or .npy (k, J, 3) in the truth's joint order."""
    metrics: tuple[str, ...] = ()
    """Additional metrics of your own: `package.module:function`, from predicted and true joints (N, J, 3) to one figure
    per row."""
    network: Annotated[NetworkConfig, tyro.conf.arg(name="")] = field(default_factory=NetworkConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """Registry of models:/ names."""
