"""Lifting 2D joints of one camera to 3D: the residual network of Martinez et al. (ICCV 2017) and a transformer.

2D joints are on the plane z = 1 of the ideal camera (undistorted, without K), so that one network serves every lens.
Poses are in the axes of that camera, in metres from the root. An image determines neither a person's size nor, hence,
the distance: a lifter gives the size that people of such a pose have in its training, and `root_positions` the place
at which a body of that size looks as it does.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mvpose.models.network_settings import LiftingMethod
from mvpose.skeleton import SKELETONS

NEAREST_M = 0.2
"""Minimum distance of a root in front of its camera."""
MIN_SEEN = 4
"""Minimum seen joints of a person who is placed; three unknowns have two equations per joint."""


class Lifter(nn.Module):
    """A lifter of windows of frames, wherever in the image the person is, and of whatever size.

    The camera is first turned to the middle of the joints seen in the window, and their mean distance from its axis
    made 1. Martinez et al. standardise joints by the statistics of their training set, which ties a network to its
    cameras' distance and to people in the middle of the image.
    """

    def __init__(self, network: nn.Module, window: int) -> None:
        super().__init__()
        self.network, self.window = network, window

    def forward(
        self, points: Float[Tensor, "B T J 2"], seen: Bool[Tensor, "B T J"] | None = None
    ) -> Float[Tensor, "B T J 3"]:
        """Joints on the plane z = 1 to metres from the root, in the axes of the camera.

        Points with `seen` false are ignored. ValueError for a clip longer than the window.
        """
        if points.shape[1] > self.window:
            raise ValueError(
                f"the clip has {points.shape[1]} frames, but this lifter's window is {self.window}: split the clip"
            )
        seen = torch.ones_like(points[..., 0], dtype=torch.bool) if seen is None else seen
        camera_from_facing, standard = _facing(points, seen)
        return self.network(standard, seen) @ camera_from_facing[:, None].transpose(-1, -2)


def lifter(config: LiftingMethod) -> Lifter:
    """The network of a config, with random weights."""
    joints, sizes = len(SKELETONS[config.skeleton].joints), config.lifter
    if config.method == "lifting_mlp":
        return Lifter(ResidualLifter(joints, sizes.width, sizes.blocks, sizes.dropout), config.window)
    network = TemporalLifter(joints, sizes.window, sizes.width, sizes.blocks, sizes.heads, sizes.dropout)
    return Lifter(network, config.window)


def _facing(
    points: Float[Tensor, "B T J 2"], seen: Bool[Tensor, "B T J"]
) -> tuple[Float[Tensor, "B 3 3"], Float[Tensor, "B T J 2"]]:
    """Rotation from a camera that faces the middle of the joints, its x axis level, and the joints in it.

    The joints have a mean square distance of 1 from the middle of that camera; unseen ones are (0, 0).
    """
    known = torch.where(seen[..., None], points, torch.zeros_like(points))
    weight = seen[..., None].to(points)
    rays = torch.cat([known, torch.ones_like(known[..., :1])], dim=-1)
    # The middle of unit rays turns with the camera; that of points does not.
    middle = (weight * nn.functional.normalize(rays, dim=-1)).sum(dim=(1, 2))
    forward = middle.new_tensor([0.0, 0.0, 1.0])
    ahead = nn.functional.normalize(torch.where(seen.any(dim=(1, 2))[:, None], middle, forward), dim=-1)
    down = ahead.new_tensor([0.0, 1.0, 0.0]).expand_as(ahead)
    right = nn.functional.normalize(torch.linalg.cross(down, ahead), dim=-1)
    rotation = torch.stack([right, torch.linalg.cross(ahead, right), ahead], dim=-1)
    rays = rays @ rotation[:, None]
    plane = weight * rays[..., :2] / rays[..., 2:].clamp_min(0.1)
    size = (plane.square().sum(dim=(1, 2, 3)) / weight.sum(dim=(1, 2, 3)).clamp_min(1)).sqrt().clamp_min(1e-6)
    return rotation, plane / size[:, None, None, None]


def root_positions(
    poses: Float[Tensor, "n J 3"], points: Float[Tensor, "n J 2"], seen: Bool[Tensor, "n J"]
) -> tuple[Float[Tensor, "n 3"], Bool[Tensor, "n"]]:
    """Root of each pose in the axes of the camera, metres, and a mask of those that are determined.

    The rule of depth: the place from which the lifted joints are seen nearest to the 2D joints, by linear least squares
    (x (Z + t_z) = X + t_x and y (Z + t_z) = Y + t_y for every seen joint). Depth is thus as uncertain as the person's
    size: somebody 5 % taller than the lifter takes them for is put 5 % too near. Undetermined: with fewer than
    `MIN_SEEN` joints, and nearer than `NEAREST_M`.
    """
    weight = seen.double()[..., None]
    xyz, at = poses.double(), torch.where(seen[..., None], points, torch.zeros_like(points)).double()
    one, zero = torch.ones_like(at[..., 0]), torch.zeros_like(at[..., 0])
    rows = torch.stack([torch.stack([one, zero, -at[..., 0]], -1), torch.stack([zero, one, -at[..., 1]], -1)], -2)
    goal = at * xyz[..., 2:] - xyz[..., :2]
    normal = torch.einsum("njci,njck,njo->nik", rows, rows, weight)
    # Points that coincide determine no depth; the shift keeps their equations regular, and the depth at 0.
    normal = normal + 1e-12 * torch.eye(3).to(normal)
    found = torch.linalg.solve(normal, torch.einsum("njci,njc,njo->ni", rows, goal, weight))
    valid = (seen.sum(dim=-1) >= MIN_SEEN) & (found[:, 2] > NEAREST_M)
    return found.to(poses), valid


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
    """Each frame by itself through two residual blocks of width 1024; 4.3 million parameters for 17 joints.

    An unseen joint is in the middle of the person.
    """

    def __init__(self, num_joints: int, width: int = 1024, blocks: int = 2, dropout: float = 0.5) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *linear_step(2 * num_joints, width, dropout),
            *(ResidualBlock(width, dropout) for _ in range(blocks)),
            nn.Linear(width, 3 * num_joints),
            nn.Unflatten(1, (-1, 3)),
        )

    def forward(self, points: Float[Tensor, "B T J 2"], seen: Bool[Tensor, "B T J"]) -> Float[Tensor, "B T J 3"]:
        """Points about the middle of the person to metres from the root, both as a camera that faces them has them."""
        known = torch.where(seen[..., None], points, torch.zeros_like(points))
        return self.layers(known.flatten(0, 1).flatten(1)).unflatten(0, points.shape[:2])


class TemporalLifter(nn.Module):
    """Alternating attention among the joints of a frame and among the frames of a joint, over a window of frames.

    Every frame of the window gets a pose. An unseen joint is a learned token, so any joints may be missing in any
    frame. A learned vector for each frame of the window is its place in time: attention alone does not know the order.
    """

    def __init__(
        self, num_joints: int, window: int = 27, width: int = 64, blocks: int = 3, heads: int = 4, dropout: float = 0.1
    ) -> None:
        super().__init__()
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

    def forward(self, points: Float[Tensor, "B T J 2"], seen: Bool[Tensor, "B T J"]) -> Float[Tensor, "B T J 3"]:
        """Points about the middle of the person to metres from the root, both as a camera that faces them has them."""
        b, t, j = points.shape[:3]
        known = self.enter(torch.where(seen[..., None], points, torch.zeros_like(points)))
        x = torch.where(seen[..., None], known, self.unseen) + self.joint + self.time[:t]
        for within, across in zip(self.among_joints, self.among_frames, strict=True):
            x = within(x.flatten(0, 1)).unflatten(0, (b, t))
            x = across(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (b, j)).transpose(1, 2)
        return self.leave(x)
