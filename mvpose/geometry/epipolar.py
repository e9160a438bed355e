"""Two-view geometry: fundamental and essential matrices, relative poses, and distances of pixels from agreement.

Convention: `right^T F left = 0` for homogeneous undistorted pixels, `right_from_left` for the relative pose. Equations
are those of Hartley and Zisserman, "Multiple View Geometry", 2nd edition, chapters 9 and 11.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mvpose.geometry.rigid import Rigid, cross_matrix
from mvpose.geometry.triangulation import triangulate

SAMPLE = 8


@dataclass(frozen=True, eq=False)
class FundamentalFit:
    """F and the correspondences that agree with it."""

    fundamental: Float[Tensor, "3 3"]
    inliers: Bool[Tensor, " n"]


@dataclass(frozen=True, eq=False)
class RelativePose:
    """Pose up to scale (translation of length 1), and which correspondences are in front of both cameras."""

    right_from_left: Rigid
    in_front: Bool[Tensor, " n"]


def fundamental_of(
    left: Float[Tensor, "*#batch 3 4"], right: Float[Tensor, "*#batch 3 4"]
) -> Float[Tensor, "*batch 3 3"]:
    """F of two known projection matrices: [e_right]x P_right P_left^+ (9.1)."""
    centre = torch.linalg.svd(left).Vh[..., -1, :]
    epipole = (right @ centre[..., None])[..., 0]
    return cross_matrix(epipole) @ right @ torch.linalg.pinv(left)


def fundamental_by_eight_points(
    left: Float[Tensor, "*batch n 2"],
    right: Float[Tensor, "*batch n 2"],
    weights: Float[Tensor, "*batch n"] | None = None,
) -> Float[Tensor, "*batch 3 3"]:
    """F of 8 or more correspondences by the normalised eight-point algorithm (11.1), of rank 2 and norm 1.

    Weights multiply the rows; weight 0 means absent. Coplanar points do not determine F: pool many frames.
    """
    weights = torch.ones_like(left[..., 0]) if weights is None else weights
    a, from_left = _hartley_normalised(left, weights)
    b, from_right = _hartley_normalised(right, weights)
    rows = (b[..., :, None] * a[..., None, :]).flatten(-2) * weights[..., None]
    f = torch.linalg.eigh(rows.transpose(-1, -2) @ rows).eigenvectors[..., 0].unflatten(-1, (3, 3))
    u, s, vh = torch.linalg.svd(f)
    rank2 = (u * torch.cat([s[..., :2], torch.zeros_like(s[..., 2:])], dim=-1)[..., None, :]) @ vh
    f = from_right.transpose(-1, -2) @ rank2 @ from_left
    return f / f.flatten(-2).norm(dim=-1)[..., None, None]


def fundamental_by_consensus(
    left: Float[Tensor, "n 2"],
    right: Float[Tensor, "n 2"],
    *,
    threshold_px: float = 3.0,
    hypotheses: int = 500,
    rounds: int = 5,
    seed: int = 0,
) -> FundamentalFit:
    """F by RANSAC: `hypotheses` samples of eight at once, minimum truncated error, then `rounds` refits on its inliers.

    The error is Sampson's, in pixels. With 40 % outliers, 500 samples contain one without an outlier with 99.98 %
    probability. Raises ValueError for fewer than eight correspondences.
    """
    if len(left) < SAMPLE:
        raise ValueError(f"a fundamental matrix needs {SAMPLE} correspondences; left has shape {tuple(left.shape)}")
    generator = torch.Generator().manual_seed(seed)
    samples = torch.rand(hypotheses, len(left), generator=generator).topk(SAMPLE, dim=-1).indices.to(left.device)
    candidates = fundamental_by_eight_points(left[samples], right[samples])
    best, minimum = candidates[0], torch.inf
    for part in candidates.split(64):
        errors = sampson_errors(left, right, part[:, None])
        costs = errors.clamp_max(threshold_px).square().sum(dim=-1)
        if costs.min() < minimum:
            minimum, best = float(costs.min()), part[costs.argmin()]
    for _ in range(rounds):
        inliers = sampson_errors(left, right, best) <= threshold_px
        if int(inliers.sum()) < SAMPLE:
            break
        refit = fundamental_by_eight_points(left, right, inliers.to(left))
        cost = float(sampson_errors(left, right, refit).clamp_max(threshold_px).square().sum())
        if cost >= minimum:
            break
        minimum, best = cost, refit
    return FundamentalFit(best, sampson_errors(left, right, best) <= threshold_px)


def epipolar_distances(
    left: Float[Tensor, "*#batch 2"], right: Float[Tensor, "*#batch 2"], fundamental: Float[Tensor, "*#batch 3 3"]
) -> Float[Tensor, "*batch"]:
    """Mean of the two distances, in pixels, of each pixel from the other's epipolar line; axes broadcast."""
    residual, to_right, to_left = _lines(left, right, fundamental)
    return 0.5 * residual.abs() * (1.0 / _slope(to_right).clamp_min(1e-30) + 1.0 / _slope(to_left).clamp_min(1e-30))


