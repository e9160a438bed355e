"""Gap filling: a limit, a flag for every value, nothing held and nothing extrapolated."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvpose.temporal.gaps import gap_reach, gaps_filled, unbroken_runs


def test_runs_are_half_open_and_in_order():
    assert unbroken_runs(np.array([1, 1, 0, 1, 0, 0, 1], dtype=bool)) == [(0, 2), (3, 4), (6, 7)]
    assert unbroken_runs(np.zeros(3, dtype=bool)) == []
    assert unbroken_runs(np.zeros(0, dtype=bool)) == []


@given(st.lists(st.booleans(), max_size=30))
def test_runs_tile_what_is_there(there):
    covered = np.zeros(len(there), dtype=bool)
    for start, stop in unbroken_runs(np.array(there, dtype=bool)):
        assert not covered[max(0, start - 1) : stop + 1].any()
        covered[start:stop] = True
    assert covered.tolist() == there


@pytest.mark.parametrize("limit", [0, 4, 5])
def test_a_gap_is_filled_up_to_the_limit_and_not_beyond(limit):
    track = np.arange(30.0)[:, None, None] * np.array([1.0, -2.0, 0.5])
    broken = track.copy()
    broken[10:15] = np.nan
    out, filled = gaps_filled(broken, limit)
    assert filled.sum() == (5 if limit >= 5 else 0)
    assert np.allclose(out, track if limit >= 5 else broken, equal_nan=True)


def test_ends_are_never_filled():
    track = np.ones((20, 1, 3))
    track[:3] = track[17:] = np.nan
    out, filled = gaps_filled(track, 100)
    assert not filled.any() and np.isnan(out[:3]).all() and np.isnan(out[17:]).all()


@given(seed=st.integers(0, 10**6), limit=st.integers(0, 8))
@settings(deadline=None)
def test_filled_values_are_flagged_known_ones_untouched_and_none_overshoots(seed, limit):
    rng = np.random.default_rng(seed)
    track = rng.normal(size=(25, 2, 3)).cumsum(axis=0)
    track[rng.random((25, 2)) < 0.4] = np.nan
    out, filled = gaps_filled(track, limit)
    known = np.isfinite(track).all(axis=-1)
    assert not (filled & known).any()
    assert np.array_equal(out[known], track[known])
    assert np.array_equal(np.isfinite(out).all(axis=-1), known | filled)
    for k in range(2):
        for start, stop in unbroken_runs(filled[:, k]):
            assert stop - start <= limit
            ends = out[[start - 1, stop], k]
            assert (out[start:stop, k] >= ends.min(axis=0) - 1e-9).all()
            assert (out[start:stop, k] <= ends.max(axis=0) + 1e-9).all()


def test_a_moving_joint_is_not_frozen_in_its_gap():
    track = np.arange(40.0)[:, None, None] ** 1.5 * np.ones((1, 1, 3))
    track[15:25] = np.nan
    out, _ = gaps_filled(track, 20)
    assert (np.diff(out[:, 0, 0]) > 0).all()


@given(seed=st.integers(0, 10**6), limit=st.integers(1, 5))
@settings(max_examples=30, deadline=None)  # of 60 frames each
def test_a_filled_value_depends_on_nothing_beyond_its_reach(seed, limit):
    rng = np.random.default_rng(seed)
    track = rng.normal(size=(60, 1, 3)).cumsum(axis=0)
    track[rng.random((60, 1)) < 0.6] = np.nan
    out, filled = gaps_filled(track, limit)
    reach = gap_reach(limit)
    for t in range(60):
        first = max(0, t - reach)
        near, there = gaps_filled(track[first : t + reach + 1], limit)
        assert there[t - first] == filled[t]
        np.testing.assert_allclose(near[t - first], out[t], atol=1e-12)
