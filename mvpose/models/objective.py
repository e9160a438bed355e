"""Training objective of a multi-view method: its prediction against the truth, as named loss terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mvpose import losses
from mvpose.heatmaps import gaussian_targets, resized_points
from mvpose.models.backbones.simcc_head import BINS_PER_PIXEL
from mvpose.models.multiview import MultiViewPrediction
from mvpose.models.network_settings import ObjectiveConfig

T = TypeVar("T")
SIMCC_SIGMAS = (4.9, 5.66)
"""Of columns and rows, in bins: RTMPose's for crops of 192 x 256."""


@dataclass(frozen=True, eq=False)
class MultiViewTruth:
    """True joints. Those that are not `known` may be NaN."""

    joints: Float[Tensor, "B J 3"]
    """World, metres."""
    known: Bool[Tensor, "B J"]
    joints_2d: Float[Tensor, "B V J 2"]
    """Pixels of the crops, and beyond them."""
    inside: Bool[Tensor, "B V J"]
    before: Bool[Tensor, "B V J"]
    """Known joints that are in front of a present camera: inside the crop or not."""


def objective(
    prediction: MultiViewPrediction,
    truth: MultiViewTruth,
    size: tuple[int, int],
    config: ObjectiveConfig,
    progress: float = 1.0,
) -> dict[str, Float[Tensor, ""]]:
    """Weighted terms by name; their sum is the loss. `size` is (width, height) of the crops, `progress` is 0..1.

    Heatmap and volume terms need a prediction made with `keep_maps`; ValueError otherwise.
    """
    inside = truth.inside.to(truth.joints)
    share = config.warm_up.share(progress)
    terms: dict[str, Tensor] = {}
    if config.heatmaps:
        maps = _kept(prediction.heatmaps, "heatmaps")
        grid = maps.shape[-1], maps.shape[-2]
        targets = gaussian_targets(resized_points(truth.joints_2d, size, grid), grid, config.sigma)
        terms["heatmaps"] = config.heatmaps * losses.heatmap_mse(maps, targets, inside)
    if config.points:
        pixels = losses.point_distance(prediction.joints_2d, truth.joints_2d, inside)
        terms["points"] = config.points / max(size) * pixels
    if config.simcc:
        bins = BINS_PER_PIXEL * truth.joints_2d
        scores = zip(_kept(prediction.scores, "scores"), SIMCC_SIGMAS, bins.unbind(dim=-1), strict=True)
        parts = [losses.simcc_divergence(s, at, inside, sigma) for s, sigma, at in scores]
        terms["simcc"] = config.simcc * torch.stack(parts).sum()
    if config.likelihood:
        scale, counted = _kept(prediction.scale_2d, "scale"), truth.before.to(truth.joints)
        density = losses.likelihood(prediction.joints_2d, truth.joints_2d, scale, counted)
        terms["likelihood"] = config.likelihood * density
    if config.joints and share:
        terms["joints"] = config.joints * share * joint_loss(prediction, truth, config)
    if config.volume and share:
        joints = _filled(truth.joints, truth.known)
        value, in_cube = _kept(prediction.volume, "volume").at(joints, trilinear=config.volume_at == "trilinear")
        counted = (in_cube & truth.known & prediction.valid).to(value)
        terms["volume"] = config.volume * share * losses.cross_entropy_at(value, counted)
    if config.coarse and share:
        stage = _kept(prediction.coarse, "coarse")
        terms["coarse"] = config.coarse * share * joint_loss(stage, truth, config)
    return terms


def joint_loss(prediction: MultiViewPrediction, truth: MultiViewTruth, config: ObjectiveConfig) -> Float[Tensor, ""]:
    """The 3D term over joints that are both known and valid."""
    counted = (truth.known & prediction.valid).to(prediction.joints)
    root = list(config.root)
    single = prediction.views_used.any(dim=2).sum(dim=1) < 2
    rooted = single & (counted[:, root] > 0).all(dim=1)
    expected = _filled(truth.joints, truth.known)
    offset = prediction.joints[:, root].mean(dim=1) - expected[:, root].mean(dim=1)
    expected = expected + torch.where(rooted[:, None], offset, torch.zeros_like(offset))[:, None]
    counted = counted * (~single | rooted)[:, None]
    return _joint_distance(prediction.joints, expected, counted, config)


def lifting_objective(
    poses: Float[Tensor, "B T J 3"],
    truth: Float[Tensor, "B T J 3"],
    known: Bool[Tensor, "B T J"],
    config: ObjectiveConfig,
    progress: float = 1.0,
) -> dict[str, Float[Tensor, ""]]:
    """The weighted term of a lifter's poses, metres from the root in the axes of the camera: `joints` alone applies."""
    share = config.warm_up.share(progress)
    return {"joints": config.joints * share * _joint_distance(poses, truth, known.to(poses), config)}


def _joint_distance(predicted: Tensor, truth: Tensor, counted: Tensor, config: ObjectiveConfig) -> Float[Tensor, ""]:
    match config.joints_as:
        case "distance":
            return losses.point_distance(predicted, truth, counted)
        case "log_distance":
            return losses.log_distance(predicted, truth, counted)
        case "soft_mse":
            return losses.soft_mse(predicted, truth, counted)
        case "absolute":
            return losses.mean_absolute_error(predicted, truth, counted)


def _kept(part: T | None, name: str) -> T:
    if part is None:
        raise ValueError(f"this objective needs the prediction's {name}: call the method with keep_maps=True")
    return part


def _filled(joints: Float[Tensor, "B J 3"], known: Bool[Tensor, "B J"]) -> Float[Tensor, "B J 3"]:
    return torch.where(known[..., None], joints, torch.zeros_like(joints))
