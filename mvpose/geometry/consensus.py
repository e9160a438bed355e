"""Find the view pair whose point most views agree with: RANSAC with a fixed list of hypotheses instead of random ones.

Tensors have the points last, (V, n) and (hypotheses, n), so each step runs over contiguous memory.
"""

from __future__ import annotations

import functools
import itertools
import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mvpose.geometry.conditioning import Conditioned
from mvpose.geometry.triangulation import Triangulation

# Pairs are drawn from this many views with the highest weights: more views do not make ten pairs more reliable.
POOL = 12
# Elements of one intermediate (views x hypotheses x points): 2 MB in float32 fits a cache, 256 MB fills a GPU.
CPU_ELEMENTS, GPU_ELEMENTS = 2**19, 2**26


def best_pair_points(
    points: Float[Tensor, "*batch V 2"],
    projections: Float[Tensor, "*#batch V 3 4"],
    weights: Float[Tensor, "*batch V"],
    threshold_px: float | Float[Tensor, "*#batch V"],
    hypotheses: int,
    min_angle: float,
) -> Triangulation:
    """The point of the view pair with the minimum truncated squared reprojection error over all observed views.

    Invalid if no pair of observed views sees it in front of both cameras and under at least `min_angle`.
    """
    batch, views = points.shape[:-2], points.shape[-2]
    conditioned = Conditioned.of(projections, points.dtype)
    shared = math.prod(projections.shape[:-3]) == 1  # `Size.numel` would fix the batch under torch.export
    p = conditioned.projections.expand(*((1,) * len(batch) if shared else batch), views, 3, 4).reshape(-1, views, 3, 4)
    uv, w = points.reshape(-1, views, 2), weights.reshape(-1, views)
    limit = threshold_px.expand(*batch, views).reshape(-1, views) if isinstance(threshold_px, Tensor) else threshold_px
    table = pair_table(views, hypotheses).to(points.device)
    found = [
        _best_of_chunk(uv[part], p if shared else p[part], w[part], table, _part(limit, part), min_angle)
        for part in _chunks(uv, table.shape[1])
    ]
    x = torch.cat([part[0] for part in found]).reshape(*batch, 3)
    valid = torch.cat([part[1] for part in found]).reshape(batch)
    world = conditioned.to_world(x)
    return Triangulation(torch.where(valid[..., None], world, torch.zeros_like(world)), valid)


