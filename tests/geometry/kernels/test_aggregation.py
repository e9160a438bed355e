"""The exponential, which is ours alone to answer for; sums and slopes are compared in test_unprojection.py."""

import numpy as np

from mvpose.geometry.kernels.aggregation import exp_below_zero


def exponential(x: np.ndarray) -> np.ndarray:
    return np.array([exp_below_zero(value) for value in x.astype(np.float32)], dtype=np.float64)


def test_the_exponential_errs_by_no_more_than_it_says():
    generator = np.random.default_rng(0)
    x = -np.concatenate([generator.uniform(0, 87.3, 50000), 10 ** generator.uniform(-30, 1.9, 50000)])
    x = x.astype(np.float32).astype(np.float64)
    found, exact = exponential(x), np.exp(x)
    assert np.abs(found - exact).max() < 2e-7
    assert (np.abs(found / exact - 1) - 1.2e-7 * np.abs(x)).max() < 2e-7
    assert np.abs(found / exact - 1).max() > 1e-7


def test_the_exponential_is_exact_at_0_ends_at_0_and_hides_no_nan():
    found = exponential(np.array([0.0, -0.0, -88.0, -1e30, -np.inf, np.nan]))
    np.testing.assert_array_equal(found, [1.0, 1.0, 0.0, 0.0, 0.0, np.nan])
