"""Both ways to a median answer alike, so that their costs may be compared."""

import numpy as np
import pytest

from mvpose.benchmarks import median_cost
from mvpose.benchmarks.median_cost import by_numpy, by_radix, error_groups, error_parts


def test_both_contenders_see_every_number_and_give_the_same_medians(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(median_cost, "FRAMES", 70)
    monkeypatch.setattr(median_cost, "PART_FRAMES", 100)
    rows = np.concatenate(list(error_parts()))
    assert rows.shape == (70 * median_cost.PEOPLE, median_cost.JOINTS * median_cost.VIEWS)
    expected = [np.nanmedian(rows[:, group]) for group in error_groups()]
    for contender in (by_radix, by_numpy):
        np.testing.assert_array_equal(contender(error_parts(), error_groups(), np.float32), expected)
