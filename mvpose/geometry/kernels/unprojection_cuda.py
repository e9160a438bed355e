"""Unprojection for CUDA in Triton: a program aggregates a block of voxels by all channels over the views in registers.

A voxel costs one write and four reads per view, mostly from the cache: with 32 channels in 64^3 voxels, 34 MB are
written per sample. The backward pass adds to the features' gradients atomically, so their last bits vary between runs.

The kernels are compiled from source, hence without annotations; shapes as in `kernels/unprojection_cpu.py`. With
TRITON_INTERPRET=1 set before the first import, they run on the CPU, for tests.
"""

from typing import no_type_check

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

BLOCK, NUM_WARPS = 32, 4
SOFTMAX, MAX, NORMALISED = tl.constexpr(0), tl.constexpr(1), tl.constexpr(3)
LOWEST, MIN_WEIGHT, NEAREST = tl.constexpr(-3.4028235e38), tl.constexpr(1e-6), tl.constexpr(1e-3)


@no_type_check
def forward(features, weights, present, matrices, height, width, count, kind, out):
    """Volumes into `out` (B N c), on the current stream."""
    batch, views, _, channels = features.shape
    _forward[(triton.cdiv(count**3, BLOCK), batch)](
        features, weights, present, matrices, out, height, width, count, views, channels, kind,
        WIDE=triton.next_power_of_2(channels), BLOCK=BLOCK, num_warps=NUM_WARPS,
    )  # fmt: skip


@no_type_check
def backward(features, weights, present, matrices, grad, height, width, count, kind, d_features, d_weights):
    """Gradients of features, added to zeros, and of weights, if the kind reads them."""
    batch, views, _, channels = features.shape
    _backward[(triton.cdiv(count**3, BLOCK), batch)](
        features, weights, present, matrices, grad, d_features, d_weights, height, width, count, views, channels, kind,
        WIDE=triton.next_power_of_2(channels), BLOCK=BLOCK, num_warps=NUM_WARPS,
    )  # fmt: skip


@triton.jit
@no_type_check
def _forward(
    features, weights, present, matrices, out, height, width, count,
    VIEWS: tl.constexpr, CHANNELS: tl.constexpr, KIND: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at, ch, b = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, WIDE), tl.program_id(1).to(tl.int64)
    inside = (at < count * count * count)[:, None] & (ch < CHANNELS)[None, :]
    top, total, sums, any_seen = _aggregate(
        features, weights, present, matrices, height, width, count, at, ch, b, VIEWS, CHANNELS, KIND, WIDE, BLOCK
    )
    value = top if KIND == MAX else sums / total
    into = out + (b * count * count * count + at)[:, None] * CHANNELS + ch[None, :]
    tl.store(into, tl.where(any_seen[:, None], value, 0.0), mask=inside)


@triton.jit
@no_type_check
def _backward(
    features, weights, present, matrices, grad, d_features, d_weights, height, width, count,
    VIEWS: tl.constexpr, CHANNELS: tl.constexpr, KIND: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at, ch, b = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), tl.arange(0, WIDE), tl.program_id(1).to(tl.int64)
    inside = (at < count * count * count)[:, None] & (ch < CHANNELS)[None, :]
    top, total, sums, any_seen = _aggregate(
        features, weights, present, matrices, height, width, count, at, ch, b, VIEWS, CHANNELS, KIND, WIDE, BLOCK
    )
    total = tl.where(any_seen[:, None], total, 1.0)
    g = tl.load(grad + (b * count * count * count + at)[:, None] * CHANNELS + ch[None, :], mask=inside, other=0.0)
    for view in range(VIEWS):
        x, seen, place, rx, ry = _sample(
            features, present, matrices, height, width, count, at, ch, b, view, VIEWS, CHANNELS
        )
        seen = seen[:, None] & inside
        if KIND == SOFTMAX:
            slope = g * tl.exp(x - top) / total * (1.0 + x - sums / total)
        elif KIND == MAX:
            slope = tl.where(x == top, g / total, 0.0)
        else:
            slope = g / total * _weight(weights, ch, b, view, VIEWS, CHANNELS)
            mean = tl.where(total > MIN_WEIGHT, sums / total, 0.0) if KIND == NORMALISED else 0.0
            by_weight = tl.sum(tl.where(seen, g / total * (x - mean), 0.0), axis=0)
            tl.atomic_add(d_weights + (b * VIEWS + view) * CHANNELS + ch, by_weight, mask=ch < CHANNELS)
        into = d_features + place[:, None] * CHANNELS + ch[None, :]
        below = (width + 2) * CHANNELS
        tl.atomic_add(into, slope * ((1.0 - rx) * (1.0 - ry))[:, None], mask=seen)
        tl.atomic_add(into + CHANNELS, slope * (rx * (1.0 - ry))[:, None], mask=seen)
        tl.atomic_add(into + below, slope * ((1.0 - rx) * ry)[:, None], mask=seen)
        tl.atomic_add(into + below + CHANNELS, slope * (rx * ry)[:, None], mask=seen)


