"""Settings of the training objective. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class WarmUp:
    """Schedule of the terms that depend on triangulation.

    With untrained points, the DLT and its gradients are far off. Both known re-implementations of Canonical Fusion
    therefore train only the 2D term first. Progress is the completed fraction of training, 0..1.
    """

    start: float = 0.4
    """Progress until which the terms have weight 0 (0.4: 20 of 50 epochs)."""
    full: float = 0.5
    """Progress from which the terms have full weight. In between, the weight grows linearly."""

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.full:
            raise ValueError(
                f"warm_up.start is {self.start} and warm_up.full is {self.full}: 0 <= start <= full is required"
            )

    def share(self, progress: float) -> float:
        """Fraction of the full weight, 0..1."""
        if progress >= self.full:
            return 1.0
        return max(0.0, (progress - self.start) / (self.full - self.start)) if progress > self.start else 0.0


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """Weights of the loss terms. A term with weight 0 is not computed.

    Canonical Fusion trains `points` first and `joints` later. Algebraic triangulation trains `joints` as `soft_mse`.
    Volumetric triangulation trains `joints` as `absolute` with `volume` (the paper's 0.01 for centimetres is 1e-4 for
    metres). Cross-view fusion trains `heatmaps` alone.
    """

    heatmaps: float = 0.0
    """Weight of the squared difference of the maps from Gaussian targets; of maps before a fusion of maps, too."""
    sigma: float = 2.0
    """Standard deviation of the target Gaussians, in pixels of the map."""
    points: float = 1.0
    """Weight of the 2D distance, as a share of the crop's longer side."""
    joints: float = 1.0
    """Weight of the 3D error in metres."""
    likelihood: float = 0.0
    """Weight of the negative log-likelihood of the 2D joints under the predicted scale of their error. Only for methods
    that predict one."""
    simcc: float = 0.0
    """Weight of the divergence of SimCC scores from Gaussians about the true columns and rows. Only for methods with
    such scores."""
    joints_as: Literal["distance", "log_distance", "soft_mse", "absolute"] = "distance"
    warm_up: WarmUp = field(default_factory=WarmUp)
    volume: float = 0.0
    volume_at: Literal["nearest", "trilinear"] = "nearest"
    """Voxels used by the `volume` term: the one nearest to the joint, as in the paper, or the eight around it, which
    avoids a bias towards voxel centres."""
    coarse: float = 0.0
    """Weight of the 3D error of the volumetric method's algebraic stage."""
    root: tuple[int, ...] = (0,)
    """Joints whose mean is subtracted in samples with fewer than two views, where depth is undetermined."""
    volume_points: float = 0.0
    """Weight of the smooth L1 error in the normalised volume of a monocular network (equation 2 of EpipolarPose)."""
    span: float = 0.0
    """Weight of the error of the span in metres of a monocular network's crop (logarithm of the ratio), which places
    the person."""
    consistency: float = 0.0
    """Weight of the squared distance, as a share of the crop's longer side, between the 2D joints of a view and the
    projected pose of another view of the same moment. Only for monocular networks with volumes, whose depth
    is bounded, and `samples.views` of 2 or more."""
