"""The settings of a training, as a TOML file of `jobs/configs` tells them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Literal

from mvpose.accelerator import Device, compute_device, require_gpus
from mvpose.config import flatten
from mvpose.datasets import TRAIN, VALIDATION
from mvpose.errors import ConfigError
from mvpose.models.input_rule import MARGIN, InputRule, input_rule
from mvpose.models.network_settings import FusionMethod, Method, ObjectiveConfig
from mvpose.ray_session import worker_environment
from mvpose.skeleton import SKELETONS

if TYPE_CHECKING:
    from mvpose.training.batches import CropView


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Ranges of the draws; 0 everywhere leaves samples as they are."""

    rotation_degrees: float = 15.0
    """Crops are turned in their plane by up to this, each view for itself."""
    scale: float = 0.15
    """The person is larger or smaller in the crop by up to this share."""
    shift: float = 0.05
    """The person is off the crop's centre by up to this share of its side: boxes of detectors are never exact."""
    colour: float = 0.2
    """Brightness, contrast and the gain of each channel change by up to this share."""
    occluders: float = 0.3
    """Probability of a textured rectangle over a part of a view."""
    occluder_side: float = 0.5
    """Longest side of such a rectangle, as a share of the crop's."""
    view_dropout: float = 0.0
    """Probability that a view is taken away. For fusions that take any number of views."""
    kept_views: int = 2
    """View dropout leaves at least so many."""
    mirror: float = 0.0
    """Probability that the whole scene (people, cameras, crops) is taken to its mirror image. A mirrored rig is another
    rig: nothing for a fusion without cameras that is to learn the one it has."""

    def __post_init__(self) -> None:
        for name in (setting.name for setting in fields(self)):
            if getattr(self, name) < 0:
                raise ConfigError(f"augmentation.{name} is {getattr(self, name)}; it must not be negative.")
        for name in ("scale", "shift", "colour", "occluders", "occluder_side", "view_dropout", "mirror"):
            if getattr(self, name) > 1:
                raise ConfigError(f"augmentation.{name} is {getattr(self, name)}; it is a share of 0 to 1.")


NONE = AugmentationConfig(
    rotation_degrees=0.0, scale=0.0, shift=0.0, colour=0.0, occluders=0.0, occluder_side=0.0, view_dropout=0.0
)


@dataclass(frozen=True, kw_only=True)
class OptimisationConfig:
    """Optimiser, schedule and length of a training."""

    optimiser: Literal["adamw", "adam", "sgd"] = "adamw"
    rate: float = 1e-3
    """Learning rate."""
    slow_rate: float | None = None
    """Learning rate of the parts named in `slow`; empty for the same as the others."""
    slow: tuple[str, ...] = ("backbone",)
    """Parts of the network, by the names of its modules."""
    weight_decay: float = 1e-4
    """Not on biases and normalisations."""
    momentum: float = 0.9
    """Of SGD."""
    batch: int = 32
    """Samples a step, over all workers."""
    accumulate: int = 1
    """Parts that a worker's share is computed in, one after the other, for less memory."""
    epochs: int = 50
    steps: int = 0
    """Steps instead of epochs."""
    schedule: Literal["constant", "step", "cosine"] = "cosine"
    rise: int = 500
    """Steps over which the rate rises from 0, at most a tenth of all."""
    drops: tuple[float, ...] = (0.6, 0.85)
    """Of the schedule `step`: progress (0..1) at which the rate is divided by ten."""
    clip: float = 10.0
    """Largest norm of the gradient; 0 does not clip."""
    average: float = 0.999
    """Decay of the averaged weights (EMA), which are validated and kept; 0 does without."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 runs networks under autocast; weights, geometry and losses stay in float32."""

    def __post_init__(self) -> None:
        if min(self.batch, self.accumulate) < 1 or self.rate <= 0 or (self.epochs < 1 and self.steps < 1):
            raise ConfigError("optimisation needs a batch, a part and an epoch of 1 or more, and a rate above 0.")
        if not 0 <= self.average < 1:
            raise ConfigError(f"optimisation.average is {self.average}; it is a decay from 0 to below 1.")

    def total_steps(self, steps_per_epoch: int) -> int:
        """Length of the training."""
        return self.steps or self.epochs * steps_per_epoch


