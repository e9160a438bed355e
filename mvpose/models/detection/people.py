"""The persons found in an image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class People:
    """The persons found in one image, best first. Index p has no meaning beyond this image."""

    box: Float[np.ndarray, "P 4"]
    """left, top, right, bottom in pixels; may reach beyond the image."""
    score: Float[np.ndarray, " P"]
    """Box score, 0 .. 1."""
    xy: Float[np.ndarray, "P J 2"]
    """Pixels of the image; may be outside it. Raw predictions: finite even if the confidence is low."""
    confidence: Float[np.ndarray, "P J"]
    """0 .. 1."""
    tokens: Float[np.ndarray, "P J d"] | None = None
    """The joints before the joint network classifies them; None if not kept."""
    detected: People | None = None
    """The detector's joints of the same persons, if these are corrected by other views."""
    lifted: Float[np.ndarray, "P J 3"] | None = None
    """See `Keypoints2D.lifted`; None if no network of one image is used."""

    def some(self, which: slice) -> People:
        """Some of the persons."""
        tokens = None if self.tokens is None else self.tokens[which]
        return People(self.box[which], self.score[which], self.xy[which], self.confidence[which], tokens)

    def followed_by(self, others: People) -> People:
        """These persons, then the others; both with tokens, or both without."""
        both = (self, others)
        box, score, xy, confidence = (
            np.concatenate([getattr(people, name) for people in both]) for name in ("box", "score", "xy", "confidence")
        )
        tokens = [people.tokens for people in both if people.tokens is not None]
        return People(box, score, xy, confidence, np.concatenate(tokens) if tokens else None)
