"""Training settings, as written in the TOML files of `jobs/configs`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Literal

from mvpose.accelerator import Device, compute_device, require_gpus
from mvpose.config import flatten
from mvpose.datasets import TRAIN, VALIDATION
from mvpose.errors import ConfigError
from mvpose.models.input_rule import MARGIN, InputRule, input_rule
from mvpose.models.network_settings import FieldsMethod, FusionMethod, Method, MonocularMethod
from mvpose.models.objective_settings import ObjectiveConfig
from mvpose.ray_session import worker_environment
from mvpose.skeleton import SKELETONS

if TYPE_CHECKING:
    from mvpose.training.batches import CropView


@dataclass(frozen=True, kw_only=True)
class AugmentationConfig:
    """Ranges of the random augmentations. With every value 0, samples are unchanged."""

    rotation_degrees: float = 15.0
    """Maximum in-plane rotation of a crop, drawn per view."""
    scale: float = 0.15
    """Maximum relative change of the person's size in the crop."""
    shift: float = 0.05
    """Maximum offset of the person from the crop's centre, as a share of its side. Detector boxes are inexact."""
    colour: float = 0.2
    """Maximum relative change of brightness, contrast and the gain of each channel."""
    occluders: float = 0.3
    """Probability, per view, of covering part of the crop with a textured rectangle."""
    occluder_side: float = 0.5
    """Maximum side of the rectangle, as a share of the crop's side."""
    view_dropout: float = 0.0
    """Probability of dropping a view. Only for fusions that accept any number of views."""
    kept_views: int = 2
    """Minimum number of views left by view dropout."""
    mirror: float = 0.0
    """Probability of mirroring the whole scene (people, cameras, crops). Mirroring changes the rig, so use 0 for a
    fusion without cameras, which must learn its own rig."""

    def __post_init__(self) -> None:
        for name in (setting.name for setting in fields(self)):
            if getattr(self, name) < 0:
                raise ConfigError(f"augmentation.{name} is {getattr(self, name)}; it must not be negative.")
        for name in ("scale", "shift", "colour", "occluders", "occluder_side", "view_dropout", "mirror"):
            if getattr(self, name) > 1:
                raise ConfigError(f"augmentation.{name} is {getattr(self, name)}; it must be a share between 0 and 1.")


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
    """Learning rate of the modules named in `slow`; by default the same as `rate`."""
    slow: tuple[str, ...] = ("backbone",)
    """Names of the modules that train at `slow_rate`."""
    weight_decay: float = 1e-4
    """Weight decay; not applied to biases and normalisation layers."""
    momentum: float = 0.9
    """Momentum of SGD."""
    batch: int = 32
    """Samples per step, over all workers."""
    accumulate: int = 1
    """Gradient accumulation: parts into which a worker splits its share of a batch, to save memory."""
    epochs: int = 50
    steps: int = 0
    """Length in steps, overriding `epochs`; 0: use `epochs`."""
    schedule: Literal["constant", "step", "cosine"] = "cosine"
    rise: int = 500
    """Warm-up steps over which the rate rises from 0; at most a tenth of all steps."""
    drops: tuple[float, ...] = (0.6, 0.85)
    """For the schedule `step`: progress values (0..1) at which the rate is divided by ten."""
    clip: float = 10.0
    """Maximum gradient norm; 0 disables clipping."""
    average: float = 0.999
    """Decay of the averaged weights (EMA), which are validated and saved; 0 disables averaging."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 runs the network under autocast; weights, geometry and losses stay in float32."""
    compile: bool = False
    """Compile the network (`torch.compile`): the first steps take minutes, later ones less time."""

    def __post_init__(self) -> None:
        if min(self.batch, self.accumulate) < 1 or self.rate <= 0 or (self.epochs < 1 and self.steps < 1):
            raise ConfigError("optimisation: batch, accumulate and epochs (or steps) must be at least 1, rate above 0.")
        if not 0 <= self.average < 1:
            raise ConfigError(f"optimisation.average is {self.average}; it must be at least 0 and below 1.")

    def total_steps(self, steps_per_epoch: int) -> int:
        """Length of the training in steps."""
        return self.steps or self.epochs * steps_per_epoch


