"""Triangulate the joints of associated people: reject outlying views, and correct exchanged left and right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from mvpose.geometry.refinement import RobustLoss
from mvpose.geometry.robust import triangulate_robust
from mvpose.geometry.triangulation import pixels_per_metre, reprojection_errors, triangulate

# The search starts from the views that agree within a multiple of the limit, and narrows to the limit in this number of
# solutions. Starting at the limit itself selects the two views that happen to be closest in a frame. On the
# single-person demo (limit 15 px, adjusted cameras), bone lengths then vary by 5.2 % and points jitter by 18.9 mm from
# frame to frame. Narrowing gives 3.7 % and 10.7 mm, with more views kept (3.73 of 4 against 3.44).
WIDEST, ROUNDS = 3.0, 8
# Errors up to this share of the limit count quadratically, larger ones linearly (Huber).
SQUARED = 2.0 / 3.0
# Two rays closer to parallel than this do not determine where they meet: an error of 1.5 % of a person is 26 mm across
# the rays but 0.4 metres along them. (With two cameras facing each other, joints between them were off by a metre.)
MIN_ANGLE = math.radians(4.0)
# A view is judged by the median of its errors this far before and after, so views do not switch from frame to frame.
WINDOW_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """The rule for agreement of views on a joint."""

    max_error: float
    """Share of the person's size in the image."""
    min_views: int
    window: int
    """Number of frames on each side that are judged together."""


@dataclass(frozen=True, eq=False)
class JointPoints:
    """Points and the views used for them; a point that is not `valid` is (0, 0, 0) and uses no views."""

    points: Float[Tensor, "T P J 3"]
    valid: Bool[Tensor, "T P J"]
    used: Bool[Tensor, "T P J V"]
    errors: Float[Tensor, "T P J V"]
    """As shares of the person's size in the undistorted image; infinite where a view has no joint."""


def triangulate_joints(
    pixels: Float[Tensor, "T P J V 2"],
    weights: Float[Tensor, "T P J V"],
    sizes: Float[Tensor, "T P V"],
    projections: Float[Tensor, "V 3 4"],
    rule: Agreement,
) -> JointPoints:
    """Triangulate each joint from the views that agree on it to `max_error`, in the median over the window.

    First, a consensus of views within `WIDEST` times the limit excludes gross errors. Reweighted solutions follow, on
    the views within a gate that narrows to the limit. A view that is off by more than `WIDEST` times the gate in a
    frame is not used in that frame. Pixels are undistorted; weights are confidences. Errors of a view are divided by
    `sizes` (pixels), because detector errors are proportional to the crop.
    """
    widest, scale = WIDEST * rule.max_error, SQUARED * rule.max_error
    unit = sizes[:, :, None]
    in_units = unit.amax(dim=-1, keepdim=True) / unit
    start = triangulate_robust(
        pixels,
        projections,
        weights,
        threshold_px=widest * unit,
        scale_px=scale * unit,
        min_angle=MIN_ANGLE,
        check=False,
    )
    points, valid = start.points, start.valid
    observed = (weights > 0) & valid[..., None]
    errors = torch.where(observed, start.residuals_px / unit, torch.inf)
    for gate in torch.linspace(widest, rule.max_error, ROUNDS).tolist():
        kept = _agreeing(errors, observed, gate, rule)
        factor = RobustLoss.HUBER.row_weight(errors, scale) * pixels_per_metre(points, projections) * in_units
        weighted = torch.where(kept, weights * factor, 0.0)
        found = triangulate(pixels, projections, weighted, min_angle=MIN_ANGLE, check=False)
        points, valid = found.points, found.valid
        errors = torch.where(observed, reprojection_errors(points, pixels, projections) / unit, torch.inf)
    used = kept & (_judged(errors, observed, rule.window) <= rule.max_error) & errors.isfinite()
    valid = valid & (used.sum(dim=-1) >= rule.min_views)
    return JointPoints(torch.where(valid[..., None], points, 0.0), valid, used & valid[..., None], errors)


def swapped_sides(
    pixels: Float[Tensor, "T P J V 2"],
    weights: Float[Tensor, "T P J V"],
    sizes: Float[Tensor, "T P V"],
    found: JointPoints,
    projections: Float[Tensor, "V 3 4"],
    mirror: Sequence[int],
    max_error: float,
) -> Bool[Tensor, "T P J V"]:
    """Detect exchanged left and right in a view: both joints of a pair are off, and both fit after exchanging them.

    Misfitting views were not used for the points, so the points represent the other views.
    """
    twin = torch.tensor(mirror)
    exchanged_errors = reprojection_errors(found.points, pixels[:, :, twin], projections) / sizes[:, :, None]
    seen = (weights > 0) & (weights[:, :, twin] > 0) & (found.valid & found.valid[:, :, twin])[..., None]
    wrong = (found.errors > max_error) & (exchanged_errors <= max_error) & seen
    return wrong & wrong[:, :, twin]


def exchanged(
    values: Shaped[Tensor, "T P J V *rest"], swapped: Bool[Tensor, "T P J V"], mirror: Sequence[int]
) -> Shaped[Tensor, "T P J V *rest"]:
    """Values of the mirrored joint where `swapped`."""
    where = swapped.reshape(*swapped.shape, *[1] * (values.ndim - 4))
    return torch.where(where, values[:, :, torch.tensor(mirror)], values)


def _agreeing(residuals: Tensor, observed: Tensor, gate: float, rule: Agreement) -> Bool[Tensor, "T P J V"]:
    """Views within the gate; the best `min_views` if there are fewer, so that a point is not lost prematurely."""
    judged = _judged(residuals, observed, rule.window)
    needed = min(rule.min_views, judged.shape[-1])
    last = judged.sort(dim=-1).values[..., needed - 1 : needed]
    return observed & (judged <= last.clamp_min(gate)) & (residuals <= (WIDEST * gate))


def _judged(residuals: Tensor, observed: Tensor, window: int) -> Float[Tensor, "T P J V"]:
    """Median of a view's errors in the window, over frames with an error; infinite if there are none."""
    ends = torch.full_like(residuals[:1], torch.nan).expand(window, *residuals.shape[1:])
    padded = torch.cat([ends, torch.where(observed, residuals, torch.nan), ends])
    median = padded.unfold(0, 2 * window + 1, 1).nanmedian(dim=-1).values
    return torch.where(observed, median, torch.inf)
