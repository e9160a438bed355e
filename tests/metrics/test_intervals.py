"""Bootstrap over sequences."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvpose.metrics.intervals import group_mean_estimate, mean_estimates


def clustered(rng: np.random.Generator, sequences: int = 30, frames: int = 20) -> tuple[np.ndarray, list[str]]:
    """Frames of one sequence share most of their error: true mean 1, deviation 0.3 between, 0.05 within."""
    level = 1 + 0.3 * rng.standard_normal(sequences)
    values = np.repeat(level, frames) + 0.05 * rng.standard_normal(sequences * frames)
    return values, [f"s{i}" for i in np.repeat(np.arange(sequences), frames)]


def test_the_interval_holds_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        values, sequences = clustered(rng)
        estimate = mean_estimates(values[:, None], sequences, resamples=400)[0]
        held += estimate.low <= 1.0 <= estimate.high
    assert 0.88 <= held / 200 <= 0.98


def test_frames_of_one_sequence_do_not_make_it_surer():
    """The interval of frames taken as independent would be 5 times narrower."""
    values, sequences = clustered(np.random.default_rng(1))
    once = mean_estimates(values[::20, None], sequences[::20])[0]
    often = mean_estimates(values[:, None], sequences)[0]
    assert 0.8 < (often.high - often.low) / (once.high - once.low) < 1.2


@given(seed=st.integers(0, 2**16), columns=st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_columns_at_once_equal_a_loop_over_columns_and_resamples(seed: int, columns: int):
    rng = np.random.default_rng(seed)
    sequences = [f"s{i}" for i in (*range(5), *rng.integers(0, 5, 35))]
    values = rng.uniform(size=(40, columns))
    values[5:][rng.uniform(size=(35, columns)) < 0.2] = np.nan
    names = sorted(set(sequences))
    found = mean_estimates(values, sequences, resamples=50, seed=seed)
    draws = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=50)
    for column, estimate in enumerate(found):
        means = []
        for draw in draws:
            drawn = [
                values[np.array(sequences) == n, column] for n, k in zip(names, draw, strict=True) for _ in range(k)
            ]
            means.append(np.nanmean(np.concatenate(drawn)))
        assert estimate.mean == pytest.approx(np.nanmean(values[:, column]))
        assert (estimate.low, estimate.high) == pytest.approx(tuple(np.nanquantile(means, [0.025, 0.975])))


def test_one_sequence_has_a_mean_and_no_interval():
    estimate = mean_estimates(np.array([[1.0], [3.0]]), ["a", "a"])[0]
    assert estimate.mean == 2.0 and np.isnan(estimate.low) and np.isnan(estimate.high)


def test_nothing_known_is_nan():
    assert np.isnan(mean_estimates(np.full((2, 1), np.nan), ["a", "b"])[0].mean)


def test_in_a_mean_over_groups_a_long_group_counts_like_a_short_one():
    values = np.array([1.0] * 9 + [3.0])
    estimate = group_mean_estimate(values, [f"s{i}" for i in range(10)], ["long"] * 9 + ["short"])
    assert estimate.mean == 2.0
    # A resample without the short group is the long one's mean.
    assert estimate.low == 1.0 and estimate.high == 2.0
