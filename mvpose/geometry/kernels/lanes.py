"""What the CPU kernels do to one block of points: each step is a loop over `LANES` lanes, which LLVM turns into SIMD.

A block's arrays stay in the L1 cache. The loops always run over all lanes, also where a block is not full: then a
point's result does not depend on its place in a block, nor on the number of threads. Functions are inlined into the
kernels, because only there the compiler sees that the arrays do not overlap (five times faster, measured).

Shapes: w (V LANES), uv (V 2 LANES), projection (V 12), gram (10 LANES) the upper triangle of A^T A by rows, x (4 LANES)
homogeneous, or (iterations + 1, 4, LANES) where every iterate is kept; `ok` (LANES) is 1.0 or 0.0.
"""

import os
from typing import no_type_check

import numpy as np
from numba import njit

LANES = 64


def _can_cache() -> bool:
    """Whether numba finds a folder for compiled code: beside this file, in the user's cache, or NUMBA_CACHE_DIR."""
    if not os.path.isabs(os.path.expanduser("~")) and not os.environ.keys() & {"NUMBA_CACHE_DIR", "XDG_CACHE_HOME"}:
        return False  # numba would take the working directory for the home of a user who has none
    try:
        njit(cache=True)(lambda: None)
    except RuntimeError:
        return False
    return True


COMPILED = {"nogil": True, "cache": _can_cache(), "error_model": "numpy", "fastmath": {"contract", "arcp", "nsz"}}
INLINED = {"inline": "always", **COMPILED}


@njit(**INLINED)
@no_type_check
def accumulate(projection, w, uv, gram, ok, least):
    """A^T A (10 entries, upper triangle by rows), and 1.0 in `ok` where two views see the point at an angle."""
    zero, one = gram.dtype.type(0), gram.dtype.type(1)
    largest, views = np.zeros(LANES, gram.dtype), np.zeros(LANES, gram.dtype)
    gram[:] = zero
    for view in range(len(projection)):
        p = projection[view]
        for axis in range(2):
            for i in range(LANES):
                pixel = uv[view, axis, i]
                a, b = pixel * p[8] - p[4 * axis], pixel * p[9] - p[4 * axis + 1]
                c, d = pixel * p[10] - p[4 * axis + 2], pixel * p[11] - p[4 * axis + 3]
                s = w[view, i] * w[view, i] / (a * a + b * b + c * c)
                gram[0, i] += s * a * a
                gram[1, i] += s * a * b
                gram[2, i] += s * a * c
                gram[3, i] += s * a * d
                gram[4, i] += s * b * b
                gram[5, i] += s * b * c
                gram[6, i] += s * b * d
                gram[7, i] += s * c * c
                gram[8, i] += s * c * d
                gram[9, i] += s * d * d
        for i in range(LANES):
            largest[i] = max(largest[i], w[view, i])
            views[i] += one if w[view, i] > zero else zero
    for i in range(LANES):
        xx, xy, xz, yy, yz, zz = gram[0, i], gram[1, i], gram[2, i], gram[4, i], gram[5, i], gram[7, i]
        cxx, cyy, czz = yy * zz - yz * yz, xx * zz - xz * xz, xx * yy - xy * xy
        determinant = xx * cxx + xy * (xz * yz - xy * zz) + xz * (xy * yz - xz * yy)
        enough = determinant > least * largest[i] * largest[i] * (cxx + cyy + czz)
        ok[i] = one if enough and views[i] > one else zero
    make_harmless(gram, ok)


@njit(**INLINED)
@no_type_check
def make_harmless(gram, ok):
    """The identity in place of a matrix that determines nothing, so that no lane divides by zero."""
    zero, one = gram.dtype.type(0), gram.dtype.type(1)
    for k in range(10):
        stand_in = one if k == 0 or k == 4 or k == 7 or k == 9 else zero
        for i in range(LANES):
            gram[k, i] = gram[k, i] if ok[i] > zero else stand_in


@njit(**INLINED)
@no_type_check
def normal_equations(gram, x):
    """The point with zero gradient of the sum of squared distances to the planes; x[3] = 1."""
    for i in range(LANES):
        x[0, i], x[1, i], x[2, i] = -gram[3, i], -gram[6, i], -gram[8, i]
        x[3, i] = gram.dtype.type(1)
    _solve3(gram, x)


