"""What a sweep found: a table of its trials, and which settings mattered."""

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

from mvpose.training.tuning_space import Choice, Integer, LogUniform, Range, Space, Uniform
from mvpose.training.tuning_trial import Trial

MIN_TRIALS = 4
"""Fewer say nothing about what matters."""


def numbered(values: Range, value: Any) -> float:
    """A setting's value as a number; of a choice, the number of its option."""
    return float(values.options.index(value)) if isinstance(values, Choice) else float(value)


def importance(trials: Sequence[Trial], space: Space) -> dict[str, float]:
    """Share (0..1) of the variance of the error that each setting explains, by fANOVA; empty where trials are too few
    or all alike.

    Hutter, Hoos, Leyton-Brown, "An Efficient Approach for Assessing Hyperparameter Importance", ICML 2014. The error is
    the logarithm of the lowest MPJPE, of trials that were given up as well; a trial that found no joint counts as twice
    the worst one.
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
    """All that is known of the trials, best first; an error that is not finite is null."""
    rows = [asdict(t) | {"error_m": t.error_m if math.isfinite(t.error_m) else None} for t in trials]
    return json.dumps(rows, indent=1) + "\n"


def trials_markdown(trials: Sequence[Trial], space: Space) -> str:
    """A table of the trials, best first."""
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
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _written(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
