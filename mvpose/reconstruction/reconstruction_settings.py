"""Settings of reconstruction and camera adjustment. Imports little, because every command reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mvpose.errors import ConfigError

if TYPE_CHECKING:
    from mvpose.reconstruction.joints import Agreement


@dataclass(frozen=True, kw_only=True)
class ReconstructionConfig:
    """Reconstruction of 3D joints from 2D joints."""

    min_confidence: float = 0.3
    """Ignore 2D joints below this likelihood, which their source's confidence scale gives. RTMPose states 0.33 for
    it, OpenPose 0.1."""
    min_views: int = 2
    """Minimum number of agreeing views per joint."""
    max_error: float = 0.025
    """Reject a view whose 2D joint is farther than this from the joint on which the other views agree.

    A share of the person's size in that image (the larger side of the box). On the demos at 1.5, 2, 2.5 and 3 %, the
    error of a left-out camera is 14.9, 14.3, 13.9, 13.8 px (cameras adjusted: 12.3, 12.0, 11.9, 11.9; two people
    adjusted: 16.5, 16.3, 16.1, 16.1), and bone lengths vary by 4.9, 4.3, 3.3, 3.2 % (3.7, 3.4, 3.4, 3.4; 4.0, 3.9, 3.7,
    3.7). Above 2.5 % there is no improvement. The error of the used views is no criterion: it falls with every rejected
    view.
    """
    expected_error: float = 0.015
    """Expected error of a 2D joint, as a share of the person's size. Includes calibration and synchronisation."""
    max_gap_s: float = 1.0
    """Longest absence in seconds before a person gets a new ID."""
    undo_swaps: bool = True
    """Exchange left and right joints in a view if both then fit."""

    def __post_init__(self) -> None:
        if self.min_views < 2:
            raise ConfigError(f"reconstruction.min_views is {self.min_views}; it must be at least 2")
        for name in ("max_error", "expected_error"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"reconstruction.{name} is {getattr(self, name)}; it must be above 0")

    def agreement(self, fps: float) -> Agreement:
        """The rule for agreement of views, for clips at this frame rate."""
        from mvpose.reconstruction.joints import WINDOW_S, Agreement

        window = round(WINDOW_S * fps)
        return Agreement(max_error=self.max_error, min_views=self.min_views, window=window)


@dataclass(frozen=True, kw_only=True)
class AdjustmentConfig:
    """Adjustment of camera poses to 2D joints."""

    frames: int = 400
    """Number of frames to use, spread evenly over the capture."""
    poses: int = 150
    """Number of poses to fit, chosen for the greatest variety of position and posture."""
    min_confidence: float = 0.5
    """Ignore 2D joints below this likelihood."""
    expected_error: float = 0.025
    """As in reconstruction; larger, because the cameras are not adjusted yet."""
