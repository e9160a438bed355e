"""Heatmaps: Gaussian targets, and methods to convert a map to a point.

Points are (x, y) in pixels of the map; the centre of the first pixel is (0, 0). Sums use multiply-and-add instead of
matrix products, because autocast would round a product's pixel indices to bfloat16 (a quarter of a pixel).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def gaussian_targets(
    points: Float[Tensor, "*batch 2"], size: tuple[int, int], sigma: float
) -> Float[Tensor, "*batch h w"]:
    """Maps of (width, height) `size` with a Gaussian of height 1 and `sigma` pixels around each point.

    The map of a point that is not finite is zero.
    """
    width, height = size
    known = torch.isfinite(points).all(dim=-1)
    x, y = torch.where(known[..., None], points, torch.zeros_like(points)).unbind(-1)
    across, down = _bell(x, width, sigma), _bell(y, height, sigma)
    return down[..., :, None] * across[..., None, :] * known[..., None, None]


def probabilities(heatmaps: Float[Tensor, "*batch h w"], sharpness: float = 1.0) -> Float[Tensor, "*batch h w"]:
    """Softmax over all pixels of `sharpness` times the map (inverse temperature), in at least float32."""
    flat = heatmaps.flatten(-2)
    wide = flat if flat.dtype == torch.float64 else flat.float()
    return torch.softmax(sharpness * wide, dim=-1).unflatten(-1, heatmaps.shape[-2:])


def masses(heatmaps: Float[Tensor, "*batch h w"]) -> Float[Tensor, "*batch h w"]:
    """The positive part of the map, scaled to sum 1; an empty map becomes uniform."""
    positive = heatmaps.clamp_min(0.0)
    positive = (positive if positive.dtype == torch.float64 else positive.float()) + 1e-9
    return positive / positive.sum(dim=(-2, -1), keepdim=True)


def expectation(probability: Float[Tensor, "*batch h w"]) -> Float[Tensor, "*batch 2"]:
    """Mean (x, y) of maps that sum to 1."""
    return torch.stack([_mean_index(probability.sum(dim=-2)), _mean_index(probability.sum(dim=-1))], dim=-1)


def soft_argmax(heatmaps: Float[Tensor, "*batch h w"], sharpness: float) -> Float[Tensor, "*batch 2"]:
    """Expected (x, y) under the softmax of `sharpness` times the map.

    Iskakov et al. 2019 use 100. On 64 x 64 Gaussian targets of sigma 2 px and height 1, that snaps to whole pixels (up
    to 0.46 px off), 15 is within 0.05 px, and at 10 the background already biases the result by 2 px. In end-to-end
    training, the maps adapt.
    """
    return expectation(probabilities(heatmaps, sharpness))


def centre_of_mass(heatmaps: Float[Tensor, "*batch h w"]) -> Float[Tensor, "*batch 2"]:
    """Mean (x, y) weighted by the positive part of the map; the centre of the map if there is none."""
    return expectation(masses(heatmaps))


def argmax(heatmaps: Float[Tensor, "*batch h w"]) -> Float[Tensor, "*batch 2"]:
    """(x, y) of the highest pixel, as whole numbers, without gradient."""
    best = heatmaps.flatten(-2).argmax(dim=-1)
    width = heatmaps.shape[-1]
    return torch.stack([best % width, torch.div(best, width, rounding_mode="floor")], dim=-1).to(heatmaps.dtype)


def soft_argmax_3d(probability: Float[Tensor, "*batch a b c"]) -> Float[Tensor, "*batch 3"]:
    """Mean index along each of the three axes, in order, of volumes that sum to 1."""
    sums = probability.sum(dim=(-2, -1)), probability.sum(dim=(-3, -1)), probability.sum(dim=(-3, -2))
    return torch.stack([_mean_index(s) for s in sums], dim=-1)


def concentration(
    probability: Float[Tensor, "*batch h w"], points: Float[Tensor, "*batch 2"], radius: float
) -> Float[Tensor, "*batch"]:
    """The fraction of a map that sums to 1 near the point, weighted by a Gaussian of `radius` pixels: 0..1.

    It distinguishes a sharp map from a flat or two-peaked one at any scale of the map, so it serves as the confidence
    of all methods.
    """
    x, y = points.unbind(-1)
    height, width = probability.shape[-2:]
    rows = (probability * _bell(x, width, radius)[..., None, :]).sum(dim=-1)
    return (rows * _bell(y, height, radius)).sum(dim=-1)


def concentration_3d(
    probability: Float[Tensor, "*batch a b c"], points: Float[Tensor, "*batch 3"], radius: float
) -> Float[Tensor, "*batch"]:
    """`concentration` in a volume; points are voxel indices, `radius` is in voxels."""
    a, b, c = points.unbind(-1)
    sizes = probability.shape[-3:]
    planes = (probability * _bell(c, sizes[2], radius)[..., None, None, :]).sum(dim=-1)
    rows = (planes * _bell(b, sizes[1], radius)[..., None, :]).sum(dim=-1)
    return (rows * _bell(a, sizes[0], radius)).sum(dim=-1)


def resized_points(
    points: Float[Tensor, "*batch 2"], size: tuple[int, int], new_size: tuple[int, int]
) -> Float[Tensor, "*batch 2"]:
    """Pixel positions after resizing an image of (width, height) `size`: c goes to (c + 0.5) s - 0.5."""
    scale = points.new_tensor([new_size[0] / size[0], new_size[1] / size[1]])
    return (points + 0.5) * scale - 0.5


def _bell(centre: Float[Tensor, "*batch"], count: int, sigma: float) -> Float[Tensor, "*batch n"]:
    index = torch.arange(count, dtype=centre.dtype, device=centre.device)
    return torch.exp(-((index - centre[..., None]) ** 2) / (2.0 * sigma**2))


def _mean_index(marginal: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch"]:
    index = torch.arange(marginal.shape[-1], dtype=marginal.dtype, device=marginal.device)
    return (marginal * index).sum(dim=-1)
