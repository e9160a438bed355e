"""Lens distortion on the plane z = 1: Brown-Conrady, Kannala-Brandt, and Human3.6M's own tangential form.

Coefficients are in OpenCV's order. Brown-Conrady: k1 k2 p1 p2 k3 k4 k5 k6 s1 s2 s3 s4. Kannala-Brandt (OpenCV's
`fisheye`): k1 k2 k3 k4, the rest zero. Human3.6M: k1 k2 p1 p2 k3 with the tangential terms *without* OpenCV's factor 2.

A polynomial lens is one-to-one only up to a radius: beyond it the image folds back, and undistortion has no solution or
several. `Lens.limit` is that radius; points beyond it are reported as invalid, never made up.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor

NUM_COEFFICIENTS = 12
NEWTON_STEPS = 60
# A point that ten steps in a row, each a quarter of the one before, have not improved has no solution.
SMALLEST_SHARE = 4.0**-10
# tan(88 degrees): no pinhole image has a wider field, and the plane z = 1 ends at 90 degrees.
WIDEST_RADIUS = math.tan(math.radians(88.0))


class LensModel(StrEnum):
    """The distortion model of one camera."""

    BROWN_CONRADY = "brown_conrady"
    KANNALA_BRANDT = "kannala_brandt"
    HUMAN36M = "human36m"


@dataclass(frozen=True, eq=False)
class Lens:
    """The lenses of V cameras; each may have another model."""

    models: tuple[LensModel, ...]
    coefficients: Float[Tensor, "V 12"]

    @staticmethod
    def of(model: LensModel, coefficients: list[list[float]]) -> Lens:
        """Lenses of one model from lists of up to 12 coefficients (the rest is zero), one list per camera."""
        rows = [[*row, *[0.0] * (NUM_COEFFICIENTS - len(row))] for row in coefficients]
        return Lens((model,) * len(rows), torch.tensor(rows, dtype=torch.float64))

    @staticmethod
    def none(num_cameras: int) -> Lens:
        """Lenses without distortion."""
        return Lens.of(LensModel.BROWN_CONRADY, [[]] * num_cameras)

    def distort(self, points: Float[Tensor, "V n 2"]) -> Float[Tensor, "V n 2"]:
        """Ideal points on the plane z = 1 to their distorted positions (same plane)."""
        return self._each_model(lambda model, k, limit, p: _DISTORT[model](k, p), points)

    def undistort(self, points: Float[Tensor, "V n 2"]) -> tuple[Float[Tensor, "V n 2"], Bool[Tensor, "V n"]]:
        """The inverse of `distort`, and where it exists; elsewhere the returned point is inside the limit but wrong.

        Newton's method to float precision; differentiable in points and coefficients by the implicit function theorem.
        """
        ideal = self._each_model(_undistort, points)
        scale = 1.0 + radii(points.detach())
        precision = 1e4 * torch.finfo(points.dtype).eps
        residual = radii(self.distort(ideal.detach()) - points.detach())
        inside = radii(ideal.detach()) <= self.limit()[:, None].to(points) * (1.0 + precision)
        return ideal, (residual <= precision * scale) & inside

    def limit(self) -> Float[Tensor, " V"]:
        """Maximum radius on the plane z = 1 up to which the lens is one-to-one; computed once."""
        return self._limits

    @cached_property
    def _limits(self) -> Float[Tensor, " V"]:
        limits = [_limit(m, tuple(k)) for m, k in zip(self.models, self.coefficients.tolist(), strict=True)]
        return torch.tensor(limits, dtype=torch.float64, device=self.coefficients.device)

    @cached_property
    def _used_coefficients(self) -> Float[Tensor, "V n"]:
        """Without the terms that no camera has (n is 5, 8 or 12): they are half of the work, and change no bit."""
        if self.coefficients.requires_grad:
            return self.coefficients
        terms = next(n for n in (5, 8, NUM_COEFFICIENTS) if not bool(self.coefficients[:, n:].any()))
        return self.coefficients[:, :terms]

    def select(self, cameras: list[int]) -> Lens:
        """The lenses of some cameras, in the order given."""
        return Lens(tuple(self.models[i] for i in cameras), self.coefficients[cameras])

    def to(self, target: torch.dtype | torch.device | str) -> Lens:
        """The same lenses with another dtype or on another device."""
        return Lens(self.models, self.coefficients.to(target))

    def _each_model(self, function: Callable[[LensModel, Tensor, Tensor, Tensor], Tensor], points: Tensor) -> Tensor:
        """Apply `function(model, coefficients, limits, points)` to the cameras of each model present."""
        present = dict.fromkeys(self.models)
        coefficients, limits = self._used_coefficients.to(points), self._limits.to(points)
        if len(present) == 1:
            return function(self.models[0], coefficients, limits, points)
        out = torch.empty_like(points)
        for model in present:
            cameras = torch.tensor([i for i, m in enumerate(self.models) if m == model], device=points.device)
            out = out.index_copy(0, cameras, function(model, coefficients[cameras], limits[cameras], points[cameras]))
        return out


def planar(*coordinates: Float[Tensor, "*n"]) -> Float[Tensor, "*n K"]:
    """Coordinates stacked as the last axis, with each of them contiguous in memory."""
    return torch.stack(coordinates).movedim(0, -1)


def radii(points: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n"]:
    """Length; `norm` over an axis of two takes thirty times as long. Not differentiable at 0."""
    x, y = points.unbind(-1)
    return (x * x + y * y).sqrt()


def _radial(k: Tensor, r2: Tensor) -> Tensor:
    """Brown-Conrady's rational radial factor; `k` is (V 5) without its denominator, or longer; `r2` (V n)."""
    k1, k2, _, _, k3, *below = (c[:, None] for c in k[:, :8].unbind(-1))
    above = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    return above / _denominator(r2, *below) if below else above


