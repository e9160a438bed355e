"""Learnable volumetric triangulation (Iskakov et al. 2019, section 3.2).

Features of every view are unprojected into a cube about the person, aggregated over the views and refined in 3D. Each
joint is the mean of its probability over the cube. The cube is centred by the algebraic stage, which shares backbone
and deconvolutions and runs in the same forward pass.

Memory: the fused kernel of unprojection holds B c n^3 numbers, in training too: with the defaults, 32 channels in 64^3
voxels, 34 MB per sample. Plain torch, its reference, holds B V c n^3 and a copy for the softmax's weights. Sampling
stays in float32 under autocast; the 3D network follows autocast.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from mvpose import heatmaps as maps
from mvpose.geometry.kernels import unprojection
from mvpose.geometry.kernels.unprojection import Aggregation
from mvpose.geometry.triangulation import Kernel
from mvpose.models.algebraic import AlgebraicTriangulation, confidence_head
from mvpose.models.backbones.simple_baselines import Backbone
from mvpose.models.fusion.canonical_frame import image_units
from mvpose.models.multiview import MultiViewPrediction, Views, open_views
from mvpose.models.network_settings import VolumetricConfig
from mvpose.models.volumes.cube import Cube, Volume, about_vertical
from mvpose.models.volumes.v2v import V2V


class VolumetricTriangulation(nn.Module):
    """Any number of views from 1. With one view, the person's size determines the cube's position."""

    def __init__(self, backbone: Backbone, num_joints: int, config: VolumetricConfig) -> None:
        step = 2 ** (len(config.widths) - 1)
        if config.voxels % step:
            raise ValueError(f"{config.voxels} voxels cannot be halved {len(config.widths) - 1} times; use {step} n")
        super().__init__()
        self.config = config
        self.algebraic = AlgebraicTriangulation(backbone, num_joints, config.algebraic)
        self.narrow = nn.Conv2d(config.algebraic.head_width, config.channels, 1)
        self.refine = V2V(config.channels, num_joints, config.widths)
        self.confidence = (
            confidence_head(backbone.channels, config.channels, config.algebraic.confidence_widths)
            if config.aggregation in ("conf", "conf_norm")
            else None
        )

    def forward(
        self,
        crops: Float[Tensor, "B V 3 H W"] | UInt8[Tensor, "B V 3 H W"],
        projections: Float[Tensor, "B V 3 4"],
        present: Bool[Tensor, "B V"] | None = None,
        keep_maps: bool = False,
    ) -> MultiViewPrediction:
        """See `mvpose.models.multiview`. 2D points are the algebraic stage's; `keep_maps` keeps it and the volume."""
        views = open_views(crops, projections, present, self.config.algebraic.extent)
        features = self.algebraic.backbone(views.images.flatten(0, 1))
        coarse, fine = self.algebraic.from_features(features, views, keep_maps)
        cube = self.cube_about(coarse, views)
        narrow = self.narrow(fine.flatten(0, 1)).unflatten(0, fine.shape[:2])
        weights = None if self.confidence is None else self.confidence(features).unflatten(0, fine.shape[:2])
        volumes = unproject(narrow, views, cube, self.config.aggregation, weights)
        scores = self.refine(volumes).flatten(2)
        scores = scores if scores.dtype == torch.float64 else scores.float()
        log_probability = torch.log_softmax(self.config.sharpness * scores, dim=-1).unflatten(-1, volumes.shape[2:])
        return self._read(Volume(log_probability, cube), coarse, views, keep_maps)

    def cube_about(self, coarse: MultiViewPrediction, views: Views) -> Cube:
        """The cube about the algebraic pelvis, or about the canonical frame's centre if there is none."""
        root = list(self.config.root)
        known = coarse.valid[:, root].all(dim=1)
        pelvis = coarse.joints[:, root].mean(dim=1).detach()
        centre = torch.where(known[:, None], pelvis, views.frame.centre)
        turn = self.training and self.config.turn_in_training
        angle = torch.rand(len(centre)).to(centre) * 2 * math.pi if turn else torch.zeros_like(centre[:, 0])
        return Cube(centre, about_vertical(angle), self.config.side, self.config.voxels)

    def _read(
        self, volume: Volume, coarse: MultiViewPrediction, views: Views, keep_stages: bool
    ) -> MultiViewPrediction:
        probability = volume.log_probability.exp()
        index = maps.soft_argmax_3d(probability)
        valid = views.present.any(dim=1, keepdim=True).expand(index.shape[:2])
        radius = self.config.radius / self.config.side * (self.config.voxels - 1)
        return replace(
            coarse,
            joints=torch.where(valid[..., None], volume.cube.world_of(index), torch.zeros_like(index)),
            valid=valid,
            confidence=maps.concentration_3d(probability.detach(), index.detach(), radius) * valid,
            views_used=views.present[..., None].expand(coarse.views_used.shape),
            volume=volume if keep_stages else None,
            coarse=coarse if keep_stages else None,
        )


