"""Find the view pair whose point most views agree with: RANSAC with a fixed list of hypotheses instead of random ones.

Tensors have the points last, (V, n) and (hypotheses, n), so each step runs over contiguous memory.
"""

from __future__ import annotations

import functools
import itertools
import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mvpose.geometry.ray_planes import RayPlanes, intersected

# Pairs are drawn from this many views with the highest weights: more views do not make ten pairs more reliable.
POOL = 12
# Elements of one intermediate (views x hypotheses x points): 2 MB in float32 fits a cache, 256 MB fills a GPU.
CPU_ELEMENTS, GPU_ELEMENTS = 2**19, 2**26


def best_pair_points(
    planes: RayPlanes,
    weights: Float[Tensor, "V n"],
    threshold_px: float | Float[Tensor, "V n"],
    hypotheses: int,
    min_angle: float,
) -> tuple[Float[Tensor, "3 n"], Bool[Tensor, " n"]]:
    """The point of the view pair with the minimum truncated squared reprojection error over all observed views.

    Not valid if no pair of observed views sees it in front of both cameras and under at least `min_angle`.
    """
    table = pair_table(len(weights), hypotheses).to(weights.device)
    found = [
        _best_of_chunk(planes.part(part), weights[:, part], table, _part(threshold_px, part), min_angle)
        for part in _chunks(weights, table.shape[1])
    ]
    return torch.cat([x for x, _ in found], dim=1), torch.cat([valid for _, valid in found])


def _chunks(weights: Float[Tensor, "V n"], hypotheses: int) -> list[slice]:
    """Chunks of points; a single one under torch.export, where their number is symbolic and loops are impossible."""
    if torch.compiler.is_compiling():
        return [slice(None)]
    views, points = weights.shape
    budget = CPU_ELEMENTS if weights.device.type == "cpu" else GPU_ELEMENTS
    step = max(1, budget // (views * hypotheses))
    return [slice(start, start + step) for start in range(0, max(points, 1), step)]


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
    return limit[:, None, part] if isinstance(limit, Tensor) else limit


def _best_of_chunk(
    planes: RayPlanes, weights: Tensor, table: Tensor, threshold_px: float | Tensor, min_angle: float
) -> tuple[Tensor, Tensor]:
    """Points (3 n) of the best pairs and whether they exist."""
    left, right = _chosen_views(weights, table)
    pair = torch.gather(planes.moments, 1, left.expand(9, -1, -1))
    pair += torch.gather(planes.moments, 1, right.expand(9, -1, -1))
    x, apart = intersected(pair, 1.0, min_angle)
    cost = _truncated_costs(planes, x, apart & (left != right), torch.stack([left, right]), weights, threshold_px)
    lowest, best = cost.min(dim=0)
    return torch.gather(x, 1, best.expand(3, 1, -1))[:, 0], lowest.isfinite()


def _chosen_views(weights: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
    """View indices of the pairs of each point, (H n) each; views of equal weight are spread over the rig."""
    order = torch.tensor(_spread(len(weights)), device=weights.device)
    ranked = order[torch.argsort(weights[order].T, dim=-1, descending=True, stable=True)]
    pairs = table[(weights > 0).sum(dim=0)]
    chosen = torch.gather(ranked, 1, pairs.flatten(1)).reshape(pairs.shape)
    return chosen[..., 0].T, chosen[..., 1].T


def _truncated_costs(
    planes: RayPlanes, x: Tensor, determined: Tensor, pair: Tensor, weights: Tensor, threshold_px: float | Tensor
) -> Tensor:
    """Weighted sum over views of min(error^2 / threshold^2, 1), (H n); infinite if the pair gives no point."""
    p, u, v = planes.projections, planes.u, planes.v
    image = [x[0] * row[0, :, None] + x[1] * row[1, :, None] + x[2] * row[2, :, None] + row[3, :, None] for row in p]
    depth = image[2]
    squared = (image[0] / depth - u[:, None]) ** 2 + (image[1] / depth - v[:, None]) ** 2
    front = depth > 0
    truncated = torch.where(front, (squared / threshold_px**2).clamp_max(1.0), 1.0)
    cost = torch.where((weights > 0)[:, None], truncated * weights[:, None], 0.0).sum(dim=0)
    before = torch.gather(front, 0, pair).all(dim=0)
    return torch.where(determined & before & cost.isfinite(), cost, torch.inf)
