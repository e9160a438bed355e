"""The network of part affinity fields: heatmaps of all joints and fields of all limbs of an image (Cao et al. 2017).

Two branches, one for heatmaps and one for fields, are refined over several stages, each of which sees the image's
features and the maps of the stage before. Every stage is trained. Differences from the paper: features are those of the
common backbones and some deconvolutions, instead of the first ten layers of VGG-19, so that a top-down network can have
the same; and there is no map of the background, which grouping does not read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from mvpose.heatmaps import gaussian_targets, resized_points
from mvpose.models.backbones.simple_baselines import Backbone
from mvpose.models.field_settings import FieldsConfig
from mvpose.models.network_settings import PIXEL_DEVIATION, PIXEL_MEAN, FieldsMethod
from mvpose.models.single_view.affinity_fields import GroupedPeople, affinity_targets, group_people, limb_tree
from mvpose.skeleton import SKELETONS, Skeleton

UNKNOWN_MARGIN = 0.25
"""Share of a person's box by which it is enlarged to cover the joints that nobody labelled."""


@dataclass(frozen=True, eq=False)
class PartMaps:
    """Maps of B images, of one stage."""

    heatmaps: Float[Tensor, "B J h w"]
    fields: Float[Tensor, "B L 2 h w"]


@dataclass(frozen=True, eq=False)
class LabelledPeople:
    """All people of B images; slots of fewer than P people have no joint `known`."""

    points: Float[Tensor, "B P J 2"]
    """Pixels of the image, and beyond them. Undefined for a joint that is not `known`."""
    known: Bool[Tensor, "B P J"]
    """Joints that the dataset has, in front of the camera."""
    inside: Bool[Tensor, "B P J"]
    """Known joints in the image, hidden or not."""


class FieldNetwork(nn.Module):
    """Images to the maps of every stage, the last of which is grouped."""

    def __init__(self, backbone: Backbone, num_joints: int, num_bones: int, config: FieldsConfig) -> None:
        super().__init__()
        self.backbone = backbone
        layers: list[nn.Module] = []
        for i in range(config.upsampled):
            channels = backbone.channels if i == 0 else config.width
            layers += [
                nn.ConvTranspose2d(channels, config.width, 4, 2, 1, bias=False),
                nn.BatchNorm2d(config.width),
                nn.ReLU(inplace=True),
            ]
        self.upsampled = nn.Sequential(*layers)
        width = config.width if config.upsampled else backbone.channels
        maps = (num_joints, 2 * num_bones)
        first = [_branch(width, config.width, 3, 3, 4 * config.width, count) for count in maps]
        later = [
            [_branch(width + sum(maps), config.width, config.kernel, 5, config.width, count) for count in maps]
            for _ in range(config.stages - 1)
        ]
        self.stages = nn.ModuleList(nn.ModuleList(branches) for branches in (first, *later))

    def forward(self, images: Float[Tensor, "B 3 H W"] | UInt8[Tensor, "B 3 H W"]) -> list[PartMaps]:
        """Maps of all stages for RGB images, uint8 or floats in 0..1, whose sides are multiples of 32."""
        pixels = images.float() / 255 if images.dtype == torch.uint8 else images
        mean, deviation = (pixels.new_tensor(c)[:, None, None] for c in (PIXEL_MEAN, PIXEL_DEVIATION))
        features = self.upsampled(self.backbone((pixels - mean) / deviation))
        found, seen = [], features
        for stage in self.stages:
            assert isinstance(stage, nn.ModuleList)
            heatmaps, fields = (branch(seen) for branch in stage)
            found.append(PartMaps(heatmaps, fields.unflatten(1, (-1, 2))))
            seen = torch.cat([features, heatmaps, fields], dim=1)
        return found


