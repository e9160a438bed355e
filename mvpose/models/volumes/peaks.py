"""Heatmap peaks, and joints triangulated from them as the start of a search through the maps."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mvpose import heatmaps as maps
from mvpose.errors import TooFewViewsError
from mvpose.geometry.robust import RobustTriangulation, triangulate_robust
from mvpose.models.volumes.heatmap_cameras import CropCameras

PEAK_RADIUS_PX = 3.0
# Two sigma of the usual target: a peak further from the joint's projection from the other views is a different peak.
AGREEMENT_PX = 4.0


def heatmap_peaks(
    heatmaps: Float[Tensor, "*batch h w"],
) -> tuple[Float[Tensor, "*batch 2"], Float[Tensor, "*batch"]]:
    """Sub-pixel (x, y) and height of the highest peak: the centre of mass within 3 px of the highest pixel."""
    window = _square(heatmaps, maps.argmax(heatmaps), PEAK_RADIUS_PX)
    return maps.centre_of_mass(heatmaps * window).to(heatmaps.dtype), heatmaps.amax(dim=(-2, -1))


def peaks_near(
    heatmaps: Float[Tensor, "*batch h w"], points: Float[Tensor, "*batch 2"]
) -> tuple[Float[Tensor, "*batch 2"], Float[Tensor, "*batch"]]:
    """The same for the highest peak within 4 px of each point; the point itself, with height 0, on an empty map."""
    near = heatmaps.clamp_min(0.0) * _square(heatmaps, points, AGREEMENT_PX)
    window = _square(heatmaps, maps.argmax(near), PEAK_RADIUS_PX)
    height = near.amax(dim=(-2, -1))
    found = maps.centre_of_mass(heatmaps * window).to(points)
    return torch.where((height > 0)[..., None], found, points), height


def _square(
    heatmaps: Float[Tensor, "*batch h w"], about: Float[Tensor, "*batch 2"], radius: float
) -> Bool[Tensor, "*batch h w"]:
    height, width = heatmaps.shape[-2:]
    columns = (torch.arange(width).to(about) - about[..., :1]).abs() <= radius
    rows = (torch.arange(height).to(about) - about[..., 1:]).abs() <= radius
    return rows[..., :, None] & columns[..., None, :]


def triangulated_peaks(
    heatmaps: Float[Tensor, "B V J h w"], cameras: CropCameras, view_weights: Float[Tensor, "B V"] | None = None
) -> RobustTriangulation:
    """Joints from the peaks of their maps alone, by views that agree within 4 heatmap pixels, weighted by height.

    TooFewViewsError if a frame has fewer than two views.
    """
    weights = checked_view_weights(heatmaps, view_weights)
    peaks, height = heatmap_peaks(heatmaps)
    trust = height.clamp_min(0.0) * weights[..., None]
    return triangulate_robust(
        peaks.transpose(1, 2),
        cameras.projections[:, None],
        trust.transpose(1, 2),
        threshold_px=AGREEMENT_PX,
        scale_px=AGREEMENT_PX / 4,
        check=False,
    )


def checked_view_weights(
    heatmaps: Float[Tensor, "B V J h w"], weights: Float[Tensor, "B V"] | None
) -> Float[Tensor, "B V"]:
    """The weight of each view, 1 by default; TooFewViewsError if a frame has fewer than two above 0."""
    weights = torch.ones_like(heatmaps[:, :, 0, 0, 0]) if weights is None else weights
    views = (weights > 0).sum(dim=-1)
    if (views < 2).any():
        frame = int((views < 2).nonzero()[0, 0])
        raise TooFewViewsError(f"frame {frame} of the batch has {int(views[frame])} view(s): depth needs at least two")
    return weights
