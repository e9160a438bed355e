"""Cross-view fusion of heatmaps (Qiu et al., ICCV 2019, section 4): views with an occluded joint use the other views.

`CrossViewFusion` is the 2D network: maps of every view, fused across the views, and joints triangulated from them. The
paper trains maps before and after the fusion on Gaussian targets, with equal weight (`ObjectiveConfig.heatmaps`).

`DenseFusion` is the paper's layer: one free matrix for every ordered pair of views, so it is tied to one rig.
`epipolar_fusion` provides the paper's two baselines, which need cameras and have no parameters.
`EpipolarFusion` samples along each pixel's ray, where the other views' evidence must be, and learns only its
weighting: a few hundred parameters, any rig, any number of views.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import grid_sample

from mvpose.models.backbones.simple_baselines import Backbone, HeatmapHead
from mvpose.models.multiview import MultiViewPrediction, Views, open_views, triangulated
from mvpose.models.network_settings import CrossViewConfig
from mvpose.models.volumes.heatmap_cameras import CropCameras

OWN_SHARE = 0.4
"""Share of a view's own map in its fused map; the others share the rest equally (0.2 each of three in the paper)."""


class CrossViewFusion(nn.Module):
    """Maps of every view, their fusion, and DLT; `mvpose.models.pictorial_step` replaces the DLT by PSM or RPSM."""

    def __init__(self, backbone: Backbone, num_joints: int, size: tuple[int, int], config: CrossViewConfig) -> None:
        """`size` is (width, height) of the crops."""
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.head = HeatmapHead(backbone.channels, num_joints, config.head_width)
        self.fuse: nn.Module = nn.Identity()
        if config.fusion == "dense":
            self.fuse = DenseFusion(config.views, (size[0] // 4, size[1] // 4))
        elif config.fusion == "rays":
            self.fuse = EpipolarFusion()

    def forward(
        self,
        crops: Float[Tensor, "B V 3 H W"] | UInt8[Tensor, "B V 3 H W"],
        projections: Float[Tensor, "B V 3 4"],
        present: Bool[Tensor, "B V"] | None = None,
        keep_maps: bool = False,
    ) -> MultiViewPrediction:
        """See `mvpose.models.multiview`. A sample that lacks a view of the dense layer has no valid joint."""
        views = open_views(crops, projections, present, self.config.extent)
        own = self.head(self.backbone(views.images.flatten(0, 1)))[1].unflatten(0, views.images.shape[:2])
        served = views.present.all(dim=1) if self.config.fusion == "dense" else views.present.any(dim=1)
        fused = self.fused(own, views)
        weights = served[:, None, None].expand(fused.shape[:3]).to(fused)
        answer = triangulated(fused, views, self.config.decoding, weights, keep_maps)
        return replace(answer, unfused=own) if keep_maps else answer

    def fused(self, own: Float[Tensor, "B V J h w"], views: Views) -> Float[Tensor, "B V J h w"]:
        """Maps after the fusion; ValueError if the dense layer is given another number of views."""
        if isinstance(self.fuse, DenseFusion):
            return self.fuse(own)
        if own.shape[1] < 2:
            return own
        cameras = CropCameras.of_crops(views.projections, views.size, (own.shape[-1], own.shape[-2]))
        if isinstance(self.fuse, EpipolarFusion):
            return self.fuse(own, cameras, views.frame.centre, views.present)
        assert self.config.fusion in ("sum", "max")
        return epipolar_fusion(own, cameras, views.frame.centre, self.config.fusion, present=views.present)


class DenseFusion(nn.Module):
    """V (V - 1) matrices of (h w)^2 weights, shared by all joints: 201 million for four views of 64 x 64."""

    def __init__(self, num_views: int, size: tuple[int, int]) -> None:
        """`size` is (width, height) of the maps."""
        if num_views < 2:
            raise ValueError(f"fusion needs at least two views, not {num_views}")
        super().__init__()
        self.num_views, self.size = num_views, size
        pixels = size[0] * size[1]
        self.weight = nn.Parameter(torch.empty(num_views, (num_views - 1) * pixels, pixels).uniform_(0.0, 0.1))
        self.others = [[other for other in range(num_views) if other != view] for view in range(num_views)]

    def forward(self, heatmaps: Float[Tensor, "B V J h w"]) -> Float[Tensor, "B V J h w"]:
        """0.4 of the own map and 0.6 / (V - 1) of each other view's, mapped over; ValueError for another rig's maps."""
        b, v, j, h, w = heatmaps.shape
        if (v, (w, h)) != (self.num_views, self.size):
            raise ValueError(
                f"this layer is built for {self.num_views} views of {self.size[0]}x{self.size[1]} and got {v} views of "
                f"{w}x{h}: its matrices belong to one rig; train another, or use EpipolarFusion"
            )
        sources = heatmaps.flatten(3)[:, self.others].permute(1, 0, 3, 2, 4).reshape(v, b * j, -1)
        mapped = torch.bmm(sources, self.weight).reshape(v, b, j, h, w).transpose(0, 1)
        return OWN_SHARE * heatmaps + (1.0 - OWN_SHARE) / (v - 1) * mapped


@dataclass(frozen=True, kw_only=True)
class RaySampling:
    """Sampling of each pixel's ray: `steps` depths over `extent_m` metres about the person."""

    steps: int = 32
    extent_m: float = 2.4


def epipolar_fusion(
    heatmaps: Float[Tensor, "B V J h w"],
    cameras: CropCameras,
    centre: Float[Tensor, "B 3"],
    kind: Literal["sum", "max"],
    sampling: RaySampling | None = None,
    present: Bool[Tensor, "B V"] | None = None,
) -> Float[Tensor, "B V J h w"]:
    """The paper's baselines: each other view adds the sum, or the maximum, along the pixel's epipolar line.

    The line is limited to the depths about `centre` (world, metres). The sum is the line integral in pixels.
    Shares are those of `DenseFusion`. A view with `present` false does not contribute; a view without contributions
    keeps its own map. ValueError for a single view.
    """
    rays = _rays(heatmaps, cameras, centre, sampling or RaySampling())
    if kind == "sum":
        # The length of a step is the distance to the next sample; the last one repeats the one before.
        step = (rays.pixels[..., 1:, :] - rays.pixels[..., :-1, :]).norm(dim=-1)
        step = torch.cat([step, step[..., -1:]], dim=-1)
        found = (rays.heat * step[:, :, :, None]).sum(dim=-1)
    else:
        found = rays.heat.amax(dim=-1)
    helps = _helping(heatmaps, present)
    share = helps / helps.sum(dim=2, keepdim=True).clamp_min(1)
    mean = torch.einsum("bxy,bxyjp->bxjp", share.to(found), found).reshape(heatmaps.shape)
    fused = OWN_SHARE * heatmaps + (1.0 - OWN_SHARE) * mean
    return torch.where(helps.any(dim=2)[..., None, None, None], fused, heatmaps)


class EpipolarFusion(nn.Module):
    """Fusion along rays, conditioned on the cameras; the same weights serve every pixel, pair of views and rig.

    At each depth of a pixel's ray the other views' values are averaged, weighted by the geometry of the camera pair
    (angle and distances). Values on which too few views agree are damped: otherwise each of them leaves a streak along
    its epipolar line. A soft maximum over the depths gives the map of the others. A small convolution decides for each
    pixel how much of the own map is kept, given the similarity of the two maps: an unconfirmed peak is suppressed,
    a confirmed one keeps its sharpness. Untrained, it keeps 0.4 everywhere.
    """

    def __init__(self, sampling: RaySampling | None = None, width: int = 8) -> None:
        super().__init__()
        self.sampling = sampling or RaySampling()
        self.trust = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 1))
        self.log_sharpness = nn.Parameter(torch.tensor(3.0))
        last = nn.Conv2d(width, 1, 3, padding=1)
        assert last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, math.log(OWN_SHARE / (1.0 - OWN_SHARE)))
        self.own_share = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), last)
        # A single view of three has weight a third, two that agree two thirds: these damp the first to 16 %, the other
        # to 84 %.
        self.quorum, self.steepness = nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.tensor(10.0))
        self.log_gain = nn.Parameter(torch.tensor(0.3))

    def forward(
        self,
        heatmaps: Float[Tensor, "B V J h w"],
        cameras: CropCameras,
        centre: Float[Tensor, "B 3"],
        present: Bool[Tensor, "B V"] | None = None,
    ) -> Float[Tensor, "B V J h w"]:
        """Fused maps; `centre` (world, metres) is the middle of the sampled depths.

        A view with `present` false does not contribute; a view without contributions keeps its own map. Memory is
        B V^2 J h w steps floats: 143 MB for four views of 17 joints at 64 x 64 and 32 steps.
        ValueError for a single view.
        """
        b, v, j, h, w = heatmaps.shape
        rays = _rays(heatmaps, cameras, centre, self.sampling)
        helps = _helping(heatmaps, present)
        share = self._shares(cameras, centre, helps)
        agreed = torch.einsum("bxy,bxyjps->bxjps", share, rays.heat)
        depth = torch.softmax(self.log_sharpness.exp() * agreed, dim=-1)
        quorate = agreed * torch.sigmoid(self.steepness * (agreed - self.quorum))
        others = (self.log_gain.exp() * depth * quorate).sum(dim=-1).reshape(b, v, j, h, w)
        likeness = torch.cosine_similarity(heatmaps.flatten(3), others.flatten(3), dim=-1)[..., None, None]
        both = torch.stack([heatmaps, others, likeness.expand_as(others)], dim=3).flatten(0, 2)
        own = torch.sigmoid(self.own_share(both)).reshape(b, v, j, h, w)
        fused = own * heatmaps + (1.0 - own) * others
        return torch.where(helps.any(dim=2)[..., None, None, None], fused, heatmaps)

    def _shares(
        self, cameras: CropCameras, centre: Float[Tensor, "B 3"], helps: Bool[Tensor, "B V V"]
    ) -> Float[Tensor, "B V V"]:
        """Weight of each view (second) for each (first): a softmax over the contributing views."""
        towards = centre[:, None] - cameras.centres
        distance = towards.norm(dim=-1)
        unit = towards / distance[..., None]
        cosine = unit @ unit.transpose(1, 2)
        ratio = (distance[:, None] / distance[:, :, None]).log()
        score = self.trust(torch.stack([cosine, cosine.square(), ratio], dim=-1))[..., 0]
        share = torch.softmax(score.masked_fill(~helps, torch.finfo(score.dtype).min), dim=-1)
        return share * helps


