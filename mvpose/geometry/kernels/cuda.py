"""Fused DLT for CUDA in Triton: every observation is read once, and only points and flags are written.

One lane of a program is one point. With float32, V views and no weights, a point moves 8 V + 13 bytes, 45 at four
views, for about 60 V + 80 floating-point operations (SII, two iterations): memory-bound on any recent GPU.

The kernels are compiled from source, hence without annotations; shapes as in `kernels/cpu.py`. `minimum` is the minimum
precision of `dlt.determined`. With TRITON_INTERPRET=1 set before the first import, they run on the CPU, for tests.
"""

from typing import no_type_check

import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

BLOCK, NUM_WARPS = 128, 4


@no_type_check
def forward(points, weights, projections, centre, scale, start, sii, iterations, shift, minimum, out, valid):
    """World points into `out` (N 3) and whether they are determined into `valid` (N), on the current stream."""
    n, views = points.shape[:2]
    sizes = (n, n // len(projections), int(len(start) > 1), shift, minimum)
    _forward[(triton.cdiv(n, BLOCK),)](
        points, weights, projections, centre, scale, start, out, valid, *sizes, views, len(projections) == 1,
        weights.numel() > 0, sii, iterations, BLOCK=BLOCK, num_warps=NUM_WARPS,
    )  # fmt: skip


@no_type_check
def backward(points, weights, projections, scale, start, sii, iterations, shift, valid, grad, d_uv, d_w):
    """Gradients of pixels (N V 2) and weights (N V, or empty) from that of the world points (N 3)."""
    n, views = points.shape[:2]
    sizes = (n, n // len(projections), int(len(start) > 1), shift)
    _backward[(triton.cdiv(n, BLOCK),)](
        points, weights, projections, scale, start, valid, grad, d_uv, d_w, *sizes, views, len(projections) == 1,
        weights.numel() > 0, sii, iterations, BLOCK=BLOCK, num_warps=NUM_WARPS,
    )  # fmt: skip


@triton.jit
@no_type_check
def _forward(
    points, weights, projections, centre, scale, start, out, valid, n, per_group, start_step, shift, minimum,
    VIEWS: tl.constexpr, SHARED: tl.constexpr, WEIGHTED: tl.constexpr, SII: tl.constexpr, ITERATIONS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    at = tl.minimum(at, n - 1)
    group = 0 if SHARED else at // per_group
    m, largest, seen = _gram(points, weights, projections + group * (VIEWS * 12), at, VIEWS, WEIGHTED, BLOCK)
    ok = _determined(m, largest, seen, minimum)
    m = _harmless(m, ok)
    if SII:
        factor = _factorise(m, shift)
        x, y, z, w = _start(start, at * start_step)
        for _ in tl.static_range(ITERATIONS):
            x, y, z, w = _unit(_solve4(factor, x, y, z, w))
        near = x * x + y * y + z * z < 1e12 * w * w
        ok = ok & near
        inverse = 1.0 / tl.where(near, w, 1.0)
        x, y, z = x * inverse, y * inverse, z * inverse
    else:
        x, y, z = _solve3(m, -m[3], -m[6], -m[8])
    for view in range(VIEWS):
        p = projections + group * (VIEWS * 12) + view * 12
        depth = x * tl.load(p + 8) + y * tl.load(p + 9) + z * tl.load(p + 10) + tl.load(p + 11)
        before = depth > 0
        if WEIGHTED:
            before = before | (tl.load(weights + at * VIEWS + view) <= 0)
        ok = ok & before
    size = tl.load(scale + group)
    tl.store(out + at * 3, tl.where(ok, x * size + tl.load(centre + group * 3), 0.0), mask=inside)
    tl.store(out + at * 3 + 1, tl.where(ok, y * size + tl.load(centre + group * 3 + 1), 0.0), mask=inside)
    tl.store(out + at * 3 + 2, tl.where(ok, z * size + tl.load(centre + group * 3 + 2), 0.0), mask=inside)
    tl.store(valid + at, ok, mask=inside)


@triton.jit
@no_type_check
def _backward(
    points, weights, projections, scale, start, valid, grad, d_uv, d_w, n, per_group, start_step, shift,
    VIEWS: tl.constexpr, SHARED: tl.constexpr, WEIGHTED: tl.constexpr, SII: tl.constexpr, ITERATIONS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    at = tl.minimum(at, n - 1)
    group = 0 if SHARED else at // per_group
    m, _, _ = _gram(points, weights, projections + group * (VIEWS * 12), at, VIEWS, WEIGHTED, BLOCK)
    ok = tl.load(valid + at) != 0
    m = _harmless(m, ok)
    size = tl.where(ok, tl.load(scale + group), 0.0)
    gx, gy, gz = tl.load(grad + at * 3) * size, tl.load(grad + at * 3 + 1) * size, tl.load(grad + at * 3 + 2) * size
    if SII:
        g = _adjoint_iterations(m, gx, gy, gz, start, at * start_step, shift, ITERATIONS)
    else:
        g = _adjoint_normal(m, gx, gy, gz)
    for view in range(VIEWS):
        p = projections + group * (VIEWS * 12) + view * 12
        u, v, w = _observation(points, weights, at, view, VIEWS, WEIGHTED, BLOCK)
        du, first = _through_row(u, w, p, 0, g)
        dv, second = _through_row(v, w, p, 4, g)
        tl.store(d_uv + (at * VIEWS + view) * 2, tl.where(ok, du, 0.0), mask=inside)
        tl.store(d_uv + (at * VIEWS + view) * 2 + 1, tl.where(ok, dv, 0.0), mask=inside)
        if WEIGHTED:
            tl.store(d_w + at * VIEWS + view, tl.where(ok, first + second, 0.0), mask=inside)


@triton.jit
@no_type_check
def _observation(points, weights, at, view, VIEWS: tl.constexpr, WEIGHTED: tl.constexpr, BLOCK: tl.constexpr):
    """Pixel and weight of one view; an absent observation becomes weight 0 at pixel (0, 0)."""
    u = tl.load(points + (at * VIEWS + view) * 2)
    v = tl.load(points + (at * VIEWS + view) * 2 + 1)
    if WEIGHTED:
        w = tl.load(weights + at * VIEWS + view)
        seen = w > 0
        u, v, w = tl.where(seen, u, 0.0), tl.where(seen, v, 0.0), tl.where(seen, w, 0.0)
    else:
        w = tl.full([BLOCK], 1.0, points.dtype.element_ty)
    return u, v, w


@triton.jit
@no_type_check
def _gram(points, weights, projections, at, VIEWS: tl.constexpr, WEIGHTED: tl.constexpr, BLOCK: tl.constexpr):
    """Upper triangle of A^T A by rows, the largest weight and the number of views."""
    zero = tl.zeros([BLOCK], points.dtype.element_ty)
    xx, xy, xz, xw, yy, yz, yw, zz, zw, ww = zero, zero, zero, zero, zero, zero, zero, zero, zero, zero
    largest, seen = zero, zero
    for view in range(VIEWS):
        u, v, w = _observation(points, weights, at, view, VIEWS, WEIGHTED, BLOCK)
        largest = tl.maximum(largest, w)
        seen += tl.where(w > 0, 1.0, 0.0).to(points.dtype.element_ty)
        for axis in tl.static_range(2):
            a, b, c, d = _row(u if axis == 0 else v, projections + view * 12, 4 * axis)
            s = w * w / (a * a + b * b + c * c)
            sa, sb, sc, sd = s * a, s * b, s * c, s * d
            xx, xy, xz, xw = xx + sa * a, xy + sa * b, xz + sa * c, xw + sa * d
            yy, yz, yw = yy + sb * b, yz + sb * c, yw + sb * d
            zz, zw, ww = zz + sc * c, zw + sc * d, ww + sd * d
    return (xx, xy, xz, xw, yy, yz, yw, zz, zw, ww), largest, seen


@triton.jit
@no_type_check
def _row(pixel, p, offset: tl.constexpr):
    a = pixel * tl.load(p + 8) - tl.load(p + offset)
    b = pixel * tl.load(p + 9) - tl.load(p + offset + 1)
    c = pixel * tl.load(p + 10) - tl.load(p + offset + 2)
    d = pixel * tl.load(p + 11) - tl.load(p + offset + 3)
    return a, b, c, d


@triton.jit
@no_type_check
def _determined(m, largest, seen, minimum):
    cxx, cyy, czz = m[4] * m[7] - m[5] * m[5], m[0] * m[7] - m[2] * m[2], m[0] * m[4] - m[1] * m[1]
    determinant = m[0] * cxx + m[1] * (m[2] * m[5] - m[1] * m[7]) + m[2] * (m[1] * m[5] - m[2] * m[4])
    return (determinant > minimum * largest * largest * (cxx + cyy + czz)) & (seen > 1.5)


@triton.jit
@no_type_check
def _harmless(m, ok):
    """Replace a singular matrix by the identity."""
    return (
        tl.where(ok, m[0], 1.0), tl.where(ok, m[1], 0.0), tl.where(ok, m[2], 0.0), tl.where(ok, m[3], 0.0),
        tl.where(ok, m[4], 1.0), tl.where(ok, m[5], 0.0), tl.where(ok, m[6], 0.0), tl.where(ok, m[7], 1.0),
        tl.where(ok, m[8], 0.0), tl.where(ok, m[9], 1.0),
    )  # fmt: skip


@triton.jit
@no_type_check
def _solve3(m, a, b, c):
    """N^-1 (a, b, c) with N the upper left 3x3 block."""
    cxx, cxy, cxz = m[4] * m[7] - m[5] * m[5], m[2] * m[5] - m[1] * m[7], m[1] * m[5] - m[2] * m[4]
    cyy, cyz, czz = m[0] * m[7] - m[2] * m[2], m[1] * m[2] - m[0] * m[5], m[0] * m[4] - m[1] * m[1]
    inverse = 1.0 / (m[0] * cxx + m[1] * cxy + m[2] * cxz)
    a, b, c = a * inverse, b * inverse, c * inverse
    return cxx * a + cxy * b + cxz * c, cxy * a + cyy * b + cyz * c, cxz * a + cyz * b + czz * c


@triton.jit
@no_type_check
def _factorise(m, shift):
    """L D L^T of m + shift trace I: unit lower L off the diagonal, 1 / D on it."""
    sigma = shift * (m[0] + m[4] + m[7] + m[9])
    d0 = 1.0 / (m[0] + sigma)
    l10, l20, l30 = m[1] * d0, m[2] * d0, m[3] * d0
    d1 = 1.0 / (m[4] + sigma - l10 * m[1])
    m21, m31 = m[5] - l20 * m[1], m[6] - l30 * m[1]
    l21, l31 = m21 * d1, m31 * d1
    d2 = 1.0 / (m[7] + sigma - l20 * m[2] - l21 * m21)
    m32 = m[8] - l30 * m[2] - l31 * m21
    l32 = m32 * d2
    # Rounding can push the last pivot of exact data below its theoretical minimum, the shift.
    d3 = 1.0 / tl.maximum(m[9] + sigma - l30 * m[3] - l31 * m31 - l32 * m32, sigma)
    return d0, l10, l20, l30, d1, l21, l31, d2, l32, d3


@triton.jit
@no_type_check
def _solve4(f, a, b, c, d):
    b = b - f[1] * a
    c = c - f[2] * a - f[5] * b
    d = (d - f[3] * a - f[6] * b - f[8] * c) * f[9]
    c = c * f[7] - f[8] * d
    b = b * f[4] - f[5] * c - f[6] * d
    a = a * f[0] - f[1] * b - f[2] * c - f[3] * d
    return a, b, c, d


@triton.jit
@no_type_check
def _start(start, offset):
    p = start + offset * 3
    x, y, z = tl.load(p), tl.load(p + 1), tl.load(p + 2)
    return x, y, z, x * 0.0 + 1.0


@triton.jit
@no_type_check
def _unit(v):
    a, b, c, d = v
    growth = 1.0 / tl.sqrt(a * a + b * b + c * c + d * d)
    return a * growth, b * growth, c * growth, d * growth


@triton.jit
@no_type_check
def _adjoint_normal(m, gx, gy, gz):
    """Upper triangle of the symmetric gradient with respect to A^T A, for the normal equations."""
    x, y, z = _solve3(m, -m[3], -m[6], -m[8])
    a, b, c = _solve3(m, gx, gy, gz)
    return _minus_outer(_zeros(gx), a, b, c, gx * 0.0, x, y, z, gx * 0.0 + 1.0)


@triton.jit
@no_type_check
def _adjoint_iterations(m, gx, gy, gz, start, offset, shift, ITERATIONS: tl.constexpr):
    """The same for shifted iterations, including the shift's contribution on the diagonal.

    Iterates are recomputed from the start instead of stored, since there are only two or three.
    """
    factor = _factorise(m, shift)
    x, y, z, w = _start(start, offset)
    for _ in tl.static_range(ITERATIONS):
        x, y, z, w = _unit(_solve4(factor, x, y, z, w))
    inverse = 1.0 / w
    a, b, c, d = gx * inverse, gy * inverse, gz * inverse, -(gx * x + gy * y + gz * z) * inverse * inverse
    g, trace = _zeros(gx), gx * 0.0
    for back in tl.static_range(ITERATIONS):
        x, y, z, w = _start(start, offset)
        growth = gx * 0.0
        for _ in tl.static_range(ITERATIONS - back):
            p, q, r, s = _solve4(factor, x, y, z, w)
            growth = 1.0 / tl.sqrt(p * p + q * q + r * r + s * s)
            x, y, z, w = p * growth, q * growth, r * growth, s * growth
        a, b, c, d = _solve4(factor, a, b, c, d)
        g = _minus_outer(g, a, b, c, d, x, y, z, w)
        trace -= shift * (a * x + b * y + c * z + d * w)
        a, b, c, d = a * growth, b * growth, c * growth, d * growth
    return g[0] + trace, g[1], g[2], g[3], g[4] + trace, g[5], g[6], g[7] + trace, g[8], g[9] + trace


@triton.jit
@no_type_check
def _zeros(like):
    zero = like * 0.0
    return zero, zero, zero, zero, zero, zero, zero, zero, zero, zero


@triton.jit
@no_type_check
def _minus_outer(g, a, b, c, d, x, y, z, w):
    """g - (h x^T + x h^T) / 2 for h = (a b c d), x = (x y z w)."""
    return (
        g[0] - a * x, g[1] - 0.5 * (a * y + b * x), g[2] - 0.5 * (a * z + c * x), g[3] - 0.5 * (a * w + d * x),
        g[4] - b * y, g[5] - 0.5 * (b * z + c * y), g[6] - 0.5 * (b * w + d * y), g[7] - c * z,
        g[8] - 0.5 * (c * w + d * z), g[9] - d * w,
    )  # fmt: skip


@triton.jit
@no_type_check
def _through_row(pixel, w, p, offset: tl.constexpr, g):
    """Gradients of one pixel coordinate and of the weight, as in `lanes.to_observations`."""
    a, b, c, d = _row(pixel, p, offset)
    ga = g[0] * a + g[1] * b + g[2] * c + g[3] * d
    gb = g[1] * a + g[4] * b + g[5] * c + g[6] * d
    gc = g[2] * a + g[5] * b + g[7] * c + g[8] * d
    gd = g[3] * a + g[6] * b + g[8] * c + g[9] * d
    inverse = 1.0 / (a * a + b * b + c * c)
    rgr = (a * ga + b * gb + c * gc + d * gd) * inverse
    along = (ga - rgr * a) * tl.load(p + 8) + (gb - rgr * b) * tl.load(p + 9)
    along += (gc - rgr * c) * tl.load(p + 10) + gd * tl.load(p + 11)
    return 2.0 * w * w * inverse * along, 2.0 * w * rgr
