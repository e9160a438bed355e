"""How far a 3D joint may be from its true place: from the likelihoods of its 2D joints, its rays and their agreement.

The likelihood of a 2D joint gives the scale s of its error in pixels. The covariance of the point that the views give
is then the inverse of the information, the sum of J^T J / s^2 over the views used, with J the Jacobian of a view's
projection (propagation of covariance: Hartley and Zisserman, Multiple View Geometry, 5.2). It is an ellipsoid, long
where rays are near parallel; `sigma_mm` tells its size. To it comes the part of the error that all views share.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mvpose.reconstruction.joints import JointPoints, precisions

COMMON_M = 0.027
"""Error that all views have in common, so that no number of views removes it: what a detector takes a joint to be,
against the joint of the rendered people's anatomy; calibration. Calibrated so that 68 % of joints are within sigma.

On 8,747 joints of 40 takes of training people, by 2, 3 and 4 cameras (`mvpose benchmark sigma`): in eighths of these by
sigma, 62 to 77 % are. Without it, and with sigma times 1.38, 50 to 81 % are, and of joints with two, three and four
views used 76, 58 and 46 % (70, 65 and 64 % with it)."""
# 68 % of a trivariate t with 3 degrees of freedom are within this many of its scales.
_SCALES_PER_SIGMA = 2.326


def sigma_mm(
    found: JointPoints,
    likelihood: Float[Tensor, "T P J V"],
    sizes: Float[Tensor, "T P V"],
    projections: Float[Tensor, "V 3 4"],
) -> Float[Tensor, "T P J"]:
    """The distance, in millimetres, within which 68 % of such joints are from their true place; NaN if not valid.

    The root of the covariance's trace and `COMMON_M`, in squares. `likelihood` is that of the 2D joints to be within
    `RIGHT_WITHIN`, `sizes` that of the person in each view, as in `triangulate_joints`. Where the views used agree
    worse than their scales have it, the covariance grows until the reduced chi-square of their errors is 1.
    """
    precision = torch.where(found.used, precisions(likelihood), 0.0)
    errors = torch.where(found.used, found.errors, 0.0)
    # With it, the rank correlation of sigma and error is 0.44, without it 0.42.
    chi_square = (precision * errors).square().sum(dim=-1)
    reduced = (chi_square / (2 * found.used.sum(dim=-1) - 3).clamp_min(1)).clamp_min(1.0)
    trace = root_trace(found.points, precision / sizes[:, :, None], projections).square()
    return torch.where(found.valid, 1000.0 * (trace * reduced + COMMON_M**2).sqrt(), torch.nan)


def share_within(distance_mm: float, sigma_mm: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Share of joints of this sigma that are within a distance of their true place: Student's t in three dimensions.

    With 3 degrees of freedom (`losses.DEGREES_OF_FREEDOM`), the share within r scales is (2 t - sin(4 t) / 2) / pi,
    tan(t) = r / sqrt(3).
    """
    angle = np.arctan(distance_mm / sigma_mm * _SCALES_PER_SIGMA / np.sqrt(3.0))
    return (2.0 * angle - 0.5 * np.sin(4.0 * angle)) / np.pi


def root_trace(
    points: Float[Tensor, "*batch 3"], precision: Float[Tensor, "*batch V"], projections: Float[Tensor, "V 3 4"]
) -> Float[Tensor, "*batch"]:
    """Root of the trace of the covariance: the root of the mean squared distance, in the points' unit.

    `precision` is the inverse of the scale of a view's errors along each axis of its undistorted image, in pixels; 0
    for a view that is not used. Infinite if fewer than two views determine the point.
    """
    x, weight = points.flatten(0, -2).T, precision.flatten(0, -2).T
    image = (projections[:, :, :3].flatten(0, 1) @ x).unflatten(0, (-1, 3)) + projections[:, :, 3:]
    depth = torch.where(weight > 0, image[:, 2], 1.0)
    u, v, weight = image[:, 0] / depth, image[:, 1] / depth, weight / depth
    xx, xy, xz, yy, yz, zz = torch.zeros(6, *x.shape[1:], dtype=x.dtype)
    for row, pixel in ((0, u), (1, v)):
        a, b, c = (weight * (projections[:, row, k, None] - pixel * projections[:, 2, k, None]) for k in range(3))
        xx, xy, xz = xx + (a * a).sum(dim=0), xy + (a * b).sum(dim=0), xz + (a * c).sum(dim=0)
        yy, yz, zz = yy + (b * b).sum(dim=0), yz + (b * c).sum(dim=0), zz + (c * c).sum(dim=0)
    cxx, cyy, czz = yy * zz - yz * yz, xx * zz - xz * xz, xx * yy - xy * xy
    determinant = xx * cxx + xy * (xz * yz - xy * zz) + xz * (xy * yz - xz * yy)
    return ((cxx + cyy + czz) / determinant.clamp_min(0.0)).sqrt().reshape(points.shape[:-1])
