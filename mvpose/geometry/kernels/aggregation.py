"""Aggregate a block of voxels by channels over several views, with its gradient, compiled by numba.

Values are flat over voxels and channels (V q), with `LOWEST` where a view does not see a voxel, so that every loop is
long and becomes SIMD. Numba has no vector exponential without Intel's SVML, hence `exp_below_zero`.
"""

from typing import no_type_check

import numpy as np
from numba import njit

from mvpose.geometry.kernels.lanes import COMPILED

# Voxels per block: 32 by 32 channels by 4 views are 16 kB.
LANES = 32
INLINED = {"inline": "always", **COMPILED}
SOFTMAX, MAX, WEIGHTED, NORMALISED = range(4)
LOWEST = np.float32(-3.4028235e38)
MIN_WEIGHT = np.float32(1e-6)
# exp(FADED) is the minimum distinguished from 0. A number added to 1.5 2^23 loses its fraction; its integer, here with
# the exponent's offset of 127, is in the last bits.
FADED, PER_E, ROUND = np.float32(-87.3), np.float32(1.4426950409), np.float32(1.5 * 2**23 + 127)
# 2^g for |g| <= 1/2, minimax in relative error with the constant 1: 9.1e-8, and 1.7e-7 with its rounding in float32.
C1, C2, C3 = np.float32(0.6931470036506653), np.float32(0.24022242426872253), np.float32(0.05550733581185341)
C4, C5 = np.float32(0.009671512991189957), np.float32(0.001326472731307149)


@njit(**COMPILED)
@no_type_check
def exp_below_zero(x):
    """exp(x) of a float32 x <= 0, NaN for NaN, and 0 below -87.3.

    The error is at most 2e-7 of 1, and 2e-7 + 1.2e-7 |x| of the value itself.
    """
    low = x < FADED
    y = FADED if low else x
    shifted = np.float32(y * PER_E + ROUND)
    g = y * PER_E - (shifted - ROUND)
    power = ((((C5 * g + C4) * g + C3) * g + C2) * g + C1) * g + np.float32(1)
    exponent = np.int32(np.float32(shifted).view(np.int32) << np.int32(23))
    return np.float32(0) if low else power * np.int32(exponent).view(np.float32)


@njit(**INLINED)
@no_type_check
def soft_mean_of_four(values, size, volume):
    """Softmax mean of up to four views, the others being `LOWEST`: in registers, at half the cost of the sums."""
    for q in range(size):
        a, b, c, d = values[0, q], values[1, q], values[2, q], values[3, q]
        top = b if b > a else a
        top = c if c > top else top
        top = d if d > top else top
        ea, eb, ec, ed = (
            exp_below_zero(a - top),
            exp_below_zero(b - top),
            exp_below_zero(c - top),
            exp_below_zero(d - top),
        )
        mean = (ea * a + eb * b + ec * c + ed * d) / (ea + eb + ec + ed)
        volume[q] = mean if top != LOWEST else np.float32(0)


@njit(**INLINED)
@no_type_check
def highest(values, num, size, top):
    """The maximum over the views; NaN if one is NaN."""
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
    """With s a view's softmax weight and m the mean, dm/dx = s (1 + x - m)."""
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
    """Views that share the maximum share its gradient, as in torch."""
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
    """Sums of weighted values and, for `NORMALISED`, of weights; otherwise 1."""
    channels = values.shape[2]
    sums, totals = weighed.reshape(LANES, channels), total.reshape(LANES, channels)
    for s in range(n):
        sums[s], totals[s] = np.float32(0), np.float32(0) if kind == NORMALISED else np.float32(1)
        a, t = sums[s], totals[s]
        for view in range(num):
            if seen[view, s]:
                weight, value = weights[which[view]], values[view, s]
                for ch in range(channels):
                    a[ch] += weight[ch] * value[ch]
                if kind == NORMALISED:
                    for ch in range(channels):
                        t[ch] += weight[ch]
        if kind == NORMALISED:
            for ch in range(channels):
                t[ch] = max(t[ch], MIN_WEIGHT)


@njit(**INLINED)
@no_type_check
def weighed_slopes(values, weights, which, seen, num, n, kind, weighed, total, grad, slopes, by_weight):
    """Gradients of the values, and of the weights in double precision, since they are summed over all voxels."""
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
                    # The mean depends on the weights, unless their sum is too small to divide by.
                    mean = a[ch] / t[ch] if kind == NORMALISED and t[ch] > MIN_WEIGHT else np.float32(0)
                    into[ch] += share * (x[ch] - mean)