def _denominator(r2: Tensor, k4: Tensor, k5: Tensor, k6: Tensor) -> Tensor:
    return 1 + r2 * (k4 + r2 * (k5 + r2 * k6))


def _distort_brown_conrady(k: Tensor, points: Tensor) -> Tensor:
    x, y = points.unbind(-1)
    r2 = x * x + y * y
    p1, p2 = k[:, 2, None], k[:, 3, None]
    common = _radial(k, r2) + 2 * (p1 * y + p2 * x)
    if k.shape[1] <= 8:
        return planar(x * common + r2 * p2, y * common + r2 * p1)
    s1, s2, s3, s4 = (c[:, None] for c in k[:, 8:12].unbind(-1))
    return planar(x * common + r2 * (p2 + s1 + s2 * r2), y * common + r2 * (p1 + s3 + s4 * r2))


def _distort_human36m(k: Tensor, points: Tensor) -> Tensor:
    x, y = points.unbind(-1)
    r2 = x * x + y * y
    p1, p2 = k[:, 2, None], k[:, 3, None]
    common = _radial(k, r2) + p1 * y + p2 * x
    return planar(x * common + r2 * p2, y * common + r2 * p1)


def _fisheye_angle(k: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Kannala-Brandt's distorted angle and its derivative by the angle."""
    k1, k2, k3, k4 = (c[:, None] for c in k[:, :4].unbind(-1))
    t2 = theta * theta
    angle = theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))
    return angle, 1 + t2 * (3 * k1 + t2 * (5 * k2 + t2 * (7 * k3 + t2 * 9 * k4)))


def _distort_kannala_brandt(k: Tensor, points: Tensor) -> Tensor:
    radius = points.norm(dim=-1).clamp_min(torch.finfo(points.dtype).tiny ** 0.5)
    angle, _ = _fisheye_angle(k, torch.atan(radius))
    return points * (angle / radius)[..., None]


