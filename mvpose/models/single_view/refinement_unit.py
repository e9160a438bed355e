"""The refinement unit of EpipolarPose (Kocabas et al., CVPR 2019, section 3.3), which denoises 3D poses."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from mvpose.models.single_view.lifting import ResidualBlock, linear_step

SLOPE = 0.01
"""Negative slope of the leaky ReLU; the paper names the activation but no slope."""


class RefinementUnit(nn.Module):
    """Two stages of four linear layers with two skips; each stage gives a pose, the second starts from the first's.

    Poses are root-relative, in metres. For 15 joints and width 1024 it has 8.7 million parameters. Inside, poses are
    standardised: the paper does it by the statistics of its noisy and clean training poses, here both ends use the
    running statistics of the poses that enter.
    """

    def __init__(self, num_joints: int, width: int = 1024, dropout: float = 0.5) -> None:
        super().__init__()
        numbers = 3 * num_joints
        self.standard = nn.BatchNorm1d(numbers, affine=False)
        self.enter = nn.Sequential(*linear_step(numbers, width, dropout, SLOPE))
        self.stages = nn.ModuleList(
            nn.Sequential(ResidualBlock(width, dropout, SLOPE), ResidualBlock(width, dropout, SLOPE)) for _ in range(2)
        )
        self.leave = nn.ModuleList(nn.Linear(width, numbers) for _ in range(2))
        self.again = nn.Linear(numbers, width)

    def forward(self, poses: Float[Tensor, "n J 3"]) -> tuple[Float[Tensor, "n J 3"], Float[Tensor, "n J 3"]]:
        """Poses of the first and of the second stage; the second is the result, the first is for the loss."""
        start = self.enter(self.standard(poses.flatten(1)))
        inner = self.stages[0](start)
        first = self.leave[0](inner)
        second = self.leave[1](self.stages[1](self.again(first) + inner + start))
        return self._in_metres(first), self._in_metres(second)

    def _in_metres(self, standard: Float[Tensor, "n d"]) -> Float[Tensor, "n J 3"]:
        mean, variance = self.standard.running_mean, self.standard.running_var
        assert mean is not None and variance is not None
        return (standard * variance.sqrt() + mean).unflatten(1, (-1, 3))
