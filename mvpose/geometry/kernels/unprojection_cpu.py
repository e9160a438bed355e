"""Unprojection compiled for the CPU by numba: a block of voxels is sampled in every view, aggregated and written once.

Inner loops run over channels, which are contiguous in memory, and become SIMD; a block's values stay in the L1 cache.
Compiled code is cached on disk; numba checks only this file's date, so touch it after a change to `aggregation.py`.

Compiled from source, hence without annotations. Shapes: features (B V P c), P pixels of images of `height` by `width`
with a border of zeros around them; weights (B V c), read only by the weighted kinds; present (B V); matrices (B V 3 4)
from voxel indices to pixels from the image's centre; out and grad (B N c), N = n^3.
"""

from typing import no_type_check

import numpy as np
from numba import njit

from mvpose.geometry.kernels.aggregation import (
    INLINED,
    LANES,
    LOWEST,
    MAX,
    SOFTMAX,
    WEIGHTED,
    highest,
    highest_slopes,
    soft_mean_of_four,
    soft_slopes,
    soft_sums,
    weighed_slopes,
    weighed_sums,
)
from mvpose.geometry.kernels.lanes import COMPILED

# Minimum depth in metres in front of a camera at which a voxel is visible.
NEAREST = np.float32(1e-3)


@njit(**COMPILED)
@no_type_check
def forward(features, weights, present, matrices, height, width, count, kind, out, first, last):
    """Volumes into `out` for the voxels first .. last, counted over all samples."""
    views, channels = features.shape[1], features.shape[3]
    place, share, seen, values = _scratch(views, channels)
    top, total, weighed = (
        np.empty(LANES * channels, np.float32),
        np.empty(LANES * channels, np.float32),
        np.empty(LANES * channels, np.float32),
    )
    which = np.empty(views, np.int64)
    at = first
    while at < last:
        b, voxel = at // count**3, at % count**3
        n = min(LANES, last - at, count - at % count)
        num = _sample_views(
            features[b], present[b], matrices[b], voxel, n, height, width, count, which, place, share, seen, values
        )
        flat, size = values.reshape(len(values), LANES * channels), n * channels
        volume = out[b, voxel : voxel + n].reshape(size)
        if kind == SOFTMAX and num <= 4:
            for view in range(num, 4):
                flat[view] = LOWEST
            soft_mean_of_four(flat, size, volume)
        elif kind == SOFTMAX:
            highest(flat, num, size, top)
            soft_sums(flat, num, size, top, total, weighed)
            for q in range(size):
                volume[q] = weighed[q] / total[q] if top[q] != LOWEST else np.float32(0)
        elif kind == MAX:
            highest(flat, num, size, top)
            for q in range(size):
                volume[q] = top[q] if top[q] != LOWEST else np.float32(0)
        else:
            weighed_sums(values, weights[b], which, seen, num, n, kind, weighed, total)
            for q in range(size):
                volume[q] = weighed[q] / total[q]
        at += n


@njit(**COMPILED)
@no_type_check
def backward(
    features, weights, present, matrices, grad, height, width, count, kind, d_features, d_weights, first, last
):  # fmt: skip
    """Gradients of features, added to zeros, and of weights, if the kind reads them, for samples first .. last."""
    views, channels = features.shape[1], features.shape[3]
    place, share, seen, values = _scratch(views, channels)
    slopes, by_weight = np.empty((views, LANES, channels), np.float32), np.zeros((views, channels))
    top, total, weighed = (
        np.empty(LANES * channels, np.float32),
        np.empty(LANES * channels, np.float32),
        np.empty(LANES * channels, np.float32),
    )
    which = np.empty(views, np.int64)
    for b in range(first, last):
        by_weight[:] = 0
        voxel = 0
        while voxel < count**3:
            n = min(LANES, count - voxel % count)
            num = _sample_views(
                features[b], present[b], matrices[b], voxel, n, height, width, count, which, place, share, seen, values
            )
            flat, flat_slopes = values.reshape(len(values), LANES * channels), slopes.reshape(views, LANES * channels)
            size, g = n * channels, grad[b, voxel : voxel + n].reshape(n * channels)
            if kind == SOFTMAX:
                highest(flat, num, size, top)
                soft_sums(flat, num, size, top, total, weighed)
                soft_slopes(flat, num, size, top, total, weighed, g, flat_slopes)
            elif kind == MAX:
                highest(flat, num, size, top)
                highest_slopes(flat, num, size, top, total, g, flat_slopes)
            else:
                weighed_sums(values, weights[b], which, seen, num, n, kind, top, total)
                weighed_slopes(values, weights[b], which, seen, num, n, kind, top, total, g, slopes, by_weight)
            for i in range(num):
                _scatter(slopes[i], n, width + 2, place[i], share[i], seen[i], d_features[b, which[i]])
            voxel += n
        if kind >= WEIGHTED:
            d_weights[b] = by_weight.astype(np.float32)