def sampson_errors(
    left: Float[Tensor, "*#batch 2"], right: Float[Tensor, "*#batch 2"], fundamental: Float[Tensor, "*#batch 3 3"]
) -> Float[Tensor, "*batch"]:
    """First-order distance, in pixels, by which both pixels together must move to agree (11.9); axes broadcast."""
    residual, to_right, to_left = _lines(left, right, fundamental)
    slope = (_slope(to_right) ** 2 + _slope(to_left) ** 2).clamp_min(1e-30).sqrt()
    return residual.abs() / slope


def essential_from_fundamental(
    fundamental: Float[Tensor, "*batch 3 3"], left: Float[Tensor, "*#batch 3 3"], right: Float[Tensor, "*#batch 3 3"]
) -> Float[Tensor, "*batch 3 3"]:
    """E = K_right^T F K_left, moved to the nearest matrix with singular values 1, 1, 0 (`left`, `right` are the K)."""
    u, _, vh = torch.linalg.svd(right.transpose(-1, -2) @ fundamental @ left)
    return u[..., :, :2] @ vh[..., :2, :]


def essential_candidates(essential: Float[Tensor, "3 3"]) -> Rigid:
    """The four poses `right_from_left` of an essential matrix (9.14), translation of length 1."""
    u, _, vh = torch.linalg.svd(essential)
    u, vh = u * torch.sign(torch.linalg.det(u)), vh * torch.sign(torch.linalg.det(vh))
    quarter = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]).to(essential)
    first, second, t = u @ quarter @ vh, u @ quarter.T @ vh, u[:, 2]
    return Rigid(torch.stack([first, first, second, second]), torch.stack([t, -t, t, -t]))


def relative_pose(
    essential: Float[Tensor, "3 3"],
    left: Float[Tensor, "n 2"],
    right: Float[Tensor, "n 2"],
    weights: Float[Tensor, " n"] | None = None,
) -> RelativePose:
    """The candidate with the most correspondences in front of both cameras; `left`, `right` are on the plane z = 1."""
    candidates = essential_candidates(essential)
    first = torch.eye(3, 4).to(candidates.rotation).expand(4, 3, 4)
    projections = torch.stack([first, candidates.matrix()], dim=1)
    points = torch.stack([left, right], dim=1).expand(4, -1, 2, 2)
    both = None if weights is None else weights[:, None].expand(4, -1, 2).contiguous()
    front = triangulate(points, projections[:, None], both, min_angle=1e-3).valid
    best = front.sum(dim=-1).argmax()
    return RelativePose(Rigid(candidates.rotation[best], candidates.translation[best]), front[best])


def _hartley_normalised(points: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Homogeneous points centred on their mean at a mean distance of sqrt(2), and the matrix of this mapping."""
    seen = (weights > 0)[..., None]
    points = torch.where(seen, points, torch.zeros_like(points))
    count = seen.sum(dim=-2).clamp_min(1)
    mean = points.sum(dim=-2) / count
    offset = torch.where(seen, points - mean[..., None, :], torch.zeros_like(points))
    size = (offset.norm(dim=-1).sum(dim=-1) / count[..., 0]).clamp_min(1e-12)
    scale = 2.0**0.5 / size
    matrix = torch.zeros(*scale.shape, 3, 3).to(points)
    matrix[..., 0, 0], matrix[..., 1, 1], matrix[..., 2, 2] = scale, scale, 1.0
    matrix[..., :2, 2] = -scale[..., None] * mean
    return torch.cat([offset * scale[..., None, None], torch.ones_like(points[..., :1])], dim=-1), matrix


def _lines(left: Tensor, right: Tensor, fundamental: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """right^T F left, and the epipolar lines of left in the right image and of right in the left one."""
    a = torch.cat([left, torch.ones_like(left[..., :1])], dim=-1)
    b = torch.cat([right, torch.ones_like(right[..., :1])], dim=-1)
    to_right = (fundamental * a[..., None, :]).sum(dim=-1)
    to_left = (fundamental * b[..., :, None]).sum(dim=-2)
    return (b * to_right).sum(dim=-1), to_right, to_left


def _slope(lines: Tensor) -> Tensor:
    return lines[..., :2].norm(dim=-1)
