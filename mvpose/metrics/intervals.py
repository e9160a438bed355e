"""Confidence intervals of means: percentile bootstrap over whole sequences, since their frames are not independent.

Everything is vectorised over resamples and over columns, and determined by the seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean and its confidence interval; `low` and `high` are NaN with fewer than two sequences."""

    mean: float
    low: float
    high: float
    samples: int
    """Known values that the mean is over."""


def mean_estimates(
    values: Float[np.ndarray, "n m"],
    sequences: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> list[Estimate]:
    """Frame mean of each of m columns, with its interval from resampling sequences. NaN values are ignored.

    A resample draws as many sequences as there are, with replacement, and takes the mean over all their frames.
    """
    sums, counts = _by_sequence(values, sequences)
    weights = _resampled(len(sums), resamples, seed)
    known = counts.sum(axis=0)
    return _estimates(_ratio(sums.sum(axis=0), known), _ratio(weights @ sums, weights @ counts), known, level)


def group_mean_estimate(
    values: Float[np.ndarray, " n"],
    sequences: Sequence[str],
    groups: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Estimate:
    """Mean of the groups' own frame means (for example, of actions), with its interval from resampling sequences.

    A resample without a certain group is the mean of the other groups.
    """
    names, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    spread = np.where(group[:, None] == np.arange(len(names)), values[:, None], np.nan)
    sums, counts = _by_sequence(spread, sequences)
    weights = _resampled(len(sums), resamples, seed)
    mean = _known_mean(_ratio(sums.sum(axis=0), counts.sum(axis=0))[None])
    return _estimates(mean, _known_mean(_ratio(weights @ sums, weights @ counts))[:, None], counts.sum()[None], level)[
        0
    ]


def _by_sequence(
    values: Float[np.ndarray, "n m"], sequences: Sequence[str]
) -> tuple[Float[np.ndarray, "c m"], Float[np.ndarray, "c m"]]:
    """Sums and counts of known values per sequence; sequences without any are omitted."""
    names, place = np.unique(np.asarray(sequences, dtype=str), return_inverse=True)
    known = np.isfinite(values)
    sums, counts = np.zeros((2, len(names), values.shape[1]))
    np.add.at(sums, place, np.where(known, values, 0.0))
    np.add.at(counts, place, known)
    some = counts.any(axis=1)
    return sums[some], counts[some]


def _resampled(sequences: int, resamples: int, seed: int) -> Float[np.ndarray, "r c"]:
    """How often each resample contains each sequence; no resamples if there are fewer than two sequences."""
    if sequences < 2:
        return np.zeros((0, sequences))
    rng = np.random.default_rng(seed)
    return rng.multinomial(sequences, np.full(sequences, 1.0 / sequences), size=resamples).astype(float)


def _ratio(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _known_mean(values: Float[np.ndarray, "r m"]) -> Float[np.ndarray, " r"]:
    known = np.isfinite(values)
    return _ratio(np.where(known, values, 0.0).sum(axis=1), known.sum(axis=1))


def _estimates(
    mean: Float[np.ndarray, " m"], drawn: Float[np.ndarray, "r m"], samples: Float[np.ndarray, " m"], level: float
) -> list[Estimate]:
    ends = np.array([(1 - level) / 2, (1 + level) / 2])
    limits = np.full((2, len(mean)), np.nan)
    for column, values in enumerate(drawn.T):
        known = values[np.isfinite(values)]
        if known.size:
            limits[:, column] = np.quantile(known, ends)
    return [Estimate(float(m), float(a), float(b), int(n)) for m, a, b, n in zip(mean, *limits, samples, strict=True)]