_DISTORT = {
    LensModel.BROWN_CONRADY: _distort_brown_conrady,
    LensModel.KANNALA_BRANDT: _distort_kannala_brandt,
    LensModel.HUMAN36M: _distort_human36m,
}


def _undistort(model: LensModel, k: Tensor, limits: Tensor, points: Tensor) -> Tensor:
    if model == LensModel.KANNALA_BRANDT:
        return _undistort_kannala_brandt(k, limits, points)
    return _undistort_newton(model, k, limits, points)


def _undistort_newton(model: LensModel, k: Tensor, limits: Tensor, points: Tensor) -> Tensor:
    """Newton on the plane with separate damping per point, kept inside the limit, where the Jacobian is regular."""

    def newton_step(p: Tensor, residual: Tensor) -> Tensor:
        (a, b), (c, d) = (row.unbind(-1) for row in _jacobian(model, k.detach(), p).unbind(-2))
        x, y = residual.unbind(-1)
        return planar(d * x - b * y, a * y - c * x) / (a * d - b * c)[..., None]

    def kept_inside(p: Tensor) -> Tensor:
        x, y = p.unbind(-1)
        if bool((x * x + y * y <= well_inside).all()):
            return p
        return p * (limits[:, None] / radii(p).clamp_min(1e-12)).clamp_max(1.0)[..., None]

    with torch.no_grad():
        well_inside = (limits[:, None] * (1.0 - 1e-3)).square()
        ideal = kept_inside(planar(*points.unbind(-1)))
        residual = _DISTORT[model](k, ideal) - points
        off = radii(residual)
        share = torch.ones_like(ideal[..., :1])
        exact = 8.0 * torch.finfo(points.dtype).eps * (1.0 + radii(points))
        for _ in range(NEWTON_STEPS):
            moved = kept_inside(ideal - share * newton_step(ideal, residual))
            left = _DISTORT[model](k, moved) - points
            off_left = radii(left)
            better = (off_left < off)[..., None]
            ideal, residual = torch.where(better, moved, ideal), torch.where(better, left, residual)
            share = torch.where(better, (2.0 * share).clamp_max(1.0), share / 4.0)
            off = torch.fmin(off_left, off)
            if not bool(((off > exact) & (share[..., 0] > SMALLEST_SHARE)).any()):
                break
    # One step outside no_grad: it does not change the value at the solution, and its derivative is the implicit one.
    if points.requires_grad or k.requires_grad:
        return ideal - newton_step(ideal, _DISTORT[model](k, ideal) - points)
    return ideal


def _jacobian(model: LensModel, k: Tensor, points: Tensor) -> Float[Tensor, "V n 2 2"]:
    """d distorted / d ideal at each point, in closed form.

    torch.func would also work, at 20 times the time for small batches and seconds of imports at first use (measured).
    """
    if model == LensModel.KANNALA_BRANDT:
        return _jacobian_kannala_brandt(k, points)
    x, y = points.unbind(-1)
    r2 = x * x + y * y
    tangential = 2.0 if model == LensModel.BROWN_CONRADY else 1.0
    p1, p2 = tangential * k[:, 2, None], tangential * k[:, 3, None]
    common, slope = _radial(k, r2) + p1 * y + p2 * x, _radial_slope(k, r2)
    along_x, along_y = 2 * x * slope + p2, 2 * y * slope + p1
    shift_x, shift_y = k[:, 3, None], k[:, 2, None]
    if k.shape[1] > 8:
        s1, s2, s3, s4 = (c[:, None] for c in k[:, 8:12].unbind(-1))
        shift_x, shift_y = shift_x + s1 + 2 * s2 * r2, shift_y + s3 + 2 * s4 * r2
    rows = [
        common + x * along_x + 2 * x * shift_x,
        x * along_y + 2 * y * shift_x,
        y * along_x + 2 * x * shift_y,
        common + y * along_y + 2 * y * shift_y,
    ]
    return planar(*rows).unflatten(-1, (2, 2))


