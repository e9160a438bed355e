"""The refinement unit of EpipolarPose (Kocabas et al., CVPR 2019, section 3.3), which denoises 3D poses."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mvpose.models.single_view.lifting import ResidualBlock, Standardised, linear_step

SLOPE = 0.01
"""Negative slope of the leaky ReLU; the paper names the activation but no slope."""


class RefinementUnit(nn.Module):
    """Two stages of four linear layers with two skips; each stage gives a pose, the second starts from the first's.

    Poses are root-relative, in any unit; their root joint may be omitted, since it is always 0. For 15 joints and
    width 1024 it has 8.7 million parameters.
    """

    def __init__(self, num_joints: int, width: int = 1024, dropout: float = 0.5) -> None:
        super().__init__()
        numbers = 3 * num_joints
        self.noisy, self.clean = Standardised(num_joints, 3), Standardised(num_joints, 3)
        self.enter = nn.Sequential(*linear_step(numbers, width, dropout, SLOPE))
        self.stages = nn.ModuleList(
            nn.Sequential(ResidualBlock(width, dropout, SLOPE), ResidualBlock(width, dropout, SLOPE)) for _ in range(2)
        )
        self.leave = nn.ModuleList(nn.Linear(width, numbers) for _ in range(2))
        self.again = nn.Linear(numbers, width)

    def fit_units(self, noisy: Float[Tensor, "n J 3"], clean: Float[Tensor, "n J 3"]) -> None:
        """Fit the standardisation to training samples; call once, before training."""
        self.noisy.fit(noisy)
        self.clean.fit(clean)

    def forward(self, poses: Float[Tensor, "n J 3"]) -> tuple[Float[Tensor, "n J 3"], Float[Tensor, "n J 3"]]:
        """Poses of the first and of the second stage; the second is the result, the first is for the loss."""
        start = self.enter(self.noisy(poses).flatten(1))
        inner = self.stages[0](start)
        first = self.leave[0](inner)
        second = self.leave[1](self.stages[1](self.again(first) + inner + start))
        return self._in_units(first), self._in_units(second)

    def loss(
        self, stages: tuple[Float[Tensor, "n J 3"], Float[Tensor, "n J 3"]], clean: Float[Tensor, "n J 3"]
    ) -> Float[Tensor, ""]:
        """Mean squared error of both stages, on standardised poses."""
        target = self.clean(clean)
        return sum(
            ((self.clean(stage) - target).square().mean() for stage in stages), torch.zeros_like(target[0, 0, 0])
        )

    def _in_units(self, standard: Float[Tensor, "n d"]) -> Float[Tensor, "n J 3"]:
        return self.clean.inverse(standard.unflatten(1, (-1, 3)))
