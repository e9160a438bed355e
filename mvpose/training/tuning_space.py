"""The search space of a sweep: training settings by dotted name, each with its range of values.

This module has no `from __future__ import annotations`: cattrs needs the evaluated `Literal`s to distinguish ranges.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from mvpose.config import structure, without_other_kinds
from mvpose.errors import ConfigError
from mvpose.training.training_config import TrainConfig

if TYPE_CHECKING:
    from ray.tune.search.sample import Domain


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """A number between `low` and `high`, uniformly distributed."""

    kind: Literal["uniform"] = "uniform"
    low: float
    high: float

    def __post_init__(self) -> None:
        _ordered(self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class LogUniform:
    """A number between `low` and `high`, uniformly distributed on a logarithmic scale."""

    kind: Literal["loguniform"] = "loguniform"
    low: float
    high: float

    def __post_init__(self) -> None:
        _ordered(self.low, self.high)
        if self.low <= 0:
            raise ConfigError(f"the low end of a loguniform range is {self.low}; it must be above 0.")


@dataclass(frozen=True, kw_only=True)
class Integer:
    """An integer from `low` to `high`, both included."""

    kind: Literal["integer"] = "integer"
    low: int
    high: int

    def __post_init__(self) -> None:
        _ordered(self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of the listed values, of any type that the setting accepts."""

    kind: Literal["choice"] = "choice"
    options: tuple[Any, ...]

    def __post_init__(self) -> None:
        if len(self.options) < 2:
            raise ConfigError("a choice needs at least two options.")


Range = Uniform | LogUniform | Integer | Choice
Space = dict[str, Range]


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """Settings of the search."""

    trials: int = 16
    searcher: Literal["tpe", "random"] = "tpe"
    """tpe: Optuna's tree-structured Parzen estimator, which learns from completed trials."""
    scheduler: Literal["asha", "pbt", "none"] = "asha"
    """asha stops the worse trials at each rung. pbt continues them with the weights of a better trial and perturbed
    values, and needs settings that can change during training."""
    grace: float = 0.125
    """First rung of ASHA: share of its training that every trial completes."""
    reduction: float = 3.0
    """Reduction factor of ASHA: one trial in this many advances to the next rung, which is this many times further."""
    perturb_every: float = 0.1
    """Share of the training between two perturbations by PBT."""
    concurrent: int = 0
    """Maximum concurrent trials; 0 for as many as the resources allow."""
    seed: int = 0
    """Seed of the search. Trainings have their own seed."""

    def __post_init__(self) -> None:
        if self.trials < 1 or self.concurrent < 0 or not 0 < self.grace < 1 or self.reduction <= 1:
            raise ConfigError(
                "sweep: trials must be 1 or more, concurrent 0 or more, grace in 0..1, reduction above 1."
            )
        if not 0 < self.perturb_every < 1:
            raise ConfigError("sweep.perturb_every must be between 0 and 1.")


MUTABLE = ("optimisation.rate", "optimisation.slow_rate", "optimisation.weight_decay", "optimisation.clip")
"""Settings that can change during training. Network shape, sample order and length cannot."""


def applied(config: TrainConfig, values: dict[str, Any]) -> TrainConfig:
    """A training with the given values of dotted names. ConfigError names a value that a setting does not accept."""
    plain = asdict(config)
    for path, value in values.items():
        *outer, last = path.split(".")
        place = plain
        for name in outer:
            place = place[name]
        place[last] = value
    changed = structure(
        without_other_kinds(plain, TrainConfig),
        TrainConfig,
        ", ".join(f"{path} = {value!r}" for path, value in values.items()),
    )
    changed.check()
    return changed


def check_space(space: Space, config: TrainConfig, *, mutable: bool = False) -> None:
    """Raise ConfigError for names of no setting that affects the result, and for values that a setting does not accept.

    With `mutable`, also for settings that cannot change during training.
    """
    if not space:
        raise ConfigError('a sweep needs a [space] table with entries such as "optimisation.rate" = { kind = ... }.')
    known = config.settings()
    for path, values in space.items():
        if path not in known or path == "data":
            raise ConfigError(f"space: training has no searchable setting {path}.{_near(path, known)}")
        if isinstance(values, Uniform | LogUniform) and type(known[path]) in (int, bool):
            raise ConfigError(f"space: {path} takes integers: use kind integer or choice.")
        if mutable and (path not in MUTABLE or not isinstance(values, Uniform | LogUniform)):
            raise ConfigError(f"space: {path} cannot change during training; only {', '.join(MUTABLE)} can.")
        for value in values.options if isinstance(values, Choice) else (values.low, values.high):
            applied(config, {path: value})


def _near(path: str, known: dict[str, object]) -> str:
    last = path.rsplit(".", 1)[-1]
    alike = [name for name in known if name.rsplit(".", 1)[-1] == last]
    return f" Did you mean {' or '.join(alike)}?" if alike else ""


def domains(space: Space) -> dict[str, Domain]:
    """The space as Ray Tune domains. Choices are drawn by index, because options may be lists."""
    return {path: _domain(values) for path, values in space.items()}


def _domain(values: Range) -> Domain:
    from ray import tune

    match values:
        case Uniform():
            return tune.uniform(values.low, values.high)
        case LogUniform():
            return tune.loguniform(values.low, values.high)
        case Integer():
            return tune.randint(values.low, values.high + 1)
        case Choice():
            return tune.choice(list(range(len(values.options))))


def decoded(space: Space, sampled: dict[str, Any]) -> dict[str, Any]:
    """Values of settings from a sample of `domains`."""
    found: dict[str, Any] = {}
    for path, values in space.items():
        drawn = sampled[path]
        found[path] = (
            values.options[drawn]
            if isinstance(values, Choice)
            else int(drawn)
            if isinstance(values, Integer)
            else float(drawn)
        )
    return found


def _ordered(low: float | int, high: float | int) -> None:
    if not low < high:
        raise ConfigError(f"low is {low} and high is {high}: low must be below high.")
