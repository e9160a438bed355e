"""Confidence scales: what the confidence of a 2D joint means, by the source that states it.

Detectors state confidence on scales of their own: 0.1 of OpenPose is as good as 0.3 of RTMPose. A scale turns it into
the likelihood that the joint is where it should be, which thresholds and weights use. Tables and exports of 2D joints
keep the confidence of the source.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from mvpose.errors import ConfigError

RIGHT_WITHIN = 0.04
"""A joint is right if it is this near to its true place: a share of the person's size, the larger side of the box.

At 2.5, 4 and 5 % (`mvpose benchmark confidence --right-within`), 91, 95 and 96 % of the joints that all cameras show
are within 10 cm in 3D, and bones of the single-person demo vary by 3.49, 3.35 and 3.41 %."""
BORDER = 0.1
"""Distance from the border of the image, relative to the person's size, from which a joint is not taken to be cut off.
At 6 to 10 %, a tenth of the joints of RTMPose are truly outside the image, and from there at most a twentieth."""


@dataclass(frozen=True, kw_only=True)
class ConfidenceScale:
    """The likelihood of 2D joints at the confidence that their source states. By default the two are equal."""

    likelihood: tuple[tuple[float, float], ...] = ((0.0, 0.0), (1.0, 1.0))
    """(confidence, likelihood of being right, see `RIGHT_WITHIN`): ascending, linear in between, constant beyond."""
    border_odds: float = 1.0
    """Factor on the odds of a joint on the border of the image or beyond it; rises evenly, in its logarithm, to 1 at
    `BORDER`. Below 1 for a detector that moves joints outside the image to its border."""

    def __post_init__(self) -> None:
        rises = [b[0] > a[0] and b[1] >= a[1] for a, b in pairwise(self.likelihood)]
        inside = [0.0 <= value <= 1.0 for point in self.likelihood for value in point]
        if not self.likelihood or not all(rises + inside) or not 0.0 < self.border_odds <= 1.0:
            raise ConfigError(
                f"a confidence scale needs pairs of confidence and likelihood, ascending and from 0 to 1, and "
                f"border_odds above 0 and up to 1; it has {self.likelihood} and {self.border_odds:g}."
            )

    def likelihood_of(self, confidence: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Likelihood of joints inside the image; 0 for a joint of confidence 0, which is missing."""
        known, likelihood = np.array(self.likelihood).T
        return np.where(confidence > 0, np.interp(confidence, known, likelihood), 0.0)

    def likelihood_near(
        self, confidence: Float[np.ndarray, "*n"], border: Float[np.ndarray, "*n"]
    ) -> Float[np.ndarray, "*n"]:
        """`likelihood_of`, given the distance to the border of the image relative to the person's size (< 0 outside).

        With factor f on the odds, likelihood p becomes f p / (1 - p + f p).
        """
        likelihood = self.likelihood_of(confidence)
        if self.border_odds == 1.0:
            return likelihood
        factor = self.border_odds ** np.clip(1.0 - border / BORDER, 0.0, 1.0)
        return factor * likelihood / (1.0 - likelihood + factor * likelihood)


AS_STATED = ConfidenceScale()
"""For sources without a scale of their own: confidence is taken to be the likelihood."""
