"""One value of a block of voxels by channels from those of several views, and its gradient, compiled by numba.

Values are flat over voxels and channels (V q), with `LOWEST` where a view does not see a voxel, so that every loop is
long and becomes SIMD. Numba has no vector exponential without Intel's SVML, hence `exp_below_zero`.
"""

from typing import no_type_check

import numpy as np
from numba import njit

from mvpose.geometry.kernels.lanes import COMPILED

# Voxels of a block: 32 by 32 channels by 4 views are 16 kB.
LANES = 32
INLINED = {"inline": "always", **COMPILED}
SOFTMAX, MAX, WEIGHTED, NORMALISED = range(4)
LOWEST = np.float32(-3.4028235e38)
LEAST_WEIGHT = np.float32(1e-6)
# log2(e), and 1.5 2^23: a number below 2^22 added to it loses its fraction, and its integer is in the last bits.
PER_E, ROUND = np.float32(1.4426950409), np.float32(12582912.0)
# 2^g for |g| <= 1/2, minimax in relative error with the constant 1: 9.1e-8, and 1.7e-7 with its rounding in float32.
C1, C2, C3 = np.float32(0.6931470036506653), np.float32(0.24022242426872253), np.float32(0.05550733581185341)
C4, C5 = np.float32(0.009671512991189957), np.float32(0.001326472731307149)


@njit(**COMPILED)
@no_type_check
def exp_below_zero(x):
    """exp(x) of a float32 x <= 0, NaN for NaN, and 0 below -87.3.

    The error is at most 2e-7 of 1, and 2e-7 + 1.2e-7 |x| of the value itself.
    """
    y = x * PER_E
    low = y <= np.float32(-126)
    y = np.float32(-126) if low else y
    shifted = np.float32(y + ROUND)
    g = y - (shifted - ROUND)
    power = ((((C5 * g + C4) * g + C3) * g + C2) * g + C1) * g + np.float32(1)
    bits = np.int32((np.float32(shifted).view(np.int32) << np.int32(23)) + np.int32(0x3F800000))
    return np.float32(0) if low else power * np.int32(bits).view(np.float32)


@njit(**INLINED)
@no_type_check
def highest(values, num, size, top):
    """The largest over the views; NaN where one is NaN."""
    for q in range(size):
        top[q] = LOWEST
    for view in range(num):
        for q in range(size):
            x, t = values[view, q], top[q]
            top[q] = x if x > t or x != x else t


@njit(**INLINED)
@no_type_check
def soft_sums(values, num, size, top, total, weighed):
    """Sums over the views of e^(x - top) and of x e^(x - top)."""
    for q in range(size):
        total[q], weighed[q] = np.float32(0), np.float32(0)
    for view in range(num):
        for q in range(size):
            x = values[view, q]
            e = exp_below_zero(x - top[q])
            total[q] += e
            weighed[q] += e * x


@njit(**INLINED)
@no_type_check
def soft_slopes(values, num, size, top, total, weighed, grad, slopes):
    """With s a view's share and m the mean, dm/dx = s (1 + x - m)."""
    for q in range(size):
        total[q] = np.float32(1) / total[q]
        weighed[q] = np.float32(1) - weighed[q] * total[q]
        total[q] *= grad[q]
    for view in range(num):
        for q in range(size):
            x = values[view, q]
            slopes[view, q] = exp_below_zero(x - top[q]) * total[q] * (x + weighed[q])


@njit(**INLINED)
@no_type_check
def highest_slopes(values, num, size, top, ties, grad, slopes):
    """Views that share the largest value share its gradient, as in torch."""
    zero, one = np.float32(0), np.float32(1)
    for q in range(size):
        ties[q] = zero
    for view in range(num):
        for q in range(size):
            ties[q] += one if values[view, q] == top[q] else zero
    for view in range(num):
        for q in range(size):
            slopes[view, q] = grad[q] / ties[q] if values[view, q] == top[q] else zero


@njit(**INLINED)
@no_type_check
def weighed_sums(values, weights, which, seen, num, n, kind, weighed, total):
    """Sums of weighed values and, for `NORMALISED`, of weights; otherwise 1."""
    channels = values.shape[2]
    sums, totals = weighed.reshape(LANES, channels), total.reshape(LANES, channels)
    for s in range(n):
        sums[s], totals[s] = np.float32(0), np.float32(0)
        a, t = sums[s], totals[s]
        for view in range(num):
            if seen[view, s]:
                weight, value = weights[which[view]], values[view, s]
                for ch in range(channels):
                    a[ch] += weight[ch] * value[ch]
                    t[ch] += weight[ch]
        for ch in range(channels):
            t[ch] = max(t[ch], LEAST_WEIGHT) if kind == NORMALISED else np.float32(1)


@njit(**INLINED)
@no_type_check
def weighed_slopes(values, weights, which, seen, num, n, kind, weighed, total, grad, slopes, by_weight):
    """Gradients of the values, and of the weights in double precision, as they sum over all voxels."""
    channels = values.shape[2]
    sums, totals, grads = weighed.reshape(LANES, channels), total.reshape(LANES, channels), grad.reshape(n, channels)
    for view in range(num):
        weight, into = weights[which[view]], by_weight[which[view]]
        for s in range(n):
            if seen[view, s]:
                a, t, g, x, slope = sums[s], totals[s], grads[s], values[view, s], slopes[view, s]
                for ch in range(channels):
                    share = g[ch] / t[ch]
                    slope[ch] = share * weight[ch]
                    # The mean moves with the weights, unless their sum is too small to divide by.
                    mean = a[ch] / t[ch] if kind == NORMALISED and t[ch] > LEAST_WEIGHT else np.float32(0)
                    into[ch] += share * (x[ch] - mean)