@njit(**INLINED)
@no_type_check
def _solve3(gram, x):
    """x[:3] <- N^-1 x[:3] with N the upper left 3x3 block."""
    for i in range(LANES):
        xx, xy, xz, yy, yz, zz = gram[0, i], gram[1, i], gram[2, i], gram[4, i], gram[5, i], gram[7, i]
        cxx, cxy, cxz = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
        cyy, cyz, czz = xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy
        inverse = gram.dtype.type(1) / (xx * cxx + xy * cxy + xz * cxz)
        a, b, c = x[0, i] * inverse, x[1, i] * inverse, x[2, i] * inverse
        x[0, i] = cxx * a + cxy * b + cxz * c
        x[1, i] = cxy * a + cyy * b + cyz * c
        x[2, i] = cxz * a + cyz * b + czz * c


@njit(**INLINED)
@no_type_check
def shifted_iterations(gram, iterations, shift, factor, x, growth):
    """x[t] = growth[t] (A^T A + shift trace I)^-1 x[t-1], growth chosen so that |x[t]| = 1."""
    _factorise(gram, shift, factor)
    for t in range(1, iterations + 1):
        for k in range(4):
            for i in range(LANES):
                x[t, k, i] = x[t - 1, k, i]
        _solve4(factor, x[t])
        for i in range(LANES):
            a, b, c, d = x[t, 0, i], x[t, 1, i], x[t, 2, i], x[t, 3, i]
            growth[t, i] = gram.dtype.type(1) / np.sqrt(a * a + b * b + c * c + d * d)
        for k in range(4):
            for i in range(LANES):
                x[t, k, i] *= growth[t, i]


@njit(**INLINED)
@no_type_check
def _factorise(gram, shift, factor):
    """L D L^T of gram + shift trace I: unit lower L in the off-diagonal entries, 1 / D on the diagonal."""
    one = gram.dtype.type(1)
    for i in range(LANES):
        sigma = shift * (gram[0, i] + gram[4, i] + gram[7, i] + gram[9, i])
        d0 = one / (gram[0, i] + sigma)
        l10, l20, l30 = gram[1, i] * d0, gram[2, i] * d0, gram[3, i] * d0
        d1 = one / (gram[4, i] + sigma - l10 * gram[1, i])
        m21, m31 = gram[5, i] - l20 * gram[1, i], gram[6, i] - l30 * gram[1, i]
        l21, l31 = m21 * d1, m31 * d1
        d2 = one / (gram[7, i] + sigma - l20 * gram[2, i] - l21 * m21)
        m32 = gram[8, i] - l30 * gram[2, i] - l31 * m21
        l32 = m32 * d2
        # Rounding can push the last pivot of exact data below the shift that it must have at least.
        d3 = one / max(gram[9, i] + sigma - l30 * gram[3, i] - l31 * m31 - l32 * m32, sigma)
        factor[0, i], factor[1, i], factor[2, i], factor[3, i] = d0, l10, l20, l30
        factor[4, i], factor[5, i], factor[6, i] = d1, l21, l31
        factor[7, i], factor[8, i], factor[9, i] = d2, l32, d3


@njit(**INLINED)
@no_type_check
def _solve4(factor, x):
    """x <- (L D L^T)^-1 x."""
    for i in range(LANES):
        a = x[0, i]
        b = x[1, i] - factor[1, i] * a
        c = x[2, i] - factor[2, i] * a - factor[5, i] * b
        d = (x[3, i] - factor[3, i] * a - factor[6, i] * b - factor[8, i] * c) * factor[9, i]
        c = c * factor[7, i] - factor[8, i] * d
        b = b * factor[4, i] - factor[5, i] * c - factor[6, i] * d
        a = a * factor[0, i] - factor[1, i] * b - factor[2, i] * c - factor[3, i] * d
        x[0, i], x[1, i], x[2, i], x[3, i] = a, b, c, d


@njit(**INLINED)
@no_type_check
def finish(projection, w, x, ok, centre, scale):
    """Homogeneous to world points; only what lies near enough and before every camera that sees it stays `ok`."""
    zero, one, farthest = x.dtype.type(0), x.dtype.type(1), x.dtype.type(1e12)
    for i in range(LANES):
        near = x[0, i] * x[0, i] + x[1, i] * x[1, i] + x[2, i] * x[2, i] < farthest * x[3, i] * x[3, i]
        ok[i] = ok[i] if near else zero
        x[3, i] = one / x[3, i] if near else zero
    for k in range(3):
        for i in range(LANES):
            x[k, i] *= x[3, i]
    for view in range(len(projection)):
        p = projection[view]
        for i in range(LANES):
            depth = x[0, i] * p[8] + x[1, i] * p[9] + x[2, i] * p[10] + p[11]
            ok[i] = ok[i] if depth > zero or w[view, i] <= zero else zero
    for k in range(3):
        for i in range(LANES):
            x[k, i] = x[k, i] * scale + centre[k] if ok[i] > zero else zero