def _chunks(uv: Float[Tensor, "n V 2"], hypotheses: int) -> list[slice]:
    """Chunks of points; a single one under torch.export, where their number is symbolic and loops are impossible."""
    if torch.compiler.is_compiling():
        return [slice(None)]
    budget = CPU_ELEMENTS if uv.device.type == "cpu" else GPU_ELEMENTS
    step = max(1, budget // (uv.shape[1] * hypotheses))
    return [slice(start, start + step) for start in range(0, max(len(uv), 1), step)]


def pair_table(num_views: int, hypotheses: int) -> Int[Tensor, "N H 2"]:
    """For each number n <= V of observed views, H pairs of ranks among them; short lists repeat their first pair.

    All pairs if they are few enough; otherwise pairs a third of the ranks apart, spread evenly, so that pairs share
    as few views as possible.
    """
    return torch.tensor(_rank_pairs(num_views, hypotheses))


@functools.cache
def _rank_pairs(num_views: int, hypotheses: int) -> list[list[tuple[int, int]]]:
    """The table as plain numbers: a tensor cached from a call under torch.export would be useless in later calls."""
    lists = [_pairs(min(n, POOL), hypotheses) for n in range(num_views + 1)]
    width = max(1, *map(len, lists))
    return [(pairs + [(pairs or [(0, 0)])[0]] * width)[:width] for pairs in lists]


def _pairs(n: int, hypotheses: int) -> list[tuple[int, int]]:
    """At most `hypotheses` pairs of n ranks."""
    everything = list(itertools.combinations(range(n), 2))
    if len(everything) <= hypotheses:
        return everything
    apart = sorted(range(1, n // 2 + 1), key=lambda d: abs(d - n / 3))
    ordered = [(min(r, (r + d) % n), max(r, (r + d) % n)) for d in apart for r in _spread(n)]
    return list(dict.fromkeys(ordered))[:hypotheses]


def _spread(n: int) -> list[int]:
    """0 .. n - 1 in an order whose every prefix is spread over the whole range (steps of the golden section)."""
    step = next(s for s in range(max(1, round(0.382 * n)), n + 2) if math.gcd(s, n) == 1)
    return [i * step % n for i in range(n)]


def _part(limit: float | Tensor, part: slice) -> float | Tensor:
    """The limit of each view for some points, (V 1 n), or the one of all."""
    return limit[part].T[:, None] if isinstance(limit, Tensor) else limit


def _best_of_chunk(
    uv: Tensor, projections: Tensor, weights: Tensor, table: Tensor, threshold_px: float | Tensor, min_angle: float
) -> tuple[Tensor, Tensor]:
    """Points (n 3) of the best pairs and whether they exist; `projections` is (1 or n, V, 3, 4)."""
    seen = (weights > 0).T
    u, v = torch.where(seen[None], uv.permute(2, 1, 0), 0.0)
    p = projections.permute(2, 3, 1, 0).contiguous()
    left, right = _chosen_views(weights, table)
    x, determined = _pair_points(_planes(u, v, p), left, right, min_angle)
    cost = _truncated_costs(x, determined, u, v, p, seen, torch.stack([left, right]), weights.T, threshold_px)
    lowest, best = cost.min(dim=0)
    point = torch.gather(x, 1, best.expand(3, 1, -1))[:, 0]
    return point.T, lowest.isfinite()


def _chosen_views(weights: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """View indices of the pairs of each point, (H n) each; views of equal weight are spread over the rig."""
    views = weights.shape[-1]
    order = torch.tensor(_spread(views), device=weights.device)
    ranked = order[torch.argsort(weights[:, order], dim=-1, descending=True, stable=True)]
    pairs = table[(weights > 0).sum(dim=-1)]
    chosen = torch.gather(ranked, 1, pairs.flatten(1)).reshape(pairs.shape)
    return chosen[..., 0].T, chosen[..., 1].T


def _planes(u: Tensor, v: Tensor, p: Tensor) -> Tensor:
    """Sums over the two rows of a view of n n^T (6 entries) and of -d n (3), (9 V n); `p` is (3 4 V 1|n)."""
    total = torch.zeros(9, *u.shape, dtype=u.dtype, device=u.device)
    for pixel, row in ((u, p[0]), (v, p[1])):
        a, b, c, d = (pixel * p[2, k] - row[k] for k in range(4))
        s = 1.0 / (a * a + b * b + c * c)
        sa, sb, sc = s * a, s * b, s * c
        total += torch.stack([sa * a, sa * b, sa * c, sb * b, sb * c, sc * c, -d * sa, -d * sb, -d * sc])
    return total


def _pair_points(planes: Tensor, left: Tensor, right: Tensor, min_angle: float) -> tuple[Tensor, Tensor]:
    """Points (3 H n) from 3x3 normal equations of two views each, and whether their rays are sufficiently apart."""
    pair = torch.gather(planes, 1, left.expand(9, -1, -1)) + torch.gather(planes, 1, right.expand(9, -1, -1))
    xx, xy, xz, yy, yz, zz, bx, by, bz = pair
    cxx, cxy, cxz = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    cyy, cyz, czz = xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy
    determinant = xx * cxx + xy * cxy + xz * cxz
    apart = (determinant > (1.0 - math.cos(min_angle)) * (cxx + cyy + czz)) & (left != right)
    inverse = 1.0 / torch.where(apart, determinant, torch.ones_like(determinant))
    x = cxx * bx + cxy * by + cxz * bz
    y = cxy * bx + cyy * by + cyz * bz
    z = cxz * bx + cyz * by + czz * bz
    return torch.stack([x, y, z]) * inverse, apart


def _truncated_costs(
    x: Tensor,
    determined: Tensor,
    u: Tensor,
    v: Tensor,
    p: Tensor,
    seen: Tensor,
    pair: Tensor,
    weights: Tensor,
    threshold_px: float | Tensor,
) -> Tensor:
    """Weighted sum over views of min(error^2 / threshold^2, 1), (H n); infinite if the pair gives no point."""
    image = [x[0] * row[0, :, None] + x[1] * row[1, :, None] + x[2] * row[2, :, None] + row[3, :, None] for row in p]
    depth = image[2]
    squared = (image[0] / depth - u[:, None]) ** 2 + (image[1] / depth - v[:, None]) ** 2
    front = depth > 0
    truncated = torch.where(front, (squared / threshold_px**2).clamp_max(1.0), 1.0)
    cost = torch.where(seen[:, None], truncated * weights[:, None], 0.0).sum(dim=0)
    before = torch.gather(front, 0, pair).all(dim=0)
    return torch.where(determined & before & cost.isfinite(), cost, torch.inf)