@dataclass(frozen=True, kw_only=True)
class SamplesConfig:
    """Selection of samples and views."""

    split: str = TRAIN
    validation: str = ""
    """Validation table; empty for the training table."""
    validation_split: str = VALIDATION
    validation_share: float = 0.0
    """Without a validation split: share of the training split's recordings (captures; of rendered people, motions) that
    validate and are not trained on."""
    validation_samples: int = 2000
    """Maximum validation samples, spread evenly over the split; 0 for all."""
    views: int = 4
    """Maximum views per sample. Of samples with more, training uses a random subset. A network that takes one image
    answers each of them alone."""
    min_views: int = 2
    """Skip samples with fewer cameras."""
    cameras: tuple[str, ...] = ()
    """Cameras to use, in this order; empty for all."""
    margin: float = MARGIN
    """Ratio of the crop's side to that of the box around the joints; saved with the weights."""
    damaged: bool = False
    """Include samples whose ground truth is known to be wrong."""
    shuffled_groups: int = 16
    """Row groups shuffled together; each worker keeps this many in memory."""

    def __post_init__(self) -> None:
        if not 0 <= self.validation_share < 1:
            raise ConfigError(f"samples.validation_share is {self.validation_share}; it must be from 0 to below 1.")
        if self.validation_share and self.validation:
            raise ConfigError(
                "samples.validation_share is of the training table: drop samples.validation, or the share."
            )