def unproject(
    features: Float[Tensor, "B V c h w"],
    views: Views,
    cube: Cube,
    aggregation: Aggregation,
    weights: Float[Tensor, "B V c"] | None = None,
    engine: Kernel | None = None,
) -> Float[Tensor, "B c n n n"]:
    """Features of all views sampled (bilinearly) at each voxel's projection, aggregated over the views that see it.

    Beyond an image's edge features are 0, as in the paper. A view behind whose camera the voxel is, or an absent view,
    is ignored. `weights` are needed by `conf` and `conf_norm`. `engine` defaults to `chosen_engine`'s; the fused
    kernels give float32 and no gradients to cameras and cube; ImportError on CUDA if Triton is missing.
    """
    with torch.autocast(features.device.type, enabled=False):
        if (engine or chosen_engine(features, views, cube)) == Kernel.FUSED:
            matrices = cube.index_projections(image_units(views.projections.double(), views.size))
            return unprojection.unproject(features, matrices, views.present, cube.count, aggregation, weights)
        points, front = cube.image_points(image_units(views.projections, views.size))
    exact = torch.promote_types(features.dtype, torch.float32)  # bfloat16 would place voxels to a few pixels only
    flat, grid = features.flatten(0, 1).to(exact), points.flatten(0, 1)[:, :, None].to(exact)
    seen = (front & views.present[..., None])[:, :, None]
    sampled = nn.functional.grid_sample(flat, grid, align_corners=False)[..., 0]
    values = sampled.unflatten(0, features.shape[:2])
    return aggregate(values, seen, aggregation, weights).unflatten(-1, (cube.count,) * 3)


def chosen_engine(features: Float[Tensor, "B V c h w"], views: Views, cube: Cube) -> Kernel:
    """Default engine of `unproject`: on a CPU the fused kernel whenever it is supported.

    It is not supported in double precision, while tracing or compiling, or if cameras or cube need gradients. On CUDA
    the Triton kernel must be requested: it has not yet been faster on any device.
    """
    moved = torch.is_grad_enabled() and any(t.requires_grad for t in (views.projections, cube.centre, cube.rotation))
    fits = features.device.type == "cpu" and features.dtype != torch.float64 and not moved
    return Kernel.FUSED if fits and not torch.compiler.is_compiling() else Kernel.TORCH


def aggregate(
    values: Float[Tensor, "B V c N"],
    seen: Bool[Tensor, "B V 1 N"],
    aggregation: Aggregation,
    weights: Float[Tensor, "B V c"] | None = None,
) -> Float[Tensor, "B c N"]:
    """One value from those of the views that see a voxel; 0 if there are none."""
    match aggregation:
        case "sum":
            return (values * seen).sum(dim=1)
        case "max":
            lowest = values.masked_fill(~seen, -math.inf).amax(dim=1)
            return torch.where(seen.any(dim=1), lowest, torch.zeros_like(lowest))
        case "softmax":
            share = torch.softmax(values.masked_fill(~seen, torch.finfo(values.dtype).min), dim=1)
            mean = (values * share).sum(dim=1)
            return torch.where(seen.any(dim=1), mean, torch.zeros_like(mean))
        case "conf" | "conf_norm":
            assert weights is not None
            weighed = weights[..., None] * seen
            total = weighed.sum(dim=1).clamp_min(1e-6) if aggregation == "conf_norm" else 1.0
            return (values * weighed).sum(dim=1) / total
