"""What a large residual costs, as weights for reweighted least squares."""

from __future__ import annotations

from enum import StrEnum

import torch
from jaxtyping import Float
from torch import Tensor


class RobustLoss(StrEnum):
    """The cost of a residual e at the scale s.

    `SQUARED`: e^2. `HUBER`: e^2 up to s, then s (2 e - s). `GEMAN_MCCLURE`: e^2 s^2 / (e^2 + s^2), never above s^2.
    """

    SQUARED = "squared"
    HUBER = "huber"
    GEMAN_MCCLURE = "geman_mcclure"

    def row_weight(
        self, residual: Float[Tensor, "*batch"], scale: float | Float[Tensor, "*#batch"]
    ) -> Float[Tensor, "*batch"]:
        """sqrt(cost'(e) / 2 e): what multiplies a row so that least squares has the derivative of this cost."""
        if self == RobustLoss.SQUARED:
            return torch.ones_like(residual)
        if self == RobustLoss.HUBER:
            return (scale / residual.clamp_min(scale)).sqrt()
        return 1.0 / (1.0 + (residual / scale) ** 2)

    def cost(self, residual: Float[Tensor, "*batch"], scale: float) -> Float[Tensor, "*batch"]:
        """The cost itself; finite residuals only."""
        squared = residual**2
        if self == RobustLoss.SQUARED:
            return squared
        if self == RobustLoss.HUBER:
            return torch.where(residual <= scale, squared, scale * (2.0 * residual - scale))
        return squared / (1.0 + squared / scale**2)