@njit(**INLINED)
@no_type_check
def adjoint_normal(gram, g, x, h, trace):
    """Point x and h = (N^-1 g, 0): the gradient by A^T A is -(h x^T + x h^T) / 2."""
    normal_equations(gram, x)
    for k in range(3):
        for i in range(LANES):
            h[k, i] = g[k, i]
    h[3] = gram.dtype.type(0)
    trace[:] = gram.dtype.type(0)
    _solve3(gram, h)


@njit(**INLINED)
@no_type_check
def adjoint_iterations(factor, x, growth, g, iterations, shift, h, trace):
    """h[t] with gradient by A^T A of -(h[t] x[t]^T + x[t] h[t]^T) / 2 summed over t, plus `trace` on the diagonal."""
    last_x, last_h = x[iterations], h[iterations]
    for i in range(LANES):
        inverse = factor.dtype.type(1) / last_x[3, i]
        along = (g[0, i] * last_x[0, i] + g[1, i] * last_x[1, i] + g[2, i] * last_x[2, i]) * inverse
        last_h[0, i], last_h[1, i], last_h[2, i] = g[0, i] * inverse, g[1, i] * inverse, g[2, i] * inverse
        last_h[3, i] = -along * inverse
    trace[:] = factor.dtype.type(0)
    for back in range(iterations):
        t = iterations - back
        _solve4(factor, h[t])
        for k in range(4):
            for i in range(LANES):
                trace[i] -= shift * h[t, k, i] * x[t, k, i]
                h[t - 1, k, i] = growth[t, i] * h[t, k, i]


@njit(**INLINED)
@no_type_check
def to_observations(projection, w, uv, x, h, trace):
    """Gradients of pixels into `uv` and of weights into `w`, row by row: A^T A = sum of s r r^T, s = w^2 / |normal|^2.

    With G the gradient by A^T A: dr = 2 s (G r - (r G r / |normal|^2) normal) and dw = 2 w r G r / |normal|^2.
    """
    half, two = w.dtype.type(0.5), w.dtype.type(2)
    r, gr, by_weight = np.empty((4, LANES), w.dtype), np.empty((4, LANES), w.dtype), np.empty(LANES, w.dtype)
    for view in range(len(projection)):
        p = projection[view]
        by_weight[:] = w.dtype.type(0)
        for axis in range(2):
            for k in range(4):
                for i in range(LANES):
                    r[k, i] = uv[view, axis, i] * p[8 + k] - p[4 * axis + k]
                    gr[k, i] = trace[i] * r[k, i]
            for t in range(len(x)):
                for i in range(LANES):
                    xr = x[t, 0, i] * r[0, i] + x[t, 1, i] * r[1, i] + x[t, 2, i] * r[2, i] + x[t, 3, i] * r[3, i]
                    hr = h[t, 0, i] * r[0, i] + h[t, 1, i] * r[1, i] + h[t, 2, i] * r[2, i] + h[t, 3, i] * r[3, i]
                    gr[0, i] -= half * (h[t, 0, i] * xr + x[t, 0, i] * hr)
                    gr[1, i] -= half * (h[t, 1, i] * xr + x[t, 1, i] * hr)
                    gr[2, i] -= half * (h[t, 2, i] * xr + x[t, 2, i] * hr)
                    gr[3, i] -= half * (h[t, 3, i] * xr + x[t, 3, i] * hr)
            for i in range(LANES):
                length2 = r[0, i] * r[0, i] + r[1, i] * r[1, i] + r[2, i] * r[2, i]
                rgr = (r[0, i] * gr[0, i] + r[1, i] * gr[1, i] + r[2, i] * gr[2, i] + r[3, i] * gr[3, i]) / length2
                along = (gr[0, i] - rgr * r[0, i]) * p[8] + (gr[1, i] - rgr * r[1, i]) * p[9]
                along += (gr[2, i] - rgr * r[2, i]) * p[10] + gr[3, i] * p[11]
                by_weight[i] += two * w[view, i] * rgr
                uv[view, axis, i] = two * w[view, i] * w[view, i] / length2 * along
        for i in range(LANES):
            w[view, i] = by_weight[i]
