"""V2V, the 3D encoder-decoder that refines the cube of volumetric triangulation (after Moon et al. 2018)."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn


def _brick(channels: int, width: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(channels, width, kernel, padding=kernel // 2), nn.BatchNorm3d(width), nn.ReLU(inplace=True)
    )


class Residual(nn.Module):
    """Two 3^3 convolutions and a skip, 1^3 if the width changes."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(_brick(channels, width, 3), nn.Conv3d(width, width, 3, padding=1))
        self.norm = nn.BatchNorm3d(width)
        same = channels == width
        self.skip = nn.Identity() if same else nn.Sequential(nn.Conv3d(channels, width, 1), nn.BatchNorm3d(width))

    def forward(self, x: Float[Tensor, "B c n n n"]) -> Float[Tensor, "B d n n n"]:
        """Map volumes of one width to volumes of another."""
        return torch.relu(self.norm(self.inner(x)) + self.skip(x))


class Level(nn.Module):
    """One downsampling: a skip at this resolution, and all lower levels at half of it; `below` is the next level."""

    def __init__(self, width: int, lower_width: int, below: nn.Module) -> None:
        super().__init__()
        self.skip = Residual(width, width)
        self.down = Residual(width, lower_width)
        self.below = below
        self.up = nn.Sequential(
            Residual(lower_width, lower_width),
            nn.ConvTranspose3d(lower_width, width, 2, 2),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Float[Tensor, "B c n n n"]) -> Float[Tensor, "B c n n n"]:
        """Return volumes of the same shape."""
        lower = self.below(self.down(nn.functional.max_pool3d(x, 2)))
        return self.skip(x) + self.up(lower)


class V2V(nn.Module):
    """Feature volumes (B, c, n, n, n) to one volume per joint; n a multiple of 2^(levels), levels = len(widths) - 1."""

    def __init__(self, channels: int, num_joints: int, widths: tuple[int, ...] = (32, 64, 128, 128, 128, 128)) -> None:
        super().__init__()
        first = widths[0]
        self.front = nn.Sequential(
            _brick(channels, first // 2, 7), Residual(first // 2, first), Residual(first, first), Residual(first, first)
        )
        inner: nn.Module = Residual(widths[-1], widths[-1])
        for width, lower in reversed(list(pairwise(widths))):
            inner = Level(width, lower, inner)
        self.hourglass = inner
        self.back = nn.Sequential(Residual(first, first), _brick(first, first, 1), _brick(first, first, 1))
        self.joints = nn.Conv3d(first, num_joints, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
                nn.init.xavier_normal_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, volumes: Float[Tensor, "B c n n n"]) -> Float[Tensor, "B J n n n"]:
        """Raw joint volumes."""
        return self.joints(self.back(self.hourglass(self.front(volumes))))
