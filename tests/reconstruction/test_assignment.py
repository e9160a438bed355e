import itertools
import sys

import numpy as np
import pytest

from mvpose.reconstruction.assignment import minimum_cost


def cheapest_by_trying_all(cost: np.ndarray) -> float:
    few = cost if len(cost) <= cost.shape[1] else cost.T
    rows = np.arange(len(few))
    return min(few[rows, list(columns)].sum() for columns in itertools.permutations(range(few.shape[1]), len(few)))


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (2, 5), (5, 2), (4, 4)])
def test_the_total_cost_is_the_minimum(shape):
    # Fails if rows whose cheapest columns are the same take them, or if rows and columns are exchanged.
    rng, shortcuts = np.random.default_rng(0), 0
    for _ in range(40):
        cost = rng.normal(size=shape)
        rows, columns = minimum_cost(cost)
        assert len(set(rows.tolist())) == len(set(columns.tolist())) == min(shape)
        assert np.all(np.diff(rows) > 0)
        assert cost[rows, columns].sum() == pytest.approx(cheapest_by_trying_all(cost))
        few = cost if shape[0] <= shape[1] else cost.T
        shortcuts += len(set(few.argmin(axis=1).tolist())) == len(few)
    assert 0 < shortcuts <= 40
    assert shape == (1, 1) or shortcuts < 40


def test_scipy_is_not_needed_where_one_of_two_rows_can_give_way(monkeypatch):
    # Fails if the row that loses more gives way, or if a column that another row wants is given away.
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    cost = np.array([[0.0, 5.0, 9.0], [0.0, 2.0, 1.0], [9.0, 0.0, 9.0]])
    assert minimum_cost(cost)[1].tolist() == [0, 2, 1]
    with pytest.raises(ImportError):
        minimum_cost(np.array([[0.0, 5.0, 9.0], [0.0, 1.0, 2.0], [9.0, 0.0, 9.0]]))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_nothing_is_assigned_to_nobody(shape):
    rows, columns = minimum_cost(np.empty(shape))
    assert len(rows) == len(columns) == 0
