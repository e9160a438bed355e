"""Two-view triangulation at the global minimum of the reprojection error (Hartley and Sturm, CVIU 68(2), 1997).

Steps and names follow algorithm 12.1 of Hartley and Zisserman, "Multiple View Geometry", 2nd edition. Not
differentiable, since it selects among the roots of a polynomial of degree six.
"""

from __future__ import annotations

import itertools
import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mvpose.geometry.epipolar import fundamental_of
from mvpose.geometry.triangulation import MIN_ANGLE, Triangulation, checked_weights, triangulate

# The polynomial in t loses its leading coefficient if an epipole is at infinity. In s, with t the tangent of an angle
# rotated by this much, that happens only for specially constructed cameras.
TURN = 0.7


@torch.no_grad()
def corrected_pixels(
    left: Float[Tensor, "*batch 2"], right: Float[Tensor, "*batch 2"], fundamental: Float[Tensor, "*#batch 3 3"]
) -> tuple[Float[Tensor, "*batch 2"], Float[Tensor, "*batch 2"]]:
    """The nearest pair of pixels that satisfies F exactly, in the sum of squared distances.

    Computed in float64. A pixel on its own epipole has no direction to move in; such pairs become NaN.
    """
    dtype = left.dtype
    left, right, f = left.double(), right.double(), fundamental.double()
    back_left, back_right = _shift(left), _shift(right)
    f = back_right.transpose(-1, -2) @ f @ back_left
    u, _, vh = torch.linalg.svd(f)
    turn_left, f_left = _turn(vh[..., 2, :])
    turn_right, f_right = _turn(u[..., :, 2])
    f = turn_right @ f @ turn_left.transpose(-1, -2)
    a, b, c, d = f[..., 1, 1], f[..., 1, 2], f[..., 2, 1], f[..., 2, 2]
    up, down = _best_line(a, b, c, d, f_left, f_right)
    foot_left = _foot(torch.stack([up * f_left, down, -up], dim=-1))
    along = c * up + d * down
    foot_right = _foot(torch.stack([-f_right * along, a * up + b * down, along], dim=-1))
    moved_left = _pixel(back_left @ turn_left.transpose(-1, -2), foot_left)
    moved_right = _pixel(back_right @ turn_right.transpose(-1, -2), foot_right)
    return moved_left.to(dtype), moved_right.to(dtype)


@torch.no_grad()
def triangulate_polynomial(
    points: Float[Tensor, "*batch 2 2"],
    projections: Float[Tensor, "*#batch 2 3 4"],
    *,
    min_angle: float = MIN_ANGLE,
) -> Triangulation:
    """World points of minimum squared reprojection error in two views; validity as in `triangulate`."""
    exact = projections.double()
    f = fundamental_of(exact[..., 0, :, :], exact[..., 1, :, :])
    left, right = corrected_pixels(points[..., 0, :], points[..., 1, :], f)
    return triangulate(torch.stack([left, right], dim=-2), projections, min_angle=min_angle)


@torch.no_grad()
def triangulate_by_pairs(
    points: Float[Tensor, "*batch V 2"],
    projections: Float[Tensor, "*#batch V 3 4"],
    weights: Float[Tensor, "*batch V"] | None = None,
    mask: Bool[Tensor, "*batch V"] | None = None,
    *,
    min_angle: float = MIN_ANGLE,
) -> Triangulation:
    """Triangulate every pair of observed views by `triangulate_polynomial`, then take their vector median.

    This is how EpipolarPose creates its labels (Kocabas et al., CVPR 2019). Quadratic in views: for offline use.
    """
    seen = checked_weights(points, projections, weights, mask, True) > 0
    pairs = torch.tensor(list(itertools.combinations(range(points.shape[-2]), 2)), device=points.device)
    both = seen[..., pairs].all(dim=-1)
    pixels = torch.where(seen[..., None], points, torch.zeros_like(points))[..., pairs, :]
    found = triangulate_polynomial(pixels, projections[..., pairs, :, :], min_angle=min_angle)
    valid = found.valid & both
    return Triangulation(vector_median(found.points, valid), valid.any(dim=-1))


