"""Single-view heads: direct regression, integral, 2.5D, and volumes of a 2D encoder - 3D decoder.

Normalised coordinates run from -0.5 to 0.5 over the image (over the depth range for z): a pixel x of a map of width w
is (x + 0.5) / w - 0.5, so the same point has the same coordinates at every resolution. What z means in the camera is
`single_view.epipolar_pose.to_volume`.

Every head returns its joints, and the probability of each over the image (n J h w, sum 1), from which its confidence
follows; direct regression has none.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mvpose import heatmaps as maps
from mvpose.geometry.conditioning import inverse_3x3
from mvpose.models.backbones.simple_baselines import HeatmapHead


class RegressionHead(nn.Module):
    """Mean over the image, then one linear layer to J x 3 normalised coordinates (direct regression)."""

    def __init__(self, channels: int, num_joints: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, 3 * num_joints)

    def forward(self, features: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n J 3"], None]:
        """Normalised (x, y, z), which may be outside the image; a regression has no maps."""
        return self.linear(features.mean(dim=(-2, -1))).unflatten(-1, (-1, 3)), None


def integral_2d(heatmaps: Float[Tensor, "*batch h w"], sharpness: float = 1.0) -> Float[Tensor, "*batch 2"]:
    """Expected normalised (x, y) under the softmax of a raw map (Sun et al., ECCV 2018)."""
    return _normalised(maps.soft_argmax(heatmaps, sharpness), heatmaps.shape[-2:])


class IntegralHead(nn.Module):
    """Three deconvolutions to J x `depth` channels, read as J volumes (integral pose; EpipolarPose uses depth 64)."""

    def __init__(
        self, channels: int, num_joints: int, depth: int = 64, width: int = 256, sharpness: float = 1.0
    ) -> None:
        super().__init__()
        self.depth, self.sharpness = depth, sharpness
        self.maps = HeatmapHead(channels, num_joints * depth, width)

    def forward(self, features: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n J 3"], Float[Tensor, "n J _ _"]]:
        """Normalised (x, y, z): the mean of each volume."""
        return integral_3d(self.sharpness * self.maps(features)[1].unflatten(1, (-1, self.depth)))


def integral_3d(
    volumes: Float[Tensor, "*batch D h w"],
) -> tuple[Float[Tensor, "*batch 3"], Float[Tensor, "*batch h w"]]:
    """Expected normalised (x, y, z) under the softmax of a raw volume, and its probability over the image.

    z runs along the first axis, D.
    """
    probability = _softmax_3d(volumes)
    mean = _normalised(maps.soft_argmax_3d(probability).flip(-1), volumes.shape[-3:])
    return mean, probability.sum(dim=-3)


class DepthHead(nn.Module):
    """2.5D: a position map and a depth map for each joint."""

    def __init__(self, channels: int, num_joints: int, width: int = 256, sharpness: float = 1.0) -> None:
        super().__init__()
        self.sharpness = sharpness
        self.maps = HeatmapHead(channels, 2 * num_joints, width)

    def forward(self, features: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n J 3"], Float[Tensor, "n J _ _"]]:
        """Normalised (x, y), and z read from the depth map at the joint's position."""
        where, depth = self.maps(features)[1].unflatten(1, (2, -1)).unbind(1)
        probability = maps.probabilities(where, self.sharpness)
        points = torch.cat([integral_2d(where, self.sharpness), depth_at(probability, depth)[..., None]], dim=-1)
        return points, probability


def depth_at(probability: Float[Tensor, "*batch h w"], depth: Float[Tensor, "*batch h w"]) -> Float[Tensor, "*batch"]:
    """Mean of a depth map under a map that sums to 1."""
    return (probability * depth).sum(dim=(-2, -1))


def back_project(
    pixels: Float[Tensor, "*batch n 2"], depth: Float[Tensor, "*batch n"], intrinsics: Float[Tensor, "*batch 3 3"]
) -> Float[Tensor, "*batch n 3"]:
    """Undistorted pixels and their depths to points of the camera frame: X = (u - c) Z / f, in the depths' unit."""
    homogeneous = torch.cat([pixels, torch.ones_like(pixels[..., :1])], dim=-1)
    return homogeneous @ inverse_3x3(intrinsics).transpose(-1, -2) * depth[..., None]


