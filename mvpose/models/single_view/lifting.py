"""Lifting 2D joints of one camera to 3D: the residual network of Martinez et al. (ICCV 2017) and a transformer.

Both can be trained from motion capture alone: `random_views` projects it into randomly drawn cameras. 2D joints are on
the plane z = 1 of the ideal camera (undistorted, without K), so that one network serves every lens. Poses are in the
axes of that camera, in metres from the root.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class RandomCameras:
    """Distribution of random cameras: uniform within these bounds, aimed at the person, at any azimuth."""

    distance_m: tuple[float, float] = (3.0, 7.0)
    elevation: tuple[float, float] = (-0.1, 0.6)
    """Radians above the horizontal."""
    off_centre_m: float = 0.3
    """Standard deviation of the target point about the person."""


@dataclass(frozen=True, eq=False)
class LiftingSamples:
    """Clips as seen by one camera, and their 3D poses."""

    points: Float[Tensor, "B T J 2"]
    """On the plane z = 1."""
    poses: Float[Tensor, "B T J 3"]
    """Axes of the camera, metres from the root."""
    seen: Bool[Tensor, "B T J"] | None = None
    """False for a missed joint, whose point is NaN. None if all are seen."""

    def whole_frames(self) -> tuple[Float[Tensor, "n J 2"], Float[Tensor, "n J 3"]]:
        """Points and poses of the frames without missed joints, as needed to train `ResidualLifter`."""
        kept = torch.ones_like(self.points[..., 0], dtype=torch.bool) if self.seen is None else self.seen
        whole = kept.all(dim=-1)
        return self.points[whole], self.poses[whole]


def random_views(
    poses_world: Float[Tensor, "B T J 3"], root: int, cameras: RandomCameras, generator: torch.Generator
) -> LiftingSamples:
    """View each clip through a separate static camera. The world is Z-up, in metres.

    ValueError if a joint is nearer than 10 cm to its camera: such cameras are within the motion.
    """
    count, dtype = len(poses_world), poses_world.dtype

    def uniform(low: float, high: float) -> Float[Tensor, "B"]:
        return low + (high - low) * torch.rand(count, generator=generator, dtype=dtype)

    azimuth, distance = uniform(0.0, 2 * math.pi), uniform(*cameras.distance_m)
    elevation = uniform(*cameras.elevation)
    flat = torch.stack([azimuth.cos(), azimuth.sin()], dim=-1) * elevation.cos()[:, None]
    outwards = torch.cat([flat, elevation.sin()[:, None]], dim=-1)
    target = poses_world[:, :, root].mean(dim=1)
    target = target + cameras.off_centre_m * torch.randn(count, 3, generator=generator, dtype=dtype)
    right = torch.stack([-azimuth.sin(), azimuth.cos(), torch.zeros_like(azimuth)], dim=-1)
    axes = torch.stack([right, torch.linalg.cross(-outwards, right), -outwards], dim=-2)
    away = poses_world - (target + distance[:, None] * outwards)[:, None, None]
    in_camera = away @ axes[:, None].transpose(-1, -2)
    nearest = float(in_camera[..., 2].min())
    if nearest < 0.1:
        raise ValueError(f"a joint is {nearest:.2f} m in front of its camera: draw cameras from further away")
    return LiftingSamples(in_camera[..., :2] / in_camera[..., 2:], in_camera - in_camera[:, :, root : root + 1])


class Standardised(nn.Module):
    """Mean and deviation of each component of a sample, stored with the weights."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("deviation", torch.ones(shape))

    def fit(self, samples: Float[Tensor, "n *shape"]) -> None:
        """Fit both to samples, ignoring NaN; a constant component gets deviation 1, an unknown one mean 0."""
        mean = samples.nanmean(dim=0).nan_to_num()
        deviation = (samples - mean).square().nanmean(dim=0).sqrt().nan_to_num()
        self.mean.copy_(mean)
        self.deviation.copy_(torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation)))

    def forward(self, samples: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Normalise to mean 0 and deviation 1."""
        return (samples - self.mean) / self.deviation

    def inverse(self, standard: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Map back to the samples' own units."""
        return standard * self.deviation + self.mean


class ResidualBlock(nn.Module):
    """Two linear layers, each with batch normalisation, an activation and dropout, and a skip around both."""

    def __init__(self, width: int, dropout: float, slope: float = 0.0) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            *linear_step(width, width, dropout, slope), *linear_step(width, width, dropout, slope)
        )

    def forward(self, x: Float[Tensor, "n w"]) -> Float[Tensor, "n w"]:
        """Return features of the same width."""
        return x + self.inner(x)


