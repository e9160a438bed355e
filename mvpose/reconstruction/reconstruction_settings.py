"""How 2D joints become people, and how cameras are corrected on them. Light, because every command line reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mvpose.errors import ConfigError

if TYPE_CHECKING:
    from mvpose.reconstruction.joints import Agreement


@dataclass(frozen=True, kw_only=True)
class ReconstructionConfig:
    """How 2D joints become 3D joints."""

    max_people: int = 1
    """People kept, those whom views and frames agree on most."""
    min_confidence: float = 0.3
    """2D joints less sure than this are not used."""
    min_views: int = 2
    """A joint needs this many views that agree."""
    max_error_px: float = 15.0
    """A view that is farther than this from the joint that the others agree on is left out.

    Measured on the single-person demo, cameras adjusted, 12 body joints: at 15 px the views kept (3.7 of 4) are off by
    5.9 px on average, at 20 px 6.3 (3.85 of 4), at 40 px 7.2 (all), at 10 px too many views go (3.4 of 4).
    """
    match_distance_m: float = 0.2
    """Rays that pass a body's joints at this distance or farther do not show that body."""
    max_gap_s: float = 1.0
    """A person may go unseen for so long and is still the same."""
    undo_swaps: bool = True
    """Exchange left and right in a view where that makes both joints fit."""

    def __post_init__(self) -> None:
        for name, minimum in (("max_people", 1), ("min_views", 2)):
            if getattr(self, name) < minimum:
                raise ConfigError(f"reconstruction.{name} is {getattr(self, name)}; it must be at least {minimum}")
        for name in ("max_error_px", "match_distance_m"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"reconstruction.{name} is {getattr(self, name)}; it must be above 0")

    def agreement(self, fps: float) -> Agreement:
        """When views agree on a joint, in frames of this clip."""
        from mvpose.reconstruction.joints import WINDOW_S, Agreement

        window = round(WINDOW_S * fps)
        return Agreement(max_error_px=self.max_error_px, min_views=self.min_views, window=window)


@dataclass(frozen=True, kw_only=True)
class AdjustmentConfig:
    """How camera poses are corrected on 2D joints."""

    frames: int = 400
    """Frames looked at, evenly spread over the capture."""
    poses: int = 150
    """Poses learned from, chosen so that they differ most from each other in place and posture."""
    min_confidence: float = 0.5
    """2D joints less sure than this are not used."""
    match_distance_m: float = 0.3
    """As in the reconstruction; wider, because the cameras are off."""