@dataclass(frozen=True, eq=False)
class _Rays:
    """For the pixels p of view x, at each depth s: position in view y, and y's heat there (0 beyond its map)."""

    pixels: Float[Tensor, "B V V p s 2"]
    heat: Float[Tensor, "B V V J p s"]


def _helping(heatmaps: Float[Tensor, "B V J h w"], present: Bool[Tensor, "B V"] | None) -> Bool[Tensor, "B V V"]:
    """Whether each view (second) contributes to each (first)."""
    b, v = heatmaps.shape[:2]
    others = ~torch.eye(v, dtype=torch.bool, device=heatmaps.device).expand(b, -1, -1)
    return others if present is None else others & present[:, None]


def _rays(
    heatmaps: Float[Tensor, "B V J h w"], cameras: CropCameras, centre: Float[Tensor, "B 3"], sampling: RaySampling
) -> _Rays:
    b, v, j, h, w = heatmaps.shape
    if v < 2:
        raise ValueError(f"fusion needs at least two views, not {v}")
    origin = cameras.centres
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    grid = torch.stack([x, y], dim=-1).to(heatmaps).reshape(1, 1, -1, 2).expand(b, v, -1, -1)
    through = torch.cat([grid, torch.ones_like(grid[..., :1])], dim=-1)
    direction = through @ torch.linalg.inv(cameras.projections[..., :3]).transpose(-1, -2)
    # A matrix with a negative determinant is the same camera with inverted rays: point them at the person.
    middle = (centre[:, None] - origin).norm(dim=-1)
    facing = (direction * (centre[:, None] - origin)[:, :, None]).sum(dim=-1, keepdim=True).sign()
    direction = direction / direction.norm(dim=-1, keepdim=True) * facing
    depth = middle[..., None] + torch.linspace(-0.5, 0.5, sampling.steps).to(heatmaps) * sampling.extent_m
    points = origin[:, :, None, None] + direction[..., None, :] * depth[:, :, None, :, None]
    pixels, seen = cameras.project(points.reshape(b, -1, 3))
    pixels = pixels.reshape(b, v, v, h * w, sampling.steps, 2).transpose(1, 2)
    seen = seen.reshape(b, v, v, h * w, sampling.steps).transpose(1, 2)
    where = pixels * (2.0 / torch.tensor([w - 1, h - 1]).to(pixels)) - 1.0
    maps = heatmaps[:, None].expand(-1, v, -1, -1, -1, -1).reshape(b * v * v, j, h, w)
    heat = grid_sample(maps, where.flatten(0, 2), align_corners=True).reshape(b, v, v, j, h * w, -1)
    return _Rays(pixels, heat * seen[:, :, :, None])