def vector_median(points: Float[Tensor, "*batch K 3"], mask: Bool[Tensor, "*batch K"]) -> Float[Tensor, "*batch 3"]:
    """The point with the minimum sum of distances to the others; (0, 0, 0) if the mask has none."""
    points = torch.where(mask[..., None], points, torch.zeros_like(points))
    distances = (points[..., :, None, :] - points[..., None, :, :]).norm(dim=-1)
    total = torch.where(mask[..., None, :], distances, torch.zeros_like(distances)).sum(dim=-1)
    best = torch.where(mask, total, torch.full_like(total, torch.inf)).argmin(dim=-1)
    return torch.gather(points, -2, best[..., None, None].expand(*best.shape, 1, 3))[..., 0, :]


def _shift(pixel: Tensor) -> Float[Tensor, "*batch 3 3"]:
    """The translation that maps the origin to the pixel."""
    matrix = torch.eye(3).to(pixel).repeat(*pixel.shape[:-1], 1, 1)
    matrix[..., :2, 2] = pixel
    return matrix


def _turn(epipole: Tensor) -> tuple[Tensor, Tensor]:
    """The rotation that maps the epipole to (1, 0, f), and f."""
    x, y, w = (epipole / epipole[..., :2].norm(dim=-1, keepdim=True)).unbind(-1)
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return torch.stack([x, y, zero, -y, x, zero, zero, zero, one], dim=-1).unflatten(-1, (3, 3)), w


def _best_line(a: Tensor, b: Tensor, c: Tensor, d: Tensor, f: Tensor, f2: Tensor) -> tuple[Tensor, Tensor]:
    """The parameter t = up / down of the pair of epipolar lines nearest to both pixels."""
    cos, sin = math.cos(TURN), math.sin(TURN)
    t = torch.tensor([cos, sin]).to(a).expand(*a.shape, 2)
    one = torch.tensor([-sin, cos]).to(a).expand(*a.shape, 2)
    p, q = a[..., None] * t + b[..., None] * one, c[..., None] * t + d[..., None] * one
    inner = _times(p, p) + f2[..., None] ** 2 * _times(q, q)
    outer = _times(one, one) + f[..., None] ** 2 * _times(t, t)
    first = _times(_times(t, one), _times(inner, inner))
    second = (a * d - b * c)[..., None] * _times(_times(outer, outer), _times(p, q))
    s = _roots(first - second).real
    up, down = cos * s + sin, cos - sin * s
    a, b, c, d, f, f2 = (x[..., None] for x in (a, b, c, d, f, f2))
    along = (c * up + d * down) ** 2
    cost = up**2 / (down**2 + f**2 * up**2) + along / ((a * up + b * down) ** 2 + f2**2 * along)
    best = cost.nan_to_num(nan=torch.inf).argmin(dim=-1, keepdim=True)
    return torch.gather(up, -1, best)[..., 0], torch.gather(down, -1, best)[..., 0]


def _times(p: Tensor, q: Tensor) -> Tensor:
    """Product of polynomials, coefficients in descending order of power."""
    out = torch.zeros(*p.shape[:-1], p.shape[-1] + q.shape[-1] - 1).to(p)
    for i in range(p.shape[-1]):
        out[..., i : i + q.shape[-1]] += p[..., i : i + 1] * q
    return out


def _roots(polynomial: Float[Tensor, "*batch 7"]) -> Tensor:
    """Complex roots as eigenvalues of the companion matrix; those of x = 1 if the polynomial is numerically zero."""
    lead = polynomial[..., :1]
    known = lead.abs() > 0
    monic = torch.where(known, polynomial[..., 1:] / torch.where(known, lead, torch.ones_like(lead)), -1.0)
    companion = torch.diag_embed(torch.ones_like(monic[..., 1:]), offset=-1)
    companion[..., 0, :] = -monic.nan_to_num()
    return torch.linalg.eigvals(companion)


def _foot(line: Tensor) -> Tensor:
    """The homogeneous point of a line nearest to the origin."""
    x, y, w = line.unbind(-1)
    return torch.stack([-x * w, -y * w, x * x + y * y], dim=-1)


def _pixel(matrix: Tensor, homogeneous: Tensor) -> Tensor:
    moved = (matrix @ homogeneous[..., None])[..., 0]
    return moved[..., :2] / moved[..., 2:]
