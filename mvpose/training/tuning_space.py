"""What a sweep searches: settings of a training by their dotted names, each with the values it may take.

Annotations are not postponed here: cattrs tells the kinds of ranges apart by their `Literal`s only where it sees them.
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
    """Any number from `low` to `high`."""

    kind: Literal["uniform"] = "uniform"
    low: float
    high: float

    def __post_init__(self) -> None:
        _ordered(self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class LogUniform:
    """Any number from `low` to `high`, each decade as likely as any other."""

    kind: Literal["loguniform"] = "loguniform"
    low: float
    high: float

    def __post_init__(self) -> None:
        _ordered(self.low, self.high)
        if self.low <= 0:
            raise ConfigError(f"a loguniform setting starts above 0, not at {self.low}.")


@dataclass(frozen=True, kw_only=True)
class Integer:
    """A whole number from `low` to `high`, both included."""

    kind: Literal["integer"] = "integer"
    low: int
    high: int

    def __post_init__(self) -> None:
        _ordered(self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of these values, of any type that the setting takes."""

    kind: Literal["choice"] = "choice"
    options: tuple[Any, ...]

    def __post_init__(self) -> None:
        if len(self.options) < 2:
            raise ConfigError("a choice needs two options or more.")


Range = Uniform | LogUniform | Integer | Choice
Space = dict[str, Range]


@dataclass(frozen=True, kw_only=True)
class SweepConfig:
    """How a space is searched."""

    trials: int = 16
    searcher: Literal["tpe", "random"] = "tpe"
    """tpe: Optuna's tree-structured Parzen estimator, which learns from the trials that have ended."""
    scheduler: Literal["asha", "pbt", "none"] = "asha"
    """asha gives up the worse trials at each rung; pbt lets them go on with the weights and changed rates of a better
    one, for settings that may change on the way."""
    grace: float = 0.125
    """Share of its training that ASHA lets every trial do; the first rung."""
    reduction: float = 3.0
    """One trial in so many gets from a rung to the next, which is so many times as far."""
    perturb_every: float = 0.1
    """Share of the training between two changes by PBT."""
    concurrent: int = 0
    """Trials at a time; 0 for as many as there is room for."""
    seed: int = 0
    """Of the search; that of the trainings is a setting of theirs."""

    def __post_init__(self) -> None:
        if self.trials < 1 or self.concurrent < 0 or not 0 < self.grace < 1 or self.reduction <= 1:
            raise ConfigError("a sweep has 1 trial or more, a grace between 0 and 1, and a reduction above 1.")
        if not 0 < self.perturb_every < 1:
            raise ConfigError("perturb_every must be between 0 and 1.")


MUTABLE = ("optimisation.rate", "optimisation.slow_rate", "optimisation.weight_decay", "optimisation.clip")
"""What may change while a network is trained: neither its shape, nor the order of its samples, nor its length."""


def applied(config: TrainConfig, values: dict[str, Any]) -> TrainConfig:
    """A training with other values for some dotted names; ConfigError names a value that the setting does not take."""
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
    """ConfigError for a name that is no setting which the result depends on, or for values that it cannot take.

    With `mutable`, also for what cannot change while a network is trained.
    """
    if not space:
        raise ConfigError('a sweep needs a space: [space] with lines such as "optimisation.rate" = { kind = ... }.')
    known = config.settings()
    for path, values in space.items():
        if path not in known or path == "data":
            raise ConfigError(f"space: a training has no setting {path} that can be searched.{_near(path, known)}")
        if isinstance(values, Uniform | LogUniform) and type(known[path]) in (int, bool):
            raise ConfigError(f"space: {path} takes whole values: use kind integer or choice.")
        if mutable and (path not in MUTABLE or not isinstance(values, Uniform | LogUniform)):
            raise ConfigError(f"space: {path} cannot change while a network is trained; {', '.join(MUTABLE)} can.")
        for value in values.options if isinstance(values, Choice) else (values.low, values.high):
            applied(config, {path: value})


def _near(path: str, known: dict[str, object]) -> str:
    last = path.rsplit(".", 1)[-1]
    alike = [name for name in known if name.rsplit(".", 1)[-1] == last]
    return f" Did you mean {' or '.join(alike)}?" if alike else ""


def domains(space: Space) -> dict[str, Domain]:
    """The space as Ray Tune samples it. Choices are drawn by number, since options may be lists."""
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
    """Values of settings from what Ray Tune sampled of `domains`."""
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
        raise ConfigError(f"a range goes from a lower to a higher value, not from {low} to {high}.")
