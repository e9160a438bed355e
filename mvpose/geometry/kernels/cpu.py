"""Fused DLT compiled for the CPU by numba: one pass over the observations, without intermediates in memory.

Points are processed in blocks of `LANES`, which are distributed over threads. Numba's own threading layers are not
used, since they do not survive a fork. Compiled code is cached on disk. Numba checks only this file's date to decide
whether the cache is stale, so touch this file after a change to `lanes.py`.

Compiled from source, hence without annotations. Shapes: points (N V 2), weights (N V) or empty, projections (G V 12) of
the conditioned world for N / G points each, centre (G 3), scale (G), start (1 or N, 3).
"""

import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import no_type_check

import numpy as np
from numba import njit

from mvpose.geometry.kernels.lanes import (
    COMPILED,
    LANES,
    accumulate,
    adjoint_iterations,
    adjoint_normal,
    finish,
    make_harmless,
    normal_equations,
    shifted_iterations,
    to_observations,
)

# Below this many points a thread costs more (about 0.1 ms to start) than it saves.
POINTS_PER_THREAD = 8192


@no_type_check
def run_threaded(kernel, num_points, num_threads, *arguments, minimum=POINTS_PER_THREAD):
    """Call `kernel(*arguments, first, last)` on shares of at least `minimum` points; threads live for one call only."""
    num_threads = max(1, min(num_threads, num_points // minimum))
    if num_threads == 1:
        kernel(*arguments, 0, num_points)
        return
    ends = [num_points * i // num_threads for i in range(num_threads + 1)]
    with ThreadPoolExecutor(num_threads) as pool:
        done = [pool.submit(kernel, *arguments, a, b) for a, b in itertools.pairwise(ends)]
    for share in done:
        share.result()


@njit(**COMPILED)
@no_type_check
def forward(points, weights, projections, centre, scale, start, sii, iterations, shift, floor, out, valid, first, last):
    """World points into `out` (N 3) and whether they are determined into `valid` (N), for points first .. last."""
    kind, views = points.dtype.type, points.shape[1]
    per_group = len(points) // len(projections)
    w, uv, gram = np.empty((views, LANES), kind), np.empty((views, 2, LANES), kind), np.empty((10, LANES), kind)
    x, ok = np.empty((iterations + 1, 4, LANES), kind), np.empty(LANES, kind)
    factor, growth = np.empty((10, LANES), kind), np.empty((iterations + 1, LANES), kind)
    at = first
    while at < last:
        group = at // per_group
        n = min(LANES, last - at, (group + 1) * per_group - at)
        _load(points, weights, at, n, w, uv)
        accumulate(projections[group], w, uv, gram, ok, kind(floor))
        if sii:
            _load_start(start, at, n, x[0])
            shifted_iterations(gram, iterations, kind(shift), factor, x, growth)
        else:
            normal_equations(gram, x[iterations])
        finish(projections[group], w, x[iterations], ok, centre[group], scale[group])
        for i in range(n):
            valid[at + i] = ok[i] > 0
            for k in range(3):
                out[at + i, k] = x[iterations, k, i]
        at += n


@njit(**COMPILED)
@no_type_check
def backward(points, weights, projections, scale, start, sii, iterations, shift, valid, grad, d_uv, d_w, first, last):
    """Gradients of pixels (N V 2) and weights (N V, or empty) from that of the world points (N 3)."""
    kind, views = points.dtype.type, points.shape[1]
    per_group = len(points) // len(projections)
    w, uv, gram = np.empty((views, LANES), kind), np.empty((views, 2, LANES), kind), np.empty((10, LANES), kind)
    x, ok = np.empty((iterations + 1, 4, LANES), kind), np.zeros(LANES, kind)
    h, g, trace = np.empty((iterations + 1, 4, LANES), kind), np.zeros((3, LANES), kind), np.empty(LANES, kind)
    factor, growth = np.empty((10, LANES), kind), np.empty((iterations + 1, LANES), kind)
    at = first
    while at < last:
        group = at // per_group
        n = min(LANES, last - at, (group + 1) * per_group - at)
        _load(points, weights, at, n, w, uv)
        accumulate(projections[group], w, uv, gram, ok, kind(0))
        for i in range(n):
            ok[i] = kind(1) if valid[at + i] else kind(0)
            for k in range(3):
                g[k, i] = grad[at + i, k] * scale[group] if valid[at + i] else kind(0)
        make_harmless(gram, ok)
        if sii:
            _load_start(start, at, n, x[0])
            shifted_iterations(gram, iterations, kind(shift), factor, x, growth)
            adjoint_iterations(factor, x, growth, g, iterations, kind(shift), h, trace)
            to_observations(projections[group], w, uv, x[1:], h[1:], trace)
        else:
            adjoint_normal(gram, g, x[0], h[0], trace)
            to_observations(projections[group], w, uv, x[:1], h[:1], trace)
        for view in range(views):
            for i in range(n):
                d_uv[at + i, view, 0] = uv[view, 0, i] if ok[i] > 0 else kind(0)
                d_uv[at + i, view, 1] = uv[view, 1, i] if ok[i] > 0 else kind(0)
        if len(d_w) > 0:
            for view in range(views):
                for i in range(n):
                    d_w[at + i, view] = w[view, i] if ok[i] > 0 else kind(0)
        at += n


@njit(inline="always", **COMPILED)
@no_type_check
def _load(points, weights, at, n, w, uv):
    """Weights (V LANES) and pixels (V 2 LANES) of a block; absent observations and unused lanes get weight 0."""
    zero, one = points.dtype.type(0), points.dtype.type(1)
    weighted = len(weights) > 0
    w[:] = zero
    uv[:] = zero
    for view in range(points.shape[1]):
        for i in range(n):
            given = weights[at + i, view] if weighted else one
            seen = given > zero
            a, b = points[at + i, view, 0], points[at + i, view, 1]
            w[view, i] = given if seen else zero
            uv[view, 0, i] = a if seen else zero
            uv[view, 1, i] = b if seen else zero


@njit(inline="always", **COMPILED)
@no_type_check
def _load_start(start, at, n, x):
    """The homogeneous vector at which a block's iterations start."""
    x[:] = start.dtype.type(0)
    x[3] = start.dtype.type(1)
    for i in range(n):
        for k in range(3):
            x[k, i] = start[at + i if len(start) > 1 else 0, k]