def linear_step(channels: int, width: int, dropout: float, slope: float = 0.0) -> list[nn.Module]:
    """Linear, batch normalisation, leaky ReLU of `slope` (0: ReLU), dropout; weights after He et al."""
    linear = nn.Linear(channels, width)
    nn.init.kaiming_normal_(linear.weight, a=slope)
    return [linear, nn.BatchNorm1d(width), nn.LeakyReLU(slope), nn.Dropout(dropout)]


class ResidualLifter(nn.Module):
    """One frame's joints through two residual blocks of width 1024; 4.3 million parameters for 17 joints."""

    def __init__(self, num_joints: int, num_out: int | None = None, width: int = 1024, dropout: float = 0.5) -> None:
        """`num_out` is the number of output joints; None for the number of input joints."""
        super().__init__()
        num_out = num_joints if num_out is None else num_out
        self.points, self.poses = Standardised(num_joints, 2), Standardised(num_out, 3)
        blocks = [ResidualBlock(width, dropout) for _ in range(2)]
        self.layers = nn.Sequential(
            *linear_step(2 * num_joints, width, dropout),
            *blocks,
            nn.Linear(width, 3 * num_out),
            nn.Unflatten(1, (-1, 3)),
        )

    def fit_units(self, points: Float[Tensor, "n J 2"], poses: Float[Tensor, "n K 3"]) -> None:
        """Fit the standardisation to training samples; call once, before training."""
        self.points.fit(points)
        self.poses.fit(poses)

    def forward(self, points: Float[Tensor, "n J 2"]) -> Float[Tensor, "n K 3"]:
        """Joints on the plane z = 1 to joints in metres from the root, in the axes of the camera."""
        return self.poses.inverse(self.layers(self.points(points).flatten(1)))


class TemporalLifter(nn.Module):
    """Alternating attention among the joints of a frame and among the frames of a joint, over a clip.

    Every frame of the window gets a pose. An unseen joint is a learned token, so any joints may be missing in any
    frame.
    """

    def __init__(
        self, num_joints: int, window: int = 27, width: int = 64, blocks: int = 3, heads: int = 4, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.window = window
        self.points, self.poses = Standardised(num_joints, 2), Standardised(num_joints, 3)
        self.enter, self.leave = nn.Linear(2, width), nn.Linear(width, 3)
        self.unseen = nn.Parameter(0.02 * torch.randn(width))
        self.joint = nn.Parameter(0.02 * torch.randn(num_joints, width))
        self.time = nn.Parameter(0.02 * torch.randn(window, 1, width))

        def layers() -> nn.ModuleList:
            return nn.ModuleList(
                nn.TransformerEncoderLayer(width, heads, 2 * width, dropout, "gelu", batch_first=True, norm_first=True)
                for _ in range(blocks)
            )

        self.among_joints, self.among_frames = layers(), layers()

    def fit_units(self, points: Float[Tensor, "B T J 2"], poses: Float[Tensor, "B T J 3"]) -> None:
        """Fit the standardisation to training clips; call once, before training."""
        self.points.fit(points.flatten(0, 1))
        self.poses.fit(poses.flatten(0, 1))

    def forward(
        self, points: Float[Tensor, "B T J 2"], seen: Bool[Tensor, "B T J"] | None = None
    ) -> Float[Tensor, "B T J 3"]:
        """Joints on the plane z = 1 to metres from the root. Points with `seen` false are ignored.

        ValueError for a clip longer than the window.
        """
        b, t, j = points.shape[:3]
        if t > self.window:
            raise ValueError(f"the clip has {t} frames, but this lifter's window is {self.window}: split the clip")
        seen = torch.ones_like(points[..., 0], dtype=torch.bool) if seen is None else seen
        known = self.enter(self.points(torch.where(seen[..., None], points, torch.zeros_like(points))))
        x = torch.where(seen[..., None], known, self.unseen) + self.joint + self.time[:t]
        for within, across in zip(self.among_joints, self.among_frames, strict=True):
            x = within(x.flatten(0, 1)).unflatten(0, (b, t))
            x = across(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (b, j)).transpose(1, 2)
        return self.poses.inverse(self.leave(x))
