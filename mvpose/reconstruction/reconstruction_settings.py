"""How 2D joints become people, and how cameras are corrected on them. Light, because every command line reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mvpose.errors import ConfigError

if TYPE_CHECKING:
    from mvpose.reconstruction.joints import Agreement


@dataclass(frozen=True, kw_only=True)
class ReconstructionConfig:
    """Reconstruction of 3D joints from 2D joints."""

    max_people: int = 1
    """Maximum people to reconstruct."""
    min_confidence: float = 0.3
    """Ignore 2D joints below this confidence."""
    min_views: int = 2
    """Minimum number of agreeing views per joint."""
    max_error_px: float = 15.0
    """Reject a view that is farther than this from the joint on which the other views agree.

    Measured on the single-person demo with adjusted cameras, 12 body joints: at 15 px, the views kept (3.7 of 4) have a
    mean error of 5.9 px, at 20 px 6.3 (3.85 of 4), at 40 px 7.2 (all); at 10 px too many are rejected (3.4 of 4 kept).
    """
    match_distance_m: float = 0.2
    """Maximum distance of a ray from a joint of the body that it shows."""
    max_gap_s: float = 1.0
    """Longest absence before a new ID."""
    undo_swaps: bool = True
    """Exchange left and right in a view if both joints then fit."""

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
    """Adjustment of camera poses to 2D joints."""

    frames: int = 400
    """Number of frames used, spread evenly over the capture."""
    poses: int = 150
    """Number of poses to fit, chosen to differ as much as possible in position and posture."""
    min_confidence: float = 0.5
    """Ignore 2D joints below this confidence."""
    match_distance_m: float = 0.3
    """Maximum distance of a ray from a joint; larger than in the reconstruction, because the cameras are off."""
