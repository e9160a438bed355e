import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvpose.temporal import medians as module
from mvpose.temporal.medians import NumberSpool, medians


def spooled(rows: np.ndarray, pieces: int = 1) -> NumberSpool:
    spool = NumberSpool(rows.shape[1], rows.dtype.type)
    for part in np.array_split(rows, pieces):
        spool.add(part)
    return spool


@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(0, 60),
    missing=st.sampled_from([0.0, 0.3, 0.95]),
    ties=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64]),
)
@settings(max_examples=60, deadline=None)
def test_medians_are_numpy_s_to_the_last_bit(seed, rows, missing, ties, dtype):
    rng = np.random.default_rng(seed)
    numbers = np.exp(rng.normal(0, 6, (rows, 4))).astype(dtype)
    numbers = np.round(numbers) if ties else numbers
    numbers[rng.random(numbers.shape) < missing] = np.nan
    groups = [np.array([0]), np.array([1, 3]), np.arange(4), np.array([2])]
    found = medians(spooled(numbers, pieces=3), groups)
    for median, columns in zip(found, groups, strict=True):
        there = numbers[:, columns][np.isfinite(numbers[:, columns])]
        expected = np.median(there) if there.size else np.nan
        np.testing.assert_array_equal(median, expected)


def test_rows_are_read_again_and_again_some_at_a_time(monkeypatch):
    monkeypatch.setattr(module, "_PIECE", 10)
    rows = np.random.default_rng(0).random((23, 3)).astype(np.float32)
    spool = spooled(rows, pieces=4)
    for _ in range(2):
        assert max(len(piece) for piece in spool) == 3
        np.testing.assert_array_equal(np.concatenate(list(spool)), rows)
    np.testing.assert_array_equal(medians(spool), np.median(rows, axis=0))


@pytest.mark.parametrize("extreme", [0.0, 1e38, np.finfo(np.float32).tiny])
def test_the_ends_of_what_a_float_can_say_are_numbers_like_others(extreme):
    column = np.array([[extreme], [extreme], [1.0]], np.float32)
    assert medians(spooled(column))[0] == np.float32(extreme)
