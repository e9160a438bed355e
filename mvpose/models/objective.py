"""Training objective of a method: its prediction against the truth, as named loss terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mvpose import losses
from mvpose.heatmaps import gaussian_targets, resized_points
from mvpose.models.backbones.simcc_head import BINS_PER_PIXEL
from mvpose.models.multiview import MultiViewPrediction
from mvpose.models.objective_settings import ObjectiveConfig
from mvpose.models.single_view.epipolar_pose import from_volume, magnification, to_volume, volume_loss

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

    Heatmap, volume and monocular terms need a prediction made with `keep_maps`; ValueError otherwise.
    """
    inside = truth.inside.to(truth.joints)
    share = config.warm_up.share(progress)
    terms: dict[str, Tensor] = {}
    if config.heatmaps:
        maps = _kept(prediction.heatmaps, "heatmaps")
        grid = maps.shape[-1], maps.shape[-2]
        targets = gaussian_targets(resized_points(truth.joints_2d, size, grid), grid, config.sigma)
        terms["heatmaps"] = config.heatmaps * losses.heatmap_mse(maps, targets, inside)
        if prediction.unfused is not None:
            terms["heatmaps_unfused"] = config.heatmaps * losses.heatmap_mse(prediction.unfused, targets, inside)
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
    if config.volume_points:
        terms["volume_points"] = config.volume_points * volume_term(prediction, truth, size, config.root)
    if config.span:
        terms["span"] = config.span * span_term(prediction, truth, size, config.root)
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
    expected, counts = comparable(prediction, truth, config.root)
    counted = counts.to(prediction.joints)
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


def comparable(
    prediction: MultiViewPrediction, truth: MultiViewTruth, root: Sequence[int]
) -> tuple[Float[Tensor, "B J 3"], Bool[Tensor, "B J"]]:
    """True joints to compare a prediction with, and the mask of those that count: known and valid.

    With fewer than two views, depth is undetermined: the truth is moved to the root of the prediction, and a sample
    without a root does not count.
    """
    counted = truth.known & prediction.valid
    joints = list(root)
    single = prediction.views_used.any(dim=2).sum(dim=1) < 2
    rooted = single & counted[:, joints].all(dim=1)
    expected = _filled(truth.joints, truth.known)
    offset = prediction.joints[:, joints].mean(dim=1) - expected[:, joints].mean(dim=1)
    expected = expected + torch.where(rooted[:, None], offset, torch.zeros_like(offset))[:, None]
    return expected, counted & (~single | rooted)[:, None]


def volume_term(
    prediction: MultiViewPrediction, truth: MultiViewTruth, size: tuple[int, int], root: Sequence[int]
) -> Float[Tensor, ""]:
    """EpipolarPose's loss over the joints that are known and in front of the camera, if the root is."""
    kept = _kept(prediction.camera_pose, "pose in the camera's axes")
    joints = kept.camera_from_world.apply(_filled(truth.joints, truth.known))
    valid = truth.known & prediction.valid & (joints[..., 2] > 0)
    valid = valid & valid[:, list(root)].all(dim=1, keepdim=True)
    somewhere = joints.new_tensor([0.0, 0.0, 1.0])
    target = to_volume(torch.where(valid[..., None], joints, somewhere), kept.intrinsics, size, root)
    return volume_loss(kept.volume_points, target, valid)


def span_term(
    prediction: MultiViewPrediction, truth: MultiViewTruth, size: tuple[int, int], root: Sequence[int]
) -> Float[Tensor, ""]:
    """Mean |log| of the ratio of the estimated to the true span of the crop at the root, over the samples with one."""
    kept = _kept(prediction.camera_pose, "pose in the camera's axes")
    joints = kept.camera_from_world.apply(_filled(truth.joints, truth.known))
    depth = joints[:, list(root), 2].mean(dim=1)
    rooted = (truth.known & prediction.valid)[:, list(root)].all(dim=1) & (depth > 0)
    true = torch.where(rooted, depth, torch.ones_like(depth)) / magnification(kept.intrinsics, size)
    return losses.weighted_mean((kept.span_m / true).log().abs(), rooted.to(depth))


def consistency_term(
    prediction: MultiViewPrediction,
    truth: MultiViewTruth,
    views: int,
    size: tuple[int, int],
    limbs: Sequence[tuple[int, int]],
    root: int,
) -> Float[Tensor, ""]:
    """Multi-view consistency of answers whose every `views` consecutive ones are of one moment, each from its view.

    The mean of `losses.consistency_loss` over ordered pairs of views, against the true 2D joints of the second, as a
    share of the crop's longer side, squared. It reads no 3D truth.

    It trains depths alone. Joints that are labelled in their own view are placed at their label there, the others where
    they were found, without a gradient: the term `points` trains these, and what it has not learnt yet must not be
    explained by depth. The estimated span has no part in it either: the loss is the same at any size, and of a gradient
    that is all rounding error Adam makes full steps (poses of 2 m grew to 74 m within 200).
    """
    kept = _kept(prediction.camera_pose, "pose in the camera's axes")
    labels = (truth.joints_2d[:, 0] + 0.5) / kept.volume_points.new_tensor(size) - 0.5
    plane = torch.where(truth.inside[:, 0, :, None], labels, kept.volume_points[..., :2].detach())
    placed = torch.cat([plane, kept.volume_points[..., 2:]], dim=-1)
    camera_pose = from_volume(placed, kept.intrinsics, size, magnification(kept.intrinsics, size))
    pose, intrinsics, rotation, points, inside, seen = (
        values.unflatten(0, (-1, views))
        for values in (
            camera_pose, kept.intrinsics, kept.camera_from_world.rotation, truth.joints_2d[:, 0], truth.inside[:, 0],
            prediction.valid,
        )
    )  # fmt: skip
    terms = []
    for shift in range(1, views):
        other_pose, k, other_rotation, pixels, weights, others = (
            values.roll(-shift, dims=1).flatten(0, 1) for values in (pose, intrinsics, rotation, points, inside, seen)
        )
        turn = other_rotation @ rotation.flatten(0, 1).transpose(-1, -2)
        counted = (weights & others & seen.flatten(0, 1)).to(pose)
        terms.append(losses.consistency_loss(pose.flatten(0, 1), other_pose, turn, k, pixels, counted, limbs, root))
    return torch.stack(terms).mean() / max(size) ** 2


def flatness_term(prediction: MultiViewPrediction) -> Float[Tensor, ""]:
    """Mean squared depth behind the root, as a share of the crop's span there: what consistency starts from.

    Consistency finds the depths of a flat pose, but not those of a pose of random depth: free depths of rendered people
    whose pixels are right go from 110 to 0.05 mm aligned in 400 steps from 0, and from 340 to 231 mm from random ones
    (sigma 0.3). Terms in 2D alone leave depth to chance.
    """
    kept = _kept(prediction.camera_pose, "pose in the camera's axes")
    seen = prediction.valid.to(kept.volume_points)
    return losses.weighted_mean(kept.volume_points[..., 2].square(), seen)


def _kept(part: T | None, name: str) -> T:
    if part is None:
        raise ValueError(f"this objective needs the prediction's {name}: call the method with keep_maps=True")
    return part


def _filled(joints: Float[Tensor, "B J 3"], known: Bool[Tensor, "B J"]) -> Float[Tensor, "B J 3"]:
    return torch.where(known[..., None], joints, torch.zeros_like(joints))
