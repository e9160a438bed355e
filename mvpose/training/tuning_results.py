"""Results of a sweep: a table of its trials and the importance of the settings."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from mvpose.config import to_toml
from mvpose.training.training_config import TrainConfig
from mvpose.training.tuning_space import Choice, Integer, LogUniform, Range, Space, Uniform
from mvpose.training.tuning_trial import Trial

MIN_TRIALS = 4
"""Fewer trials do not show which settings matter."""


def numbered(values: Range, value: Any) -> float:
    """A setting's value as a number; for a choice, the index of the option."""
    return float(values.options.index(value)) if isinstance(values, Choice) else float(value)


def importance(trials: Sequence[Trial], space: Space) -> dict[str, float]:
    """Share (0..1) of the error's variance that each setting explains, by fANOVA.

    Empty if there are too few trials or all errors are equal.

    Hutter, Hoos, Leyton-Brown, "An Efficient Approach for Assessing Hyperparameter Importance", ICML 2014. The error is
    the logarithm of the lowest MPJPE. Stopped trials count too. A trial that found no joint gets twice the worst
    error.
    """
    finite = [t.error_m for t in trials if math.isfinite(t.error_m)]
    if len(finite) < MIN_TRIALS or max(finite) - min(finite) < 1e-9:
        return {}
    worst = 2 * max(finite)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="minimize")
    distributions = {path: _distribution(values) for path, values in space.items()}
    for trial in trials:
        params = {path: _drawn(values, trial.settings[path]) for path, values in space.items()}
        value = math.log(trial.error_m if math.isfinite(trial.error_m) else worst)
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=value))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=optuna.exceptions.ExperimentalWarning)
        shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {path: float(share) for path, share in shares.items()}


def _drawn(values: Range, value: Any) -> float | int:
    number = numbered(values, value)
    return number if isinstance(values, Uniform | LogUniform) else int(number)


def _distribution(values: Range) -> BaseDistribution:
    match values:
        case Uniform():
            return FloatDistribution(values.low, values.high)
        case LogUniform():
            return FloatDistribution(values.low, values.high, log=True)
        case Integer():
            return IntDistribution(values.low, values.high)
        case Choice():
            return CategoricalDistribution(tuple(range(len(values.options))))


def trials_json(trials: Sequence[Trial]) -> str:
    """All trial records as JSON, best first; a non-finite error is null."""
    rows = [asdict(t) | {"error_m": t.error_m if math.isfinite(t.error_m) else None} for t in trials]
    return json.dumps(rows, indent=1) + "\n"


def recipe(config: TrainConfig) -> str:
    """A training as a TOML file for `mvpose train --config`."""
    return to_toml(asdict(config))


def trials_markdown(trials: Sequence[Trial], space: Space) -> str:
    """Trials as a Markdown table, best first."""
    head, *rows = trial_rows(trials, space)
    return "".join(f"| {' | '.join(line)} |\n" for line in [head, ["---"] * len(head), *rows])


def trial_rows(trials: Sequence[Trial], space: Space) -> list[list[str]]:
    """A line of headings, and a line for each trial."""
    head = ["trial", "status", "MPJPE, mm", "steps", "seconds", *space]
    rows = [
        [
            t.id,
            t.status,
            f"{1000 * t.error_m:.1f}" if math.isfinite(t.error_m) else "none found",
            str(t.step),
            f"{t.seconds:.0f}",
            *(_written(t.settings[path]) for path in space),
        ]
        for t in trials
    ]
    return [head, *rows]


def _written(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
