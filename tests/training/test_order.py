"""Which samples a step takes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvpose.errors import ConfigError
from mvpose.training.order import SampleOrder, epoch_order

SIZES = st.integers(1, 200)


@given(n=SIZES, groups=st.integers(1, 12), window=st.integers(1, 5), seed=st.integers(0, 9), epoch=st.integers(0, 9))
def test_every_epoch_is_a_permutation_that_reads_each_group_once(n, groups, window, seed, epoch):
    group_of = np.sort(np.random.default_rng(n).integers(0, groups, n))
    order = epoch_order(group_of, seed, epoch, window)
    assert sorted(order.tolist()) == list(range(n))
    read, kept = [], []
    for group in group_of[order]:
        if group not in kept:
            read.append(group)
            kept = [*kept, group][-window:]
    assert len(read) == len(set(group_of))


@given(batch=st.integers(1, 24), workers=st.sampled_from([1, 2, 3, 4]), step=st.integers(0, 50))
def test_workers_share_a_batch_without_overlap_and_however_many_they_are(batch, workers, step):
    rows = np.arange(100, 150)
    order = SampleOrder(rows, rows // 10, batch, seed=3, window=2)
    shares = [order.take(step, rank, workers).rows for rank in range(workers)]
    assert sorted(row for share in shares for row in share) == sorted(order.take(step).rows)
    assert len(order.take(step).rows) == batch


def test_a_step_takes_the_same_whatever_was_asked_for_before():
    rows = np.arange(50)
    used, fresh = (SampleOrder(rows, rows // 10, 8, seed=3, window=2) for _ in range(2))
    for step in range(20):
        used.take(step)
    assert used.take(7) == fresh.take(7)


def test_epochs_differ_and_seeds_differ():
    group_of = np.zeros(100, int)
    orders = {epoch_order(group_of, seed, epoch, 4).tobytes() for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_an_epoch_takes_no_row_twice():
    rows = np.arange(50)
    order = SampleOrder(rows, rows // 10, 8, seed=0, window=2)
    taken = [row for step in range(order.steps_per_epoch) for row in order.take(step).rows]
    assert len(taken) == len(set(taken)) == 48


def test_fewer_rows_than_a_batch_are_refused():
    with pytest.raises(ConfigError, match="fewer than a batch of 8"):
        SampleOrder(np.arange(5), np.zeros(5, int), 8, seed=0, window=2)