@triton.jit
@no_type_check
def _aggregate(
    features, weights, present, matrices, height, width, count, at, ch, b,
    VIEWS: tl.constexpr, CHANNELS: tl.constexpr, KIND: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Per voxel and channel: the maximum, the sum of shares (or ties, or weights), and that of weighted values."""
    top = tl.full([BLOCK, WIDE], LOWEST, tl.float32)
    total, sums = tl.zeros([BLOCK, WIDE], tl.float32), tl.zeros([BLOCK, WIDE], tl.float32)
    any_seen = tl.zeros([BLOCK], tl.int1)
    for view in range(VIEWS):
        x, seen, _, _, _ = _sample(features, present, matrices, height, width, count, at, ch, b, view, VIEWS, CHANNELS)
        any_seen = any_seen | seen
        seen = seen[:, None]
        if KIND == SOFTMAX:
            # With each view, the sums so far are rescaled to the new maximum.
            higher = tl.where(seen, tl.maximum(top, x, propagate_nan=tl.PropagateNan.ALL), top)
            kept, e = tl.exp(top - higher), tl.where(seen, tl.exp(x - higher), 0.0)
            total, sums, top = total * kept + e, sums * kept + tl.where(seen, e * x, 0.0), higher
        elif KIND == MAX:
            higher = tl.where(seen, tl.maximum(top, x, propagate_nan=tl.PropagateNan.ALL), top)
            ties = tl.where(higher == top, total, 0.0) + tl.where(seen & (x == higher), 1.0, 0.0)
            total, top = ties, higher
        else:
            weight = tl.where(seen, _weight(weights, ch, b, view, VIEWS, CHANNELS), 0.0)
            total, sums = total + weight, sums + tl.where(seen, weight * x, 0.0)
    if KIND == NORMALISED:
        total = tl.maximum(total, MIN_WEIGHT)
    elif KIND > MAX:
        total = tl.full([BLOCK, WIDE], 1.0, tl.float32)
    return top, total, sums, any_seen


@triton.jit
@no_type_check
def _weight(weights, ch, b, view, VIEWS: tl.constexpr, CHANNELS: tl.constexpr):
    return tl.load(weights + (b * VIEWS + view) * CHANNELS + ch, mask=ch < CHANNELS, other=0.0)[None, :]


@triton.jit
@no_type_check
def _sample(
    features, present, matrices, height, width, count, at, ch, b, view, VIEWS: tl.constexpr, CHANNELS: tl.constexpr
):
    """Values (voxels by channels), visibility, pixels of the upper left taps, and the fractions beyond them."""
    m = matrices + (b * VIEWS + view) * 12
    depth = tl.where(tl.load(present + b * VIEWS + view) != 0, _along(m + 8, at, count), 0.0)
    seen = (depth > NEAREST) & (at < count * count * count)
    depth = tl.where(seen, depth, 1.0)
    x = _along(m, at, count) / depth + 0.5 * (width - 1)
    y = _along(m + 4, at, count) / depth + 0.5 * (height - 1)
    # Written so that NaN also goes to the border, and nothing outside the image is read.
    x, y = tl.where(x > -1, x, -1.0), tl.where(y > -1, y, -1.0)
    x, y = tl.where(x < width, x, width), tl.where(y < height, y, height)
    left, upper = tl.floor(x), tl.floor(y)
    left, upper = tl.where(left < width, left, width - 1), tl.where(upper < height, upper, height - 1)
    rx, ry = x - left, y - upper
    place = (upper.to(tl.int32) + 1) * (width + 2) + left.to(tl.int32) + 1
    place = (b * VIEWS + view) * ((width + 2) * (height + 2)) + place
    tap = features + place[:, None] * CHANNELS + ch[None, :]
    mask = seen[:, None] & (ch < CHANNELS)[None, :]
    below = (width + 2) * CHANNELS
    value = tl.load(tap, mask=mask, other=0.0) * ((1.0 - rx) * (1.0 - ry))[:, None]
    value += tl.load(tap + CHANNELS, mask=mask, other=0.0) * (rx * (1.0 - ry))[:, None]
    value += tl.load(tap + below, mask=mask, other=0.0) * ((1.0 - rx) * ry)[:, None]
    value += tl.load(tap + below + CHANNELS, mask=mask, other=0.0) * (rx * ry)[:, None]
    return value, seen, place, rx, ry


@triton.jit
@no_type_check
def _along(row, at, count):
    """One homogeneous coordinate of voxels; their line's start is computed in double precision."""
    i, j, k = at // (count * count), at // count % count, at % count
    start = (tl.load(row) * i + tl.load(row + 1) * j + tl.load(row + 3)).to(tl.float32)
    return start + tl.load(row + 2).to(tl.float32) * k
