"""Which samples a step takes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvpose.errors import ConfigError
from mvpose.training.order import SampleOrder, Split

SIZES = st.integers(1, 200)


def order_alone(groups: np.ndarray, seed: int, epoch: int, window: int) -> np.ndarray:
    """The whole epoch of a single worker, written plainly: windows of groups one after the other, each shuffled."""
    rng = np.random.default_rng([seed, epoch])
    shuffled = rng.permutation(np.unique(groups))
    keys, found = rng.random(len(groups)), []
    for first in range(0, len(shuffled), window):
        rows = np.flatnonzero(np.isin(groups, shuffled[first : first + window]))
        found += rows[np.argsort(keys[rows])].tolist()
    return np.array(found)


@given(n=SIZES, groups=st.integers(1, 12), window=st.integers(1, 5), seed=st.integers(0, 9), epoch=st.integers(0, 9))
def test_an_epoch_of_one_worker_is_a_permutation_of_the_windows_in_turn(n, groups, window, seed, epoch):
    """Trainings of earlier versions continue with the samples that they would have used."""
    group_of = np.sort(np.random.default_rng(n).integers(0, groups, n))
    order = SampleOrder(np.arange(n), group_of, 1, seed, window)
    found = [row for step in range(epoch * n, epoch * n + n) for row in order.take(step).rows]
    assert found == order_alone(group_of, seed, epoch, window).tolist()
    assert sorted(found) == list(range(n))


def groups_read(rows: list[int], group_of: np.ndarray, kept: int) -> int:
    """How many groups a reader reads that keeps so many of them."""
    read, there = 0, []
    for group in group_of[rows].tolist():
        read += group not in there
        there = [*(g for g in there if g != group), group][-kept:]
    return read


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
@pytest.mark.parametrize("loaders", [1, 3, 8])
def test_all_loaders_of_all_workers_together_read_the_table_once(workers, loaders):
    """But for the groups that two workers share: fewer than there are workers. Fails if any two read the same."""
    group_of, window, batch = np.arange(3200) // 20, 16, 24
    order = SampleOrder(np.arange(3200), group_of, batch, seed=1, window=window)
    splits, read = (Split(0, workers),), 0
    for rank in range(workers):
        rows: list[list[int]] = [[] for _ in range(loaders)]
        for step in range(order.steps_per_epoch):
            parts = order.parts(step, rank, splits, loaders)
            assert sorted(place for part in parts for place in part.places) == list(range(len(parts[0].rows)))
            for own, part in zip(rows, parts, strict=True):
                own += part.read
        read += sum(groups_read(own, group_of, math.ceil(window / loaders)) for own in rows if own)
        shares = [len(own) for own in rows]
        assert max(shares) <= 1.35 * np.mean(shares)
    assert 160 <= read < 160 + workers


@given(batch=st.integers(1, 24), workers=st.sampled_from([1, 2, 3, 4]), step=st.integers(0, 50))
def test_workers_share_a_batch_without_overlap(batch, workers, step):
    rows = np.arange(100, 150)
    order = SampleOrder(rows, rows // 10, batch, seed=3, window=2)
    shares = [order.take(step, rank, (Split(0, workers),)).rows for rank in range(workers)]
    together = [row for share in shares for row in share]
    assert len(set(together)) == len(together) == batch and set(together) <= set(rows.tolist())
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@given(batch=st.integers(4, 9), counts=st.lists(st.integers(1, 4), min_size=1, max_size=4), data=st.data())
def test_an_epoch_takes_each_row_once_however_often_the_number_of_workers_changes(batch, counts, data):
    """Fails if workers that come or go start the epoch again, or read on where others have been."""
    rows = np.arange(100, 223)
    order = SampleOrder(rows, rows // 10, batch, seed=5, window=3)
    first, stop = order.steps_per_epoch, 2 * order.steps_per_epoch
    changed = st.lists(st.integers(1, stop - 1), min_size=len(counts) - 1, max_size=len(counts) - 1, unique=True)
    changes = sorted(data.draw(changed))
    splits = tuple(Split(step, count) for step, count in zip((0, *changes), counts, strict=True))
    used = []
    for step in range(first, stop):
        workers = [split for split in splits if split.step <= step][-1].workers
        used += [row for rank in range(workers) for row in order.take(step, rank, splits).rows]
    assert len(set(used)) == len(used) == (stop - first) * batch


def test_a_number_of_workers_of_an_earlier_epoch_changes_nothing():
    """So that a training that has once had another number is that of a fixed number from the next epoch on."""
    rows = np.arange(90)
    order = SampleOrder(rows, rows // 10, 8, seed=3, window=2)
    changed = (Split(0, 3), Split(4, 2))
    later = range(order.steps_per_epoch, 2 * order.steps_per_epoch)
    assert [order.take(s, 1, changed) for s in later] == [order.take(s, 1, (Split(0, 2),)) for s in later]
    assert order.take(5, 1, changed) != order.take(5, 1, (Split(0, 2),))


def test_a_step_takes_the_same_whatever_was_asked_for_before():
    rows = np.arange(50)
    used, fresh = (SampleOrder(rows, rows // 10, 8, seed=3, window=2) for _ in range(2))
    for step in range(20):
        used.take(step)
    assert used.take(7) == fresh.take(7)


def test_epochs_differ_and_seeds_differ():
    rows = np.arange(100)
    orders = [SampleOrder(rows, np.zeros(100, int), 100, seed, 4) for seed in range(3)]
    assert len({order.take(epoch).rows for order in orders for epoch in range(3)}) == 9


def test_an_epoch_takes_no_row_twice():
    rows = np.arange(50)
    order = SampleOrder(rows, rows // 10, 8, seed=0, window=2)
    taken = [row for step in range(order.steps_per_epoch) for row in order.take(step).rows]
    assert len(taken) == len(set(taken)) == 48


def test_fewer_rows_than_a_batch_are_refused():
    with pytest.raises(ConfigError, match="fewer than a batch of 8"):
        SampleOrder(np.arange(5), np.zeros(5, int), 8, seed=0, window=2)