@dataclass(frozen=True, kw_only=True)
class TokenCacheConfig:
    """Training on tokens of a frozen detector, which are made once and kept beside the table (`canonical_tokens`)."""

    draws: int = 0
    """Disturbed versions of every view, beside the one in full view. 0: no cache, the network sees crops."""
    furniture: float = 0.45
    """Probability of furniture in front of the person, in a disturbed version."""
    people: float = 0.2
    """Probability of another person in front."""
    edge: float = 0.25
    """Probability of the image's edge through the person."""
    misplaced: float = 0.3
    """Probability of a box that is shifted, too large, or about another person."""
    blurred: float = 0.25
    """Probability of blur and noise."""
    label_views: int = 5
    """Minimum number of views that agree on a joint that serves as a label. Of a finished run, `dataset convert` has
    chosen the joints."""
    label_offset_m: float = 0.06
    """Maximum distance of such a joint from the table's, beyond the constant offset between the two definitions."""
    full_view: float = 0.4
    """Minimum probability of the version in full view. Samples differ: each draws its own, from this to 1."""
    exchanged_sides: float = 0.02
    """Probability, per view and step, of tokens whose left and right are exchanged."""
    another_person: float = 0.02
    """Probability, per view and step, of tokens of another sample."""
    wrong_camera: float = 0.2
    """Probability, per sample and step, of cameras rotated by up to `wrong_degrees`, with focal lengths off by up to
    `wrong_focal`."""
    wrong_degrees: float = 0.5
    wrong_focal: float = 0.01

    def __post_init__(self) -> None:
        chances = ("furniture", "people", "edge", "misplaced", "blurred", "full_view", "exchanged_sides")
        for name in (*chances, "another_person", "wrong_camera"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"cache.{name} is {getattr(self, name)}; it must be a share between 0 and 1.")
        if self.draws < 0 or self.label_views < 2:
            raise ConfigError(f"cache.draws is {self.draws} and cache.label_views {self.label_views}: 0 and 2 or more.")


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """Interval and number of checkpoints."""

    every: int = 500
    """Steps between checkpoints; one is also written after each validation."""
    keep: int = 2
    """Number of recent checkpoints to keep, in addition to the best weights."""


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """Compute resources of a training. They do not change which samples a step uses."""

    local: bool = False
    """Train in this process, without Ray."""
    workers: int | str = 1
    """Processes that share each batch (Ray only). 2-8: as many as the cluster has room for, checked every minute."""
    gpus: float = 0.0
    """GPUs per worker: 0 trains on CPUs (Gloo), 1 on GPUs (NCCL between workers). With a
    fraction, a single worker shares its GPU with other jobs."""
    cpus_per_worker: float = 1.0
    loaders: int = 0
    """Processes per worker that decode and augment samples; 0 uses a thread of the worker, which is enough on CPUs. A
    GPU needs about 8. Each reads its own row groups: more than `samples.shuffled_groups` have nothing to do."""
    max_failures: int = 3
    """Maximum restarts after the loss of a worker, per run on Ray."""
    address: str | None = None
    """Address of a running Ray cluster ("auto", ...). By default a local Ray is started."""

    def __post_init__(self) -> None:
        if self.min_workers < 1 or self.loaders < 0 or (self.local and self.max_workers > 1):
            raise ConfigError("workers must be at least 1 and loaders at least 0; --local allows only one worker.")
        require_gpus(self.gpus)
        if self.gpus > 1:
            raise ConfigError(f"--gpus {self.gpus:g}: a training worker uses one GPU; for more, increase --workers.")
        if 0 < self.gpus < 1 < self.max_workers:
            raise ConfigError(
                f"--gpus {self.gpus:g} makes {self.workers} workers share a GPU, but NCCL needs one GPU per worker: "
                "use --gpus 1, or a single worker."
            )

    @property
    def min_workers(self) -> int:
        """Minimum number of workers."""
        return self._workers[0]

    @property
    def max_workers(self) -> int:
        """Maximum number of workers."""
        return self._workers[1]

    @property
    def _workers(self) -> tuple[int, int]:
        parts = re.fullmatch(r"(\d+)(?:-(\d+))?", str(self.workers))
        if parts is None or int(parts[1]) > int(parts[2] or parts[1]):
            raise ConfigError(f"workers is {self.workers!r}; it must be a number, or a range such as 2-8.")
        return int(parts[1]), int(parts[2] or parts[1])

    @property
    def device(self) -> Device:
        """The device to compute on. ConfigError if a training in this process requests a GPU and there is none.

        A local Ray is checked when it starts.
        """
        return compute_device(self.gpus, here=self.local)

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of the workers on Ray."""
        return worker_environment(threads=max(int(self.cpus_per_worker), 1))


PLACES = ("data", "samples.validation")
"""Settings that say where the tables are; their digests say which they are."""


def without_places(settings: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Flat settings to compare: a table that is named in another way, or was moved, is the same."""
    return {name: value for name, value in settings.items() if name.removeprefix(prefix) not in PLACES}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of a training. The same settings, data and seed give the same network."""

    data: str = ""
    """Table of samples: a file, folder or s3:// URI."""
    method: Method = field(default_factory=FusionMethod)
    initial: str = ""
    """Trained network of the same method to start from: its folder, a name from `mvpose models list`, or
    models:/NAME@ALIAS. (`method.backbone.weights` starts the backbone alone.)"""
    samples: SamplesConfig = field(default_factory=SamplesConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    cache: TokenCacheConfig = field(default_factory=TokenCacheConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimisation: OptimisationConfig = field(default_factory=OptimisationConfig)
    validate_every: int = 0
    """Steps between validations; 0 validates after each epoch."""
    checkpoints: CheckpointConfig = field(default_factory=CheckpointConfig)
    log_every: int = 20
    """Steps between log lines."""
    seed: int = 0
    compute: ComputeConfig = field(default_factory=ComputeConfig)

    @property
    def rule(self) -> InputRule:
        """The input rule to save with the weights."""
        return input_rule(self.method, self.samples.margin)

    @property
    def view(self) -> CropView:
        """The part of a sample that the network sees."""
        from mvpose.training.batches import CropView

        rule, samples = self.rule, self.samples
        return CropView(skeleton=SKELETONS[rule.skeleton], crop=rule.crop, views=samples.views, cameras=samples.cameras)

    @property
    def keeps_maps(self) -> bool:
        """Whether the objective uses heatmaps, volumes, scores or poses in the camera's axes."""
        goal = self.objective
        monocular = goal.volume_points or goal.span or goal.consistency
        return bool(goal.heatmaps or goal.volume or goal.coarse or goal.simcc or monocular)

    @property
    def leaves_size_open(self) -> bool:
        """Whether no term tells a monocular network how large people are."""
        goal = self.objective
        return self.rule.one_view and not (goal.span or goal.joints or goal.coarse)

    def located(self) -> TrainConfig:
        """The same settings for processes with another working directory: local files have absolute paths."""
        from mvpose.storage.locations import absolute, exists

        backbone, validation = self.method.backbone, self.samples.validation
        if backbone.weights and exists(backbone.weights):
            backbone = replace(backbone, weights=absolute(backbone.weights))
        return replace(
            self,
            data=absolute(self.data),
            method=replace(self.method, backbone=backbone),
            initial=absolute(self.initial) if self.initial else "",
            samples=replace(self.samples, validation=absolute(validation) if validation else ""),
        )

    def settings(self) -> dict[str, object]:
        """Flat settings that determine the result: all except compute, logging and checkpoints."""
        rest = ("compute.", "checkpoints.", "log_every")
        return {name: value for name, value in flatten(self).items() if not name.startswith(rest)}

    def check(self) -> None:
        """Raise ConfigError if settings contradict each other."""
        _ = self.compute.device
        rule = self.rule
        self._check_monocular()
        if not rule.one_view and not rule.accepts(self.samples.views):
            raise ConfigError(
                f"the network takes {rule.accepted_views}, but samples.views is {self.samples.views}: set "
                "the method's own number of views (method.fusion.views) and samples.views to the same number."
            )
        if rule.min_views == rule.max_views and self.augmentation.view_dropout:
            raise ConfigError("this fusion needs every view: set augmentation.view_dropout to 0, or use pooling.")
        if isinstance(self.method, FieldsMethod) and self.augmentation.mirror:
            raise ConfigError("augmentation.mirror is for samples of one person: set it to 0 for affinity_fields.")
        goal = self.objective
        early = goal.heatmaps or goal.points or goal.likelihood or goal.simcc or goal.volume_points
        if not early and goal.warm_up.start > 0:
            raise ConfigError("the objective has no term before its warm-up starts: set objective.warm_up.start to 0.")
        self._check_shares()

    def _check_shares(self) -> None:
        """Of a number of workers that may change, some need not divide the batch; then their shares differ by one."""
        batch, parts, compute = self.optimisation.batch, self.optimisation.accumulate, self.compute
        if compute.min_workers < compute.max_workers and parts == 1 and batch >= compute.max_workers:
            return
        for workers in range(compute.min_workers, compute.max_workers + 1):
            if batch % (workers * parts):
                raise ConfigError(
                    f"a batch of {batch} cannot be divided among {workers} workers in {parts} parts each: use a "
                    f"multiple of {workers * parts}."
                )

    def _check_monocular(self) -> None:
        """A network that takes one image answers every view of a sample alone, and has terms of its own."""
        goal, method = self.objective, self.method
        if not isinstance(method, MonocularMethod):
            if goal.volume_points or goal.span or goal.consistency:
                raise ConfigError("objective.volume_points, span and consistency need method.method monocular.")
            return
        if method.monocular.root != goal.root:
            raise ConfigError(f"method.monocular.root {method.monocular.root} and objective.root {goal.root} differ.")
        if goal.consistency and (self.samples.views < 2 or len(goal.root) != 1):
            raise ConfigError("objective.consistency compares views: set samples.views to 2 or more, and one root.")
        if goal.consistency and method.monocular.head in ("regression", "two_and_half_d"):
            # Observed with a regression: without 3D labels its poses grew to metres in depth within 250 steps.
            raise ConfigError("objective.consistency needs a head of bounded depth: integral, volume or ray_volume.")
        if goal.consistency and method.monocular.refinement:
            raise ConfigError("objective.consistency trains a head, which a refinement unit keeps as it is.")
        if method.monocular.refinement and not self.initial:
            raise ConfigError("a refinement unit corrects a trained network: name it in `initial`.")