class ReshapeDecoder(nn.Module):
    """2D encoder - 3D decoder: channels are reshaped to depth slices, and 3D convolutions give J volumes."""

    def __init__(
        self, channels: int, num_joints: int, depth: int = 16, width: int = 32, sharpness: float = 1.0
    ) -> None:
        super().__init__()
        self.depth, self.sharpness = depth, sharpness
        self.narrow = nn.Conv2d(channels, width * depth, 1)
        self.decode = _decoder(width, num_joints)

    def forward(self, features: Float[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n J 3"], Float[Tensor, "n J _ _"]]:
        """Normalised (x, y, z)."""
        return integral_3d(self.sharpness * self.decode(self.narrow(features).unflatten(1, (-1, self.depth))))


class RayDecoder(nn.Module):
    """2D encoder - 3D decoder: features are carried along the rays of their pixels by the inverse intrinsics.

    The volume is a section of the camera's frustum, `extent_m` deep, so joints are in metres.
    """

    def __init__(
        self,
        channels: int,
        num_joints: int,
        depth: int = 16,
        width: int = 32,
        extent_m: float = 2.0,
        sharpness: float = 1.0,
    ) -> None:
        super().__init__()
        self.depth, self.extent_m, self.sharpness = depth, extent_m, sharpness
        self.narrow = nn.Conv2d(channels, width, 1)
        self.decode = _decoder(width + 3, num_joints)

    def forward(
        self,
        features: Float[Tensor, "n c h w"],
        intrinsics: Float[Tensor, "n 3 3"],
        size: tuple[int, int],
        root_depth: Float[Tensor, "n"],
    ) -> tuple[Float[Tensor, "n J 3"], Float[Tensor, "n J _ _"]]:
        """Joints in the camera frame, metres. `intrinsics` are those of the undistorted crop of (width, height) `size`.

        The volume is centred at `root_depth`. ValueError if it would extend behind the camera.
        """
        if (root_depth <= self.extent_m / 2).any():
            nearest = float(root_depth.min())
            raise ValueError(f"a root {nearest:.2f} m away is too close for a volume {self.extent_m} m deep about it")
        h, w = features.shape[-2:]
        steps = torch.linspace(-0.5, 0.5, self.depth).to(features) * self.extent_m
        coarse = frustum(intrinsics, size, (w, h), root_depth[:, None] + steps)
        local = (coarse - root_depth[:, None, None, None, None] * coarse.new_tensor([0.0, 0.0, 1.0])) / self.extent_m
        carried = self.narrow(features)[:, :, None].expand(-1, -1, self.depth, -1, -1)
        volumes = self.decode(torch.cat([carried, local.movedim(-1, 1)], dim=1))
        finer = torch.linspace(-0.5, 0.5, volumes.shape[2]).to(features) * self.extent_m
        places = frustum(intrinsics, size, (volumes.shape[-1], volumes.shape[-2]), root_depth[:, None] + finer)
        probability = _softmax_3d(self.sharpness * volumes)
        return (probability[..., None] * places[:, None]).sum(dim=(2, 3, 4)), probability.sum(dim=2)


def frustum(
    intrinsics: Float[Tensor, "n 3 3"], size: tuple[int, int], map_size: tuple[int, int], depths: Float[Tensor, "n D"]
) -> Float[Tensor, "n D h w 3"]:
    """Points of the camera frame behind each pixel of a map of `map_size`, at each depth in metres.

    `intrinsics` belong to the crop of (width, height) `size`; the map is that crop resized.
    """
    y, x = torch.meshgrid(torch.arange(map_size[1]), torch.arange(map_size[0]), indexing="ij")
    grid = torch.stack([x, y], dim=-1).to(intrinsics).reshape(1, -1, 2).expand(len(intrinsics), -1, -1)
    pixels = maps.resized_points(grid, map_size, size)
    plane = back_project(pixels, torch.ones_like(pixels[..., 0]), intrinsics)
    points = plane[:, None] * depths[..., None, None]
    return points.unflatten(2, (map_size[1], map_size[0]))


def _decoder(channels: int, num_joints: int) -> nn.Sequential:
    """Volumes to J volumes of twice the side."""
    return nn.Sequential(
        nn.Conv3d(channels, channels, 3, padding=1),
        nn.BatchNorm3d(channels),
        nn.ReLU(inplace=True),
        nn.ConvTranspose3d(channels, channels, 4, 2, 1),
        nn.BatchNorm3d(channels),
        nn.ReLU(inplace=True),
        nn.Conv3d(channels, num_joints, 1),
    )


def _softmax_3d(volumes: Float[Tensor, "*batch D h w"]) -> Float[Tensor, "*batch D h w"]:
    flat = volumes.flatten(-3)
    wide = flat if flat.dtype == torch.float64 else flat.float()
    return torch.softmax(wide, dim=-1).unflatten(-1, volumes.shape[-3:])


def _normalised(index: Float[Tensor, "*batch d"], sizes: torch.Size) -> Float[Tensor, "*batch d"]:
    """Pixel indices (x first) to normalised coordinates; `sizes` as in a shape, x last."""
    return (index + 0.5) / index.new_tensor(list(sizes)[::-1]) - 0.5