def _radial_slope(k: Tensor, r2: Tensor) -> Tensor:
    """d `_radial` / d r2."""
    k1, k2, _, _, k3, *below = (c[:, None] for c in k[:, :8].unbind(-1))
    above = k1 + r2 * (2 * k2 + r2 * 3 * k3)
    if not below:
        return above
    k4, k5, k6 = below
    return (above - _radial(k, r2) * (k4 + r2 * (2 * k5 + r2 * 3 * k6))) / _denominator(r2, *below)


def _jacobian_kannala_brandt(k: Tensor, points: Tensor) -> Float[Tensor, "V n 2 2"]:
    """Stretched along the radius by one factor, and across it by another."""
    radius = points.norm(dim=-1).clamp_min(torch.finfo(points.dtype).tiny ** 0.5)
    angle, slope = _fisheye_angle(k, torch.atan(radius))
    across, along = angle / radius, slope / (1.0 + radius * radius)
    direction = points / radius[..., None]
    outer = direction[..., :, None] * direction[..., None, :]
    return across[..., None, None] * torch.eye(2).to(points) + (along - across)[..., None, None] * outer


def _undistort_kannala_brandt(k: Tensor, limits: Tensor, points: Tensor) -> Tensor:
    """Newton on the angle alone, then r = tan(theta)."""
    radius = points.norm(dim=-1).clamp_min(torch.finfo(points.dtype).tiny ** 0.5)
    widest = torch.atan(limits)[:, None]
    with torch.no_grad():
        theta = torch.minimum(radius, widest)
        for _ in range(NEWTON_STEPS):
            angle, slope = _fisheye_angle(k, theta)
            theta = (theta - (angle - radius) / slope).clamp_min(0.0).minimum(widest)
        _, slope = _fisheye_angle(k, theta)
    angle, _ = _fisheye_angle(k, theta)
    theta = theta - (angle - radius) / slope
    theta = torch.where(theta.detach() > widest, widest, theta)
    return points * (torch.tan(theta) / radius)[..., None]


@lru_cache(maxsize=4096)
def _limit(model: LensModel, coefficients: tuple[float, ...]) -> float:
    """Radius up to which the symmetric part of the Jacobian is positive definite in every direction.

    On a disc, this makes a map one-to-one (Gale and Nikaido, 1965); for a radial lens it means that the radial curve
    increases. The search finds the first of 128 angles up to 88 degrees where it fails, then the first of 64 below it.
    """
    k = torch.tensor([coefficients], dtype=torch.float64)
    coarse = torch.linspace(0.0, math.atan(WIDEST_RADIUS), 129, dtype=torch.float64)
    last = _last_regular(model, k, coarse)
    if last == len(coarse) - 1:
        return WIDEST_RADIUS
    fine = torch.linspace(float(coarse[last]), float(coarse[last + 1]), 65, dtype=torch.float64)
    return math.tan(fine[_last_regular(model, k, fine)])


def _last_regular(model: LensModel, k: Tensor, theta: Tensor) -> int:
    """Index of the last off-axis angle before the first at which the Jacobian fails in one of 16 directions."""
    turn = torch.arange(16, dtype=torch.float64) * (2.0 * math.pi / 16)
    points = torch.tan(theta)[:, None, None] * torch.stack([turn.cos(), turn.sin()], dim=-1)
    (a, b), (c, d) = (row.unbind(-1) for row in _jacobian(model, k, points.reshape(1, -1, 2))[0].unbind(-2))
    positive = (a + d > 0) & (4.0 * a * d > (b + c) ** 2)
    # The first angle is known to be regular; at the centre itself, a fisheye's Jacobian is 0 / 0.
    return int(positive.reshape(-1, 16).all(dim=-1)[1:].long().cumprod(0).sum())
