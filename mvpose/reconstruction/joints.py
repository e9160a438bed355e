"""Triangulate the joints of associated people: reject outlying views, and correct exchanged left and right."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from mvpose.confidence import RIGHT_WITHIN
from mvpose.geometry.conditioning import Conditioned
from mvpose.geometry.ray_planes import Located, RayPlanes
from mvpose.geometry.refinement import RobustLoss
from mvpose.geometry.robust import consensus, reweighted
from mvpose.geometry.triangulation import reprojection_errors
from mvpose.losses import scale_with

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


SMALLEST_SCALE = 0.004
"""The scale of 2D errors that a likelihood of 1 has: a share of the person's size, as at a likelihood of 0.995. Takes
part in all scales, in squares. At 0.002, 0.004 and 0.006, the sigmas of 3D joints (`joint_spread`) predict the order of
their errors with a rank correlation of 0.43, 0.44 and 0.43."""


def precisions(likelihood: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Inverse of the scale of 2D errors, a share of the person's size, that a likelihood stands for; 0 for none.

    Student's t, as `losses.likelihood` has it, is the law that joints follow: of 2D joints that are within 4 % of the
    person's size with likelihoods 0.42, 0.61, 0.78 and 0.91, it expects 14, 25, 43 and 64 % within 2 %, and 17, 24, 43
    and 58 % are. A Gaussian expects 13, 21, 32 and 45 %.
    """
    return (scale_with(likelihood, RIGHT_WITHIN).square() + SMALLEST_SCALE**2).rsqrt()


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
    frame is not used in that frame. Weights are likelihoods, by which views are chosen; those that are left count by
    their `precisions` in the last solution. (Chosen by precision, a view that is sure and wrong would decide.) Errors
    of a view are divided by `sizes` (pixels), because detector errors are proportional to the crop. Pixels are
    undistorted.
    """
    shape, frames = weights.shape, len(weights)
    conditioned = Conditioned.of(projections, pixels.dtype)
    planes = RayPlanes.of(pixels.flatten(0, 2), conditioned.projections[None])
    confidence, unit = (_points_last(values) for values in (weights, sizes[:, :, None].expand(shape)))
    widest, scale = WIDEST * rule.max_error, SQUARED * rule.max_error
    # The search is in single precision; the last solution and its errors, from which the result is made, in double.
    exact, exact_unit, likelihood = planes, unit, confidence
    planes, unit, confidence = planes.single(), unit.float(), confidence.float()
    start = consensus(planes, confidence, widest * unit, MIN_ANGLE)
    loss = RobustLoss.HUBER
    found, _ = reweighted(planes, confidence, start, loss, scale * unit, widest * unit, MIN_ANGLE)
    possible = found.valid & ((found.residuals_px <= widest * unit).sum(dim=0) >= 2)
    observed = (confidence > 0) & possible
    in_units = unit.amax(dim=0) / unit
    counts = in_windows(observed, rule.window, frames)
    for step, gate in enumerate(torch.linspace(widest, rule.max_error, ROUNDS).tolist()):
        errors = _errors(found, unit, observed)
        kept = agreeing(errors, observed, counts, gate, rule, frames)
        factor = loss.row_weight(errors, scale) * planes.pixels_per_unit(found.depth) * in_units
        if step < ROUNDS - 1:
            found = planes.located(confidence * factor * kept, MIN_ANGLE)
    found = exact.located(precisions(likelihood) * factor * kept, MIN_ANGLE)
    errors = _errors(found, exact_unit, observed)
    used = kept & _median_within(errors, observed, counts, rule.max_error, rule.window, frames) & errors.isfinite()
    valid = found.valid & (used.sum(dim=0) >= rule.min_views)
    points = torch.where(valid[:, None], conditioned.to_world(found.x.T), 0.0).reshape(*shape[:3], 3)
    used, errors = (values.T.reshape(shape) for values in (used & valid, errors))
    return JointPoints(points, valid.reshape(shape[:3]), used, errors)


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


def _points_last(values: Shaped[Tensor, "T P J V"]) -> Shaped[Tensor, "V n"]:
    return values.flatten(0, 2).T.contiguous()


def _errors(found: Located, unit: Float[Tensor, "V n"], observed: Bool[Tensor, "V n"]) -> Float[Tensor, "V n"]:
    """As shares of the person's size; infinite if not observed."""
    return torch.where(observed, found.residuals_px / unit, torch.inf)


def agreeing(
    errors: Float[Tensor, "V n"],
    observed: Bool[Tensor, "V n"],
    counts: Int[Tensor, "V n"],
    gate: float,
    rule: Agreement,
    frames: int,
) -> Bool[Tensor, "V n"]:
    """Views within the gate; the best `min_views` if there are fewer, so that a point is not lost prematurely."""
    kept = _median_within(errors, observed, counts, gate, rule.window, frames)
    few = (kept.sum(dim=0) < rule.min_views).nonzero()[:, 0]
    if len(few):
        median = _medians(errors, observed, few, rule.window, frames)
        last = median.sort(dim=0).values[min(rule.min_views, len(median)) - 1]
        kept[:, few] = observed[:, few] & (median <= last)
    return kept & (errors <= WIDEST * gate)


def _median_within(
    errors: Float[Tensor, "V n"],
    observed: Bool[Tensor, "V n"],
    counts: Int[Tensor, "V n"],
    limit: float,
    window: int,
    frames: int,
) -> Bool[Tensor, "V n"]:
    """Whether the median of a view's errors in the window, over frames with an error, is at most the limit.

    Counting is exact, and takes a twentieth of the time of the medians. `counts`: frames with an error.
    """
    return observed & (2 * in_windows(observed & (errors <= limit), window, frames) >= counts)


def in_windows(flags: Bool[Tensor, "V n"], window: int, frames: int) -> Int[Tensor, "V n"]:
    """How many of the frames in the window have the flag."""
    by_frame = flags.unflatten(1, (frames, -1)).to(torch.int16)
    padded = torch.nn.functional.pad(by_frame, (0, 0, window, window))
    total = padded[:, :frames].clone()
    for shift in range(1, 2 * window + 1):
        total += padded[:, shift : shift + frames]
    return total.flatten(1)


def _medians(
    errors: Float[Tensor, "V n"], observed: Bool[Tensor, "V n"], points: Int[Tensor, " m"], window: int, frames: int
) -> Float[Tensor, "V m"]:
    """Median of each view's errors in the window around some of the points; infinite if it does not observe them."""
    each = errors.shape[1] // frames
    padded = torch.nn.functional.pad(errors.masked_fill(~observed, torch.nan), (window * each,) * 2, value=torch.nan)
    around = points[:, None] + each * torch.arange(2 * window + 1)
    return torch.where(observed[:, points], padded[:, around].nanmedian(dim=-1).values, torch.inf)
