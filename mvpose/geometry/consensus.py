"""Find the view pair whose point most views agree with: RANSAC with a fixed list of hypotheses instead of random ones.

Tensors have the points last, (V, n) and (hypotheses, n), so each step runs over contiguous memory.
"""

from __future__ import annotations

import functools
import itertools
import math

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from mvpose.geometry.ray_planes import RayPlanes, intersected

# Pairs are drawn from this many views with the highest weights: more views do not make ten pairs more reliable.
POOL = 12
# Elements of one intermediate (views x hypotheses x points): 1 MB in float64 fits a cache, 256 MB fills a GPU.
CPU_ELEMENTS, GPU_ELEMENTS = 2**17, 2**26


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
    pairs = pair_table(len(weights), hypotheses).to(weights.device)
    found = [
        _best_of_chunk(planes.part(part), weights[:, part], pairs, _part(threshold_px, part), min_angle)
        for part in _chunks(weights, pairs.shape[1])
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
    planes: RayPlanes, weights: Tensor, pairs: Tensor, threshold_px: float | Tensor, min_angle: float
) -> tuple[Tensor, Tensor]:
    """Points (3 n) of the best pairs and whether they exist."""
    left, right = _chosen_views(weights, pairs)
    seen = (weights > 0)[None]
    x, apart = intersected(_of_views(planes.moments, left) + _of_views(planes.moments, right), 1.0, min_angle)
    apart &= (left != right) & _of_views(seen, left)[0] & _of_views(seen, right)[0]
    cost = _truncated_costs(planes, x, left, right, weights, threshold_px)
    lowest, best = torch.where(apart & cost.isfinite(), cost, torch.inf).min(dim=0)
    return torch.gather(x, 1, best.expand(3, 1, -1))[:, 0], lowest.isfinite()


def _chosen_views(weights: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """View indices of the pairs of each point, (H n) each; (H 1) if every point has all pairs.

    Views of equal weight are spread over the rig.
    """
    if pairs.shape[1] == math.comb(len(weights), 2):
        left, right = pairs[-1].T[..., None]
        return left, right
    order = torch.tensor(_spread(len(weights)), device=weights.device)
    ranked = order[torch.argsort(weights[order].T, dim=-1, descending=True, stable=True)]
    ranks = pairs[(weights > 0).sum(dim=0)]
    chosen = torch.gather(ranked, 1, ranks.flatten(1)).reshape(ranks.shape)
    return chosen[..., 0].T, chosen[..., 1].T


def _of_views(values: Shaped[Tensor, "k V n"], views: Int[Tensor, "H m"]) -> Shaped[Tensor, "k H n"]:
    """The values of a view for each hypothesis; copying whole rows takes a third of the time of `gather`."""
    if views.shape[1] == 1:
        return values[:, views[:, 0]]
    return values.gather(1, views.expand(len(values), *views.shape))


def _truncated_costs(
    planes: RayPlanes, x: Tensor, left: Tensor, right: Tensor, weights: Tensor, threshold_px: float | Tensor
) -> Tensor:
    """Weighted sum over views of min(error^2 / threshold^2, 1), (H n); infinite behind a camera of the pair."""
    image = planes.image(x)
    depth = image[2]
    squared = (image[0] / depth - planes.u[:, None]) ** 2 + (image[1] / depth - planes.v[:, None]) ** 2
    front = depth > 0
    truncated = torch.where(front, (squared / threshold_px**2).clamp_max(1.0), 1.0)
    cost = torch.where((weights > 0)[:, None], truncated * weights[:, None], 0.0).sum(dim=0)
    before = [front.gather(0, views.expand(x.shape[1:])[None])[0] for views in (left, right)]
    return torch.where(before[0] & before[1], cost, torch.inf)
