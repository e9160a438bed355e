"""Observations prepared for triangulating the same points repeatedly with other weights, as robust methods do.

Only weights change between solutions, so the planes through each ray are summed up once. A solution is then a weighted
sum over views and a 3x3 system in closed form. Tensors have the points last, (V, n), so each step runs over contiguous
memory. Nothing is compiled: importing numba and loading the fused kernels of `triangulate` takes 0.9 s in a new
process, longer than the reconstruction of a clip of 300 frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Located:
    """Points in conditioned coordinates, and the errors of all observations."""

    x: Float[Tensor, "3 n"]
    """Finite, but meaningless if it is not valid."""
    valid: Bool[Tensor, " n"]
    depth: Float[Tensor, "V n"]
    residuals_px: Float[Tensor, "V n"]
    """Infinite if the point is behind the camera or the pixel is not finite."""


@dataclass(frozen=True, eq=False)
class RayPlanes:
    """Pixels of n points in V views, and the planes through their rays; m is 1 if all points have one rig, or n."""

    u: Float[Tensor, "V n"]
    v: Float[Tensor, "V n"]
    there: Bool[Tensor, "V n"]
    """Whether the pixel is finite."""
    projections: Float[Tensor, "3 4 V m"]
    """Of the conditioned world."""
    moments: Float[Tensor, "9 V n"]
    """Of the unit normals n and offsets d of both planes: sums of n n^T (upper triangle, 6 entries) and of -d n (3)."""

    @staticmethod
    def of(pixels: Float[Tensor, "n V 2"], projections: Float[Tensor, "m V 3 4"]) -> RayPlanes:
        """Undistorted pixels and conditioned projections. Pixels that are not finite need weight 0."""
        u, v = pixels.permute(2, 1, 0).contiguous()
        there = u.isfinite() & v.isfinite()
        u, v = (values.nan_to_num(0.0, 0.0, 0.0) for values in (u, v))
        p = projections.permute(2, 3, 1, 0).contiguous()
        return RayPlanes(u, v, there, p, _moments(u, v, p))

    def single(self) -> RayPlanes:
        """In single precision, for the search: a rough point is good to 0.001 px there, at half the cost or less."""
        if self.u.dtype == torch.float32:
            return self
        u, v, p, moments = (values.float() for values in (self.u, self.v, self.projections, self.moments))
        return RayPlanes(u, v, self.there, p, moments)

    def part(self, points: slice) -> RayPlanes:
        """Some of the points."""
        p = self.projections if self.projections.shape[-1] == 1 else self.projections[..., points]
        return RayPlanes(self.u[:, points], self.v[:, points], self.there[:, points], p, self.moments[..., points])

    def located(self, weights: Float[Tensor, "V n"], min_angle: float) -> Located:
        """The points with the minimum weighted squared distance from their planes; valid as in `triangulate`."""
        squared = weights.square()
        total = squared[0] * self.moments[:, 0]
        for view in range(1, len(squared)):
            total = total.addcmul_(squared[view], self.moments[:, view])
        x, apart = intersected(total, squared.amax(dim=0), min_angle)
        depth, residuals = self.errors(x)
        seen = weights > 0
        hidden = ((depth <= 0) & seen).sum(dim=0)
        return Located(x, apart & (seen.sum(dim=0) >= 2) & (hidden == 0), depth, residuals)

    def errors(self, x: Float[Tensor, "3 n"]) -> tuple[Float[Tensor, "V n"], Float[Tensor, "V n"]]:
        """Depth of conditioned points in each view, and residuals as in `Located`."""
        image = self.image(x)
        depth = image[2]
        front = (depth > 0) & self.there
        inverse = 1.0 / torch.where(front, depth, 1.0)
        off_u, off_v = image[0] * inverse - self.u, image[1] * inverse - self.v
        # Clamped for the derivative of the root at 0.
        off = (off_u * off_u + off_v * off_v).clamp_min(torch.finfo(x.dtype).tiny).sqrt()
        return depth, torch.where(front, off, torch.inf)

    def image(self, x: Float[Tensor, "3 *h n"]) -> Float[Tensor, "3 V *h n"]:
        """Homogeneous pixels of conditioned points, of one or several hypotheses of each point."""
        p = self.projections.unflatten(-1, (*[1] * (x.ndim - 2), -1))
        if p.shape[-1] > 1:
            return torch.einsum("abv...,b...->av...", p[:, :3], x) + p[:, 3]
        flat = p[:, :3].flatten(2).transpose(1, 2) @ x.flatten(1)
        return flat.unflatten(-1, x.shape[1:]) + p[:, 3]

    def pixels_per_unit(self, depth: Float[Tensor, "V n"]) -> Float[Tensor, "V n"]:
        """Focal length over depth: turns distances from planes into pixels; 0 behind the camera."""
        focal = torch.linalg.cross(self.projections[0, :3], self.projections[2, :3], dim=0).norm(dim=0)
        return focal / torch.where(depth > 0, depth, torch.inf)


def _moments(u: Tensor, v: Tensor, p: Tensor) -> Float[Tensor, "9 V n"]:
    return _plane_moments(u, p[0], p[2]).add_(_plane_moments(v, p[1], p[2]))


def _plane_moments(pixel: Tensor, row: Tensor, depth_row: Tensor) -> Float[Tensor, "9 V n"]:
    a, b, c, d = (pixel * depth_row[k] - row[k] for k in range(4))
    s = 1.0 / (a * a + b * b + c * c)
    sa, sb, sc, minus = s * a, s * b, s * c, -d
    return torch.stack([sa * a, sa * b, sa * c, sb * b, sb * c, sc * c, minus * sa, minus * sb, minus * sc])


def intersected(
    moments: Float[Tensor, "9 *n"], unit: float | Float[Tensor, "*n"], min_angle: float
) -> tuple[Float[Tensor, "3 *n"], Bool[Tensor, "*n"]]:
    """The points of summed moments, and whether their rays are sufficiently apart (`dlt.determined`).

    `unit` is the largest squared weight. Points that are not apart are (0, 0, 0).
    """
    xx, xy, xz, yy, yz, zz, bx, by, bz = moments
    cxx, cxy, cxz = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    cyy, cyz, czz = xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy
    determinant = xx * cxx + xy * cxy + xz * cxz
    apart = determinant > (1.0 - math.cos(min_angle)) * unit * (cxx + cyy + czz)
    inverse = apart / torch.where(apart, determinant, 1.0)
    x = cxx * bx + cxy * by + cxz * bz
    y = cxy * bx + cyy * by + cyz * bz
    z = cxz * bx + cyz * by + czz * bz
    return torch.stack([x, y, z]) * inverse, apart