@dataclass(frozen=True, kw_only=True)
class SamplesConfig:
    """Which samples of the table, by which views."""

    split: str = TRAIN
    validation: str = ""
    """Table to validate on; empty for the one that is trained on."""
    validation_split: str = VALIDATION
    validation_samples: int = 2000
    """At most so many, spread evenly over the split; 0 for all."""
    views: int = 4
    """Places for views in a sample: rows with more give some of them, at random in training."""
    min_views: int = 2
    """Rows by fewer cameras are left out."""
    cameras: tuple[str, ...] = ()
    """Only these, in this order; empty for all."""
    margin: float = MARGIN
    """Side of a crop over that of the box about the joints; saved with the weights."""
    damaged: bool = False
    """Take samples whose ground truth is known to be wrong."""
    shuffled_groups: int = 16
    """Row groups that are shuffled together and kept in memory by whoever reads."""


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When the state of a training is written down."""

    every: int = 500
    """Steps; a checkpoint is also written after each validation."""
    keep: int = 2
    """So many of the last ones are kept, and the best weights beside them."""


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """Where the training runs. None of this changes which samples a step takes."""

    local: bool = False
    """In this process, without Ray."""
    workers: int = 1
    """Processes that share each batch. With Ray."""
    gpus: float = 0.0
    """GPUs per worker: 1 (several workers talk by NCCL), or a share that one worker leaves the rest of to others; 0
    trains on CPUs (Gloo)."""
    cpus_per_worker: float = 1.0
    loaders: int = 0
    """Processes that decode and augment samples. 0 is enough for CPUs: a thread beside the training, or one process
    with Ray. A GPU wants about 8."""
    max_failures: int = 3
    """How often a training on Ray is resumed after the loss of a worker, within one start."""
    address: str | None = None
    """A running Ray cluster ("auto", ...); without it a Ray of this machine is started."""

    def __post_init__(self) -> None:
        if self.workers < 1 or self.loaders < 0 or (self.local and self.workers > 1):
            raise ConfigError("workers start at 1, loaders at 0, and --local has one worker.")
        require_gpus(self.gpus)
        if self.gpus > 1:
            raise ConfigError(f"--gpus {self.gpus:g}: a training worker computes on one GPU; use more --workers.")
        if 0 < self.gpus < 1 < self.workers:
            raise ConfigError(
                f"--gpus {self.gpus:g} lets the {self.workers} workers of --workers share a GPU, and NCCL needs one "
                "for each: use --gpus 1, or one worker."
            )

    @property
    def device(self) -> Device:
        """What the network computes on; ConfigError where a training in this process asks for a GPU that is not here.

        A Ray that is started on this machine is asked as it starts.
        """
        return compute_device(self.gpus, here=self.local)

    @property
    def environment(self) -> dict[str, str]:
        """Of the workers, on Ray."""
        return worker_environment(threads=max(int(self.cpus_per_worker), 1))


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training: same settings, same data and same seed give the same network."""

    data: str = ""
    """Table of samples: a file, folder or s3:// URI."""
    method: Method = field(default_factory=FusionMethod)
    samples: SamplesConfig = field(default_factory=SamplesConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimisation: OptimisationConfig = field(default_factory=OptimisationConfig)
    validate_every: int = 0
    """Steps; 0 validates after each epoch."""
    checkpoints: CheckpointConfig = field(default_factory=CheckpointConfig)
    log_every: int = 20
    """Steps between lines about loss and speed."""
    seed: int = 0
    compute: ComputeConfig = field(default_factory=ComputeConfig)

    @property
    def rule(self) -> InputRule:
        """What is saved with the weights about the input that they were trained on."""
        return input_rule(self.method, self.samples.margin)

    @property
    def view(self) -> CropView:
        """What the network is shown of a sample."""
        from mvpose.training.batches import CropView

        rule, samples = self.rule, self.samples
        return CropView(skeleton=SKELETONS[rule.skeleton], crop=rule.crop, views=samples.views, cameras=samples.cameras)

    @property
    def keeps_maps(self) -> bool:
        """Whether the objective looks at heatmaps or volumes."""
        return bool(self.objective.heatmaps or self.objective.volume or self.objective.coarse)

    def settings(self) -> dict[str, object]:
        """What the result depends on, flat: everything but where it runs, how often it tells, and what is kept."""
        rest = ("compute.", "checkpoints.", "log_every")
        return {name: value for name, value in flatten(self).items() if not name.startswith(rest)}

    def check(self) -> None:
        """ConfigError where settings contradict each other."""
        _ = self.compute.device
        rule = self.rule
        if not rule.accepts(self.samples.views):
            raise ConfigError(
                f"the network takes {rule.accepted_views} and samples have {self.samples.views}: set "
                "method.fusion.views and samples.views alike."
            )
        if rule.min_views == rule.max_views and self.augmentation.view_dropout:
            raise ConfigError("a concatenating fusion needs every view: set augmentation.view_dropout to 0, or pool.")
        early = self.objective.heatmaps or self.objective.points
        if not early and self.objective.warm_up.start > 0:
            raise ConfigError("the objective has no term before its warm-up starts: set objective.warm_up.start to 0.")
        share = self.compute.workers * self.optimisation.accumulate
        if self.optimisation.batch % share:
            raise ConfigError(
                f"a batch of {self.optimisation.batch} cannot be shared by {self.compute.workers} workers in "
                f"{self.optimisation.accumulate} parts each: use a multiple of {share}."
            )
