"""Fusion blocks: from features of V views in one frame to one representation of the pose.

A block takes (B, V, C, h, w) and the mask of present views, and returns (B, D, h, w). `serves` returns the mask of
samples whose output is meaningful.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


def pointwise(channels: int, width: int) -> nn.Sequential:
    """1x1 convolution, batch norm, ReLU: the basic unit of the paper's fusion."""
    return nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True))


class Concatenation(nn.Module):
    """The paper's block: concatenate the views' channels, two 1x1 convolutions. Tied to number and order of views."""

    def __init__(self, views: int, channels: int, width: int) -> None:
        super().__init__()
        self.views = views
        self.mix = nn.Sequential(pointwise(views * channels, width), pointwise(width, width))

    def serves(self, present: Bool[Tensor, "B V"]) -> Bool[Tensor, "B"]:
        """Mask of samples with every view; ValueError for another number of views than the block was built for."""
        if present.shape[1] != self.views:
            raise ValueError(
                f"this network concatenates {self.views} views but got {present.shape[1]}; "
                "build it for that number, or use pooled or attentive fusion, which accept any"
            )
        return present.all(dim=1)

    def forward(self, features: Float[Tensor, "B V C h w"], present: Bool[Tensor, "B V"]) -> Float[Tensor, "B D h w"]:
        """Fused features; call `serves` first."""
        return self.mix(features.flatten(1, 2))


class Pooling(nn.Module):
    """Any number and order of views: a 1x1 convolution per view, mean and maximum over present views, another one."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.each = pointwise(channels, width)
        self.mix = pointwise(2 * width, width)

    def serves(self, present: Bool[Tensor, "B V"]) -> Bool[Tensor, "B"]:
        """Mask of samples with at least one view."""
        return present.any(dim=1)

    def forward(self, features: Float[Tensor, "B V C h w"], present: Bool[Tensor, "B V"]) -> Float[Tensor, "B D h w"]:
        """Fused features."""
        each = self.each(features.flatten(0, 1)).unflatten(0, features.shape[:2])
        # After ReLU nothing is below 0, so zeros for absent views do not change the maximum.
        each = each * present[..., None, None, None]
        mean = each.sum(dim=1) / present.sum(dim=1).clamp_min(1)[:, None, None, None]
        return self.mix(torch.cat([mean, each.amax(dim=1)], dim=1))


class Attention(nn.Module):
    """Any number and order of views, and any pixel of them: each pixel of the pooled features attends to all views.

    The other blocks fuse corresponding pixels, although cameras see different parts of the scene there.
    This one can attend elsewhere. Its output is added to the pooled features.
    """

    def __init__(self, channels: int, width: int, heads: int = 4) -> None:
        super().__init__()
        self.pool = Pooling(channels, width)
        self.heads = heads
        self.place = nn.Conv2d(2, width, 1)
        self.ask = nn.Conv2d(width, width, 1)
        self.offer = nn.Conv2d(channels, 2 * width, 1)
        self.answer = nn.Conv2d(width, width, 1)

    def serves(self, present: Bool[Tensor, "B V"]) -> Bool[Tensor, "B"]:
        """Mask of samples with at least one view."""
        return present.any(dim=1)

    def forward(self, features: Float[Tensor, "B V C h w"], present: Bool[Tensor, "B V"]) -> Float[Tensor, "B D h w"]:
        """Fused features."""
        b, v, _, h, w = features.shape
        pooled = self.pool(features, present)
        place = self.place(_places(h, w).to(features)[None])
        keys, values = self.offer(features.flatten(0, 1)).chunk(2, dim=1)
        keys, values = ((keys + place).unflatten(0, (b, v)), values.unflatten(0, (b, v)))
        query = self._tokens(self.ask(pooled + place)[:, None])
        # A sample without views would have nothing to attend to and become NaN; it is invalid in any case.
        seen = present | ~present.any(dim=1, keepdim=True)
        mask = seen[:, None, None, :, None].expand(b, 1, 1, v, h * w).flatten(3)
        found = nn.functional.scaled_dot_product_attention(query, self._tokens(keys), self._tokens(values), mask)
        return pooled + self.answer(found.transpose(2, 3).reshape(b, -1, h, w))

    def _tokens(self, maps: Float[Tensor, "B V D h w"]) -> Float[Tensor, "B heads n d"]:
        split = maps.unflatten(2, (self.heads, -1)).flatten(4)
        return split.permute(0, 2, 1, 4, 3).flatten(2, 3)


def _places(h: int, w: int) -> Float[Tensor, "2 h w"]:
    """(x, y) of each pixel's centre in -1..1 over the image."""
    y, x = ((torch.arange(n) + 0.5) * 2 / n - 1 for n in (h, w))
    return torch.stack([x[None].expand(h, w), y[:, None].expand(h, w)])