def grouped_people(network: nn.Module, images: UInt8[Tensor, "B 3 H W"], method: FieldsMethod) -> list[GroupedPeople]:
    """The people of each image, by the maps of the last stage, on the CPU; points are in pixels of the images."""
    limbs = limb_tree(SKELETONS[method.skeleton])
    device = next(network.parameters(), images).device
    with torch.inference_mode():
        maps: PartMaps = network(images.to(device))[-1]
    grid = maps.heatmaps.shape[-1], maps.heatmaps.shape[-2]
    size = images.shape[-1], images.shape[-2]
    found = (
        group_people(heatmaps.float().cpu(), fields.float().cpu(), limbs, method.fields.grouping)
        for heatmaps, fields in zip(maps.heatmaps, maps.fields, strict=True)
    )
    return [replace(people, points=resized_points(people.points, grid, size)) for people in found]


def field_objective(
    stages: list[PartMaps],
    people: LabelledPeople,
    skeleton: Skeleton,
    size: tuple[int, int],
    sigma: float,
    width: float,
) -> dict[str, Float[Tensor, ""]]:
    """Mean squared errors of heatmaps and fields per map and pixel, summed over all stages (Cao et al. 2017, equations
    5 and 6).

    `size` is (width, height) of the images; `sigma` of Gaussians and `width` of limbs are in pixels of the maps. Pixels
    where a labelled person has joints that nobody labelled have no weight in the maps of these joints.
    """
    height, across = stages[0].heatmaps.shape[-2:]
    grid = across, height
    points = resized_points(people.points, size, grid)
    heatmaps = gaussian_targets(torch.where(people.inside[..., None], points, torch.nan), grid, sigma).amax(dim=1)
    fields = affinity_targets(torch.where(people.known[..., None], points, 0.0), people.inside, skeleton, grid, width)
    labelled = labelled_pixels(points, people.known, grid)
    bones = torch.tensor(skeleton.bone_indices, device=labelled.device)
    ends = labelled[:, bones].all(dim=2)[:, :, None]
    return {
        "heatmaps": torch.stack([_masked_mean((s.heatmaps - heatmaps).square(), labelled) for s in stages]).sum(),
        "fields": torch.stack([_masked_mean((s.fields - fields).square(), ends) for s in stages]).sum(),
    }


def labelled_pixels(
    points: Float[Tensor, "B P J 2"], known: Bool[Tensor, "B P J"], size: tuple[int, int]
) -> Bool[Tensor, "B J h w"]:
    """The pixels of each joint's map where truth is known: all but the boxes of people who lack the joint's label."""
    far = torch.where(known[..., None], points, torch.inf).amin(dim=2)
    near = torch.where(known[..., None], points, -torch.inf).amax(dim=2)
    margin = UNKNOWN_MARGIN * (near - far).amax(dim=-1, keepdim=True)
    low, high = far - margin, near + margin
    x = torch.arange(size[0], device=points.device)
    y = torch.arange(size[1], device=points.device)
    across = (x >= low[..., :1]) & (x <= high[..., :1])
    down = (y >= low[..., 1:]) & (y <= high[..., 1:])
    box = down[..., :, None] & across[..., None, :] & known.any(dim=-1)[..., None, None]
    return ~(box[:, :, None] & ~known[..., None, None]).any(dim=1)


def _masked_mean(values: Tensor, mask: Tensor) -> Float[Tensor, ""]:
    weight = mask.expand_as(values)
    return (values * weight).sum() / weight.sum().clamp_min(1)


def _branch(channels: int, width: int, kernel: int, depth: int, last: int, maps: int) -> nn.Sequential:
    """`depth` convolutions, and two of 1x1: to `last` channels and to the maps."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Conv2d(channels if i == 0 else width, width, kernel, 1, kernel // 2), nn.ReLU(inplace=True)]
    layers += [nn.Conv2d(width, last, 1), nn.ReLU(inplace=True), nn.Conv2d(last, maps, 1)]
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    last_layer = layers[-1]
    assert isinstance(last_layer, nn.Conv2d)
    nn.init.normal_(last_layer.weight, std=0.01)
    return nn.Sequential(*layers)
