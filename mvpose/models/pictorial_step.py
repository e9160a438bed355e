"""PSM and RPSM as the 3D step of any method that predicts heatmaps (Qiu et al., ICCV 2019, section 5).

The network is not changed: the search reads the maps that it would triangulate. In 3D a joint is where the search
places it. In 2D it is, in each view, the peak of that view's own map within 4 pixels of the pose's projection, and its
confidence the height of this peak. So 2D joints remain measurements, among which the search has chosen: whoever
triangulates them again, as `mvpose reconstruct` does, finds honest residuals, and no joint that no map shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from mvpose import heatmaps as maps
from mvpose.errors import ConfigError
from mvpose.models.multiview import MultiViewPrediction, open_views
from mvpose.models.network_settings import (
    AlgebraicMethod,
    CrossViewMethod,
    Decoding,
    FusionMethod,
    Method,
    PictorialConfig,
    RansacMethod,
    Solver,
)
from mvpose.models.volumes.heatmap_cameras import CropCameras
from mvpose.models.volumes.peaks import peaks_near
from mvpose.models.volumes.pictorial import grid_centres, pictorial_poses, require_tree
from mvpose.skeleton import SKELETONS, Skeleton


class PictorialStep(nn.Module):
    """A method whose joints come from a search through its heatmaps. Not for training: the search has no gradient."""

    def __init__(
        self,
        method: nn.Module,
        decoding: Decoding,
        skeleton: Skeleton,
        lengths: Float[Tensor, "L"],
        config: PictorialConfig,
    ) -> None:
        """`lengths` in metres, in the order of `skeleton.bones`."""
        super().__init__()
        self.method = method
        self.decoding, self.skeleton, self.lengths, self.config = decoding, skeleton, lengths, config

    @torch.no_grad()
    def forward(
        self,
        crops: Float[Tensor, "B V 3 H W"] | UInt8[Tensor, "B V 3 H W"],
        projections: Float[Tensor, "B V 3 4"],
        present: Bool[Tensor, "B V"] | None = None,
        keep_maps: bool = False,
    ) -> MultiViewPrediction:
        """See `mvpose.models.multiview`. Samples that the method has no joint for keep its answer."""
        found = self.method(crops, projections, present, keep_maps=True)
        views = open_views(crops, projections, present, 1.0)
        heat = evidence(found.heatmaps, self.decoding).to(views.projections)
        cameras = CropCameras.of_crops(views.projections, views.size, (heat.shape[-1], heat.shape[-2]))
        served = found.valid.any(dim=1)
        answer = found if keep_maps else replace(found, heatmaps=None, unfused=None)
        if not served.any():
            return answer
        weights = views.present.to(heat)
        centre, agreed = grid_centres(
            heat[served], CropCameras(cameras.projections[served]), self.skeleton, weights[served]
        )
        served[served.clone()] = agreed
        if not served.any():
            return answer
        return self._searched(answer, served, heat[served], cameras, weights[served], centre[agreed], views.size)

    def _searched(
        self,
        answer: MultiViewPrediction,
        served: Bool[Tensor, "B"],
        heat: Float[Tensor, "S V J h w"],
        cameras: CropCameras,
        weights: Float[Tensor, "S V"],
        centre: Float[Tensor, "S 3"],
        size: tuple[int, int],
    ) -> MultiViewPrediction:
        """The answer with the poses of the S served samples."""
        cameras = CropCameras(cameras.projections[served])
        poses = pictorial_poses(heat, cameras, centre, self.lengths, self.skeleton, self.config, weights)
        peaks, height = peaks_near(heat, cameras.project(poses.points)[0])
        pixels = maps.resized_points(peaks, (heat.shape[-1], heat.shape[-2]), size)
        certain = height.clamp(0.0, 1.0) * weights[..., None]

        def put(old: Tensor, new: Tensor) -> Tensor:
            changed = old.clone()
            changed[served] = new.to(old)
            return changed

        return replace(
            answer,
            joints=put(answer.joints, poses.points),
            valid=put(answer.valid, torch.ones_like(poses.confidence)),
            confidence=put(answer.confidence, poses.confidence.clamp(0.0, 1.0)),
            joints_2d=put(answer.joints_2d, pixels),
            confidence_2d=put(answer.confidence_2d, certain),
            views_used=put(answer.views_used, (weights > 0)[..., None].expand(certain.shape)),
        )


def evidence(heatmaps: Float[Tensor, "B V J h w"], decoding: Decoding) -> Float[Tensor, "B V J h w"]:
    """Maps as likelihoods of a position, 0 or above.

    Maps whose mean is the joint become probabilities, the highest over all views 1. Maps whose peak is the joint were
    trained on Gaussians of height 1, and only lose what is negative.
    """
    match decoding.kind:
        case "argmax" | "peak":
            return heatmaps.clamp_min(0.0)
        case "centre_of_mass":
            probability = maps.masses(heatmaps)
        case "soft_argmax":
            probability = maps.probabilities(heatmaps, decoding.sharpness)
    return probability / probability.amax(dim=(1, 3, 4), keepdim=True)


def solved_by(network: nn.Module, method: Method, lengths: Mapping[str, float], solver: Solver) -> nn.Module:
    """A network of `method` with another 3D step. `lengths` are metres by bone (`bone_name`).

    ConfigError if the method has no heatmaps, its skeleton is not a tree, or a length is missing.
    """
    if solver == "dlt":
        return network
    decoding, config = _map_settings(method, solver)
    skeleton = SKELETONS[method.skeleton]
    require_tree(skeleton)
    unknown = [name for name in map(bone_name, skeleton.bones) if name not in lengths]
    if unknown:
        raise ConfigError(
            f"{solver} needs the mean limb lengths of the training samples; not known: {', '.join(unknown)}. "
            "Train with this version of mvpose, on samples that show these limbs."
        )
    found = torch.tensor([lengths[bone_name(bone)] for bone in skeleton.bones])
    return PictorialStep(network, decoding, skeleton, found, replace(config, rounds=0) if solver == "psm" else config)


def _map_settings(method: Method, solver: Solver) -> tuple[Decoding, PictorialConfig]:
    match method:
        case CrossViewMethod():
            return method.cross_view.decoding, method.cross_view.pictorial
        case FusionMethod():
            return method.fusion.decoding, PictorialConfig()
        case RansacMethod():
            return replace(method.fusion.decoding, kind="argmax"), PictorialConfig()
        case AlgebraicMethod():
            return method.algebraic.decoding, PictorialConfig()
        case _:
            raise ConfigError(f"{solver} searches heatmaps, but the method {method.method} does not triangulate any.")


def bone_name(bone: tuple[str, str]) -> str:
    """Name of a bone in a model's lineage."""
    return "-".join(bone)