@njit(**INLINED)
@no_type_check
def _scratch(views, channels):
    """For each view of a block: pixels of the upper left taps, weights of the four taps, visibility, sampled values.

    Values are allocated for at least four views, for `soft_mean_of_four`.
    """
    views = max(views, 4)
    place, share = np.empty((views, LANES), np.int32), np.empty((views, 4, LANES), np.float32)
    return place, share, np.empty((views, LANES), np.bool_), np.empty((views, LANES, channels), np.float32)


@njit(**INLINED)
@no_type_check
def _sample_views(
    features, present, matrices, voxel, n, height, width, count, which, place, share, seen, values
):  # fmt: skip
    """Values of the present views, in order, for n voxels of one line; returns the number of these views."""
    num = 0
    for view in range(len(present)):
        if present[view]:
            _project(matrices[view], voxel, height, width, count, place[num], share[num], seen[num])
            _sample(features[view], n, width + 2, place[num], share[num], seen[num], values[num])
            which[num] = view
            num += 1
    return num


@njit(**INLINED)
@no_type_check
def _project(m, voxel, height, width, count, place, share, seen):
    """Positions of a line's voxels on the image; beyond the image's edge they are moved to its border of zeros.

    The line's start is computed in double precision, and each voxel from it, so no result depends on its block.
    """
    i, j, first = voxel // (count * count), voxel // count % count, voxel % count
    x0, dx = np.float32(m[0, 0] * i + m[0, 1] * j + m[0, 3]), np.float32(m[0, 2])
    y0, dy = np.float32(m[1, 0] * i + m[1, 1] * j + m[1, 3]), np.float32(m[1, 2])
    z0, dz = np.float32(m[2, 0] * i + m[2, 1] * j + m[2, 3]), np.float32(m[2, 2])
    one, half = np.float32(1), np.float32(0.5)
    right, bottom = np.float32(width), np.float32(height)
    for s in range(LANES):
        k = np.float32(np.int32(first) + np.int32(s))
        depth = dz * k + z0
        before = depth > NEAREST
        depth = depth if before else one
        x = (dx * k + x0) / depth + half * (right - one)
        y = (dy * k + y0) / depth + half * (bottom - one)
        # Written so that NaN also goes to the border, and nothing outside the image is read.
        x, y = x if x > -one else -one, y if y > -one else -one
        x, y = x if x < right else right, y if y < bottom else bottom
        left, upper = np.floor(x), np.floor(y)
        left, upper = left if left < right else right - one, upper if upper < bottom else bottom - one
        x, y = x - left, y - upper
        share[3, s] = x * y
        share[0, s], share[1, s], share[2, s] = (one - x) * (one - y), x * (one - y), (one - x) * y
        row, column = np.int32(upper) + np.int32(1), np.int32(left) + np.int32(1)
        place[s] = row * np.int32(width + 2) + column
        seen[s] = before


@njit(**INLINED)
@no_type_check
def _sample(image, n, stride, place, share, seen, values):
    for s in range(n):
        if seen[s]:
            p, a, b, c, d = place[s], share[0, s], share[1, s], share[2, s], share[3, s]
            upper, upper_right, lower, lower_right = (
                image[p],
                image[p + 1],
                image[p + stride],
                image[p + stride + 1],
            )
            value = values[s]
            for ch in range(len(value)):
                value[ch] = a * upper[ch] + b * upper_right[ch] + c * lower[ch] + d * lower_right[ch]
        else:
            values[s] = LOWEST


@njit(**INLINED)
@no_type_check
def _scatter(slopes, n, stride, place, share, seen, image):
    """The transpose of `_sample`."""
    for s in range(n):
        if seen[s]:
            p, slope = place[s], slopes[s]
            for tap in range(4):
                pixel, part = image[p + tap % 2 + tap // 2 * stride], share[tap, s]
                for ch in range(len(slope)):
                    pixel[ch] += part * slope[ch]
