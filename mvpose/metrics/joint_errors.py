"""Errors of 3D and 2D poses, batched in torch.

Every metric gives one number per pose (or frame), NaN if there is nothing to evaluate, so the caller chooses the mean:
over frames, over actions, over a filtered set. Positions are in metres, or in pixels where a name says so; fractions
are 0..1. `mask` selects the joints that count; a masked joint may be NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mvpose.geometry.alignment import align

PCK_THRESHOLD_M = 0.15
AUC_THRESHOLDS_M = tuple(0.005 * i for i in range(31))
"""0 to 150 mm in steps of 5 mm."""


def joint_errors(
    predicted: Float[Tensor, "*batch J d"], truth: Float[Tensor, "*batch J d"]
) -> Float[Tensor, "*batch J"]:
    """Euclidean distance of each joint."""
    return (predicted - truth).norm(dim=-1)


def mpjpe(
    predicted: Float[Tensor, "*batch J d"],
    truth: Float[Tensor, "*batch J d"],
    mask: Bool[Tensor, "*batch J"] | None = None,
) -> Float[Tensor, "*batch"]:
    """Mean per-joint position error, absolute: metres (or pixels, of 2D poses)."""
    return _joint_mean(joint_errors(predicted, truth), mask)


def root_relative(poses: Float[Tensor, "*batch J d"], root: Sequence[int]) -> Float[Tensor, "*batch J d"]:
    """Poses relative to the mean of their own root joints (one pelvis, or two hips)."""
    return poses - poses[..., list(root), :].mean(dim=-2, keepdim=True)


def mpjpe_relative(
    predicted: Float[Tensor, "*batch J 3"],
    truth: Float[Tensor, "*batch J 3"],
    root: Sequence[int],
    mask: Bool[Tensor, "*batch J"] | None = None,
) -> Float[Tensor, "*batch"]:
    """MPJPE after subtracting each pose's own root, in metres; the root itself is included in the mean."""
    return mpjpe(root_relative(predicted, root), root_relative(truth, root), mask)


def pa_mpjpe(
    predicted: Float[Tensor, "*batch J 3"],
    truth: Float[Tensor, "*batch J 3"],
    mask: Bool[Tensor, "*batch J"] | None = None,
) -> Float[Tensor, "*batch"]:
    """MPJPE after the best similarity (Procrustes, proper rotations only), in metres."""
    mask = torch.ones_like(truth[..., 0], dtype=torch.bool) if mask is None else mask
    seen = torch.where(mask[..., None], predicted, torch.zeros_like(predicted))
    fitted = align(seen, truth, mask.to(truth)).apply(seen)
    return mpjpe(fitted, truth, mask)


def fitted_scale(
    predicted: Float[Tensor, "*batch J 3"],
    truth: Float[Tensor, "*batch J 3"],
    root: Sequence[int],
    mask: Bool[Tensor, "*batch J"] | None = None,
) -> tuple[Float[Tensor, "*batch J 3"], Float[Tensor, "*batch J 3"]]:
    """Root-relative poses, the prediction scaled by least squares, sum<p, g> / sum<p, p> (Rhodin et al. 2018).

    This is not the scale of a full Procrustes fit, which other code reports under the same name.
    """
    p, g = root_relative(predicted, root), root_relative(truth, root)
    used = torch.ones_like(p) if mask is None else mask[..., None].to(p)
    p_used, g_used = (torch.where(used > 0, x, torch.zeros_like(x)) for x in (p, g))
    power = p_used.square().sum(dim=(-1, -2))
    scale = (p_used * g_used).sum(dim=(-1, -2)) / torch.where(power > 0, power, torch.ones_like(power))
    return p * scale[..., None, None], g


def n_mpjpe(
    predicted: Float[Tensor, "*batch J 3"],
    truth: Float[Tensor, "*batch J 3"],
    root: Sequence[int],
    mask: Bool[Tensor, "*batch J"] | None = None,
) -> Float[Tensor, "*batch"]:
    """Root-relative MPJPE after the best scaling, in metres."""
    return mpjpe(*fitted_scale(predicted, truth, root, mask), mask)


def mpjve(
    predicted: Float[Tensor, "*batch T J 3"],
    truth: Float[Tensor, "*batch T J 3"],
    mask: Bool[Tensor, "*batch T J"] | None = None,
) -> Float[Tensor, "*batch T-1"]:
    """Mean per-joint velocity error: MPJPE of first differences in time, metres per frame."""
    both = None if mask is None else mask[..., 1:, :] & mask[..., :-1, :]
    return mpjpe(predicted.diff(dim=-3), truth.diff(dim=-3), both)


def pck(
    predicted: Float[Tensor, "*batch J 3"],
    truth: Float[Tensor, "*batch J 3"],
    root: Sequence[int],
    mask: Bool[Tensor, "*batch J"] | None = None,
    threshold: float = PCK_THRESHOLD_M,
) -> Float[Tensor, "*batch"]:
    """Fraction of joints with an error below `threshold` metres, root-relative."""
    return _share_within(root_relative(predicted, root), root_relative(truth, root), mask, (threshold,))


def npck(
    predicted: Float[Tensor, "*batch J 3"],
    truth: Float[Tensor, "*batch J 3"],
    root: Sequence[int],
    mask: Bool[Tensor, "*batch J"] | None = None,
    threshold: float = PCK_THRESHOLD_M,
) -> Float[Tensor, "*batch"]:
    """`pck` after the best scaling."""
    return _share_within(*fitted_scale(predicted, truth, root, mask), mask, (threshold,))


def auc(
    predicted: Float[Tensor, "*batch J 3"],
    truth: Float[Tensor, "*batch J 3"],
    root: Sequence[int],
    mask: Bool[Tensor, "*batch J"] | None = None,
    thresholds: Sequence[float] = AUC_THRESHOLDS_M,
) -> Float[Tensor, "*batch"]:
    """Mean of `pck` over thresholds of 0 to 150 mm: the area under its curve."""
    return _share_within(root_relative(predicted, root), root_relative(truth, root), mask, thresholds)


def joint_detection_rate(
    predicted_px: Float[Tensor, "*batch J 2"],
    truth_px: Float[Tensor, "*batch J 2"],
    head_size_px: Float[Tensor, "*batch"],
    mask: Bool[Tensor, "*batch J"] | None = None,
) -> Float[Tensor, "*batch"]:
    """JDR: fraction of 2D joints with an error below half the head size (Qiu et al. 2019)."""
    return _joint_mean((joint_errors(predicted_px, truth_px) <= head_size_px[..., None] / 2).to(truth_px), mask)


def pose_structure_score(
    predicted: Float[Tensor, "*batch J 3"],
    truth: Float[Tensor, "*batch J 3"],
    centroids: Float[Tensor, "k J 3"],
    root: Sequence[int],
) -> Float[Tensor, "*batch"]:
    """PSS: 1 if prediction and truth are in the same cluster of poses, else 0 (Kocabas et al. 2019).

    Poses are root-relative and divided by their norm, so scale is ignored but rotation is not. `centroids` are the
    clusters' centres in that form (see `structure`); their number is part of the metric's name (PSS@50).
    """
    nearest = [
        (structure(poses, root).unsqueeze(-3) - centroids).square().sum(dim=(-1, -2)).argmin(dim=-1)
        for poses in (predicted, truth)
    ]
    return (nearest[0] == nearest[1]).to(truth)


def structure(poses: Float[Tensor, "*batch J 3"], root: Sequence[int]) -> Float[Tensor, "*batch J 3"]:
    """Poses normalised for position and size: root-relative, of norm 1."""
    relative = root_relative(poses, root)
    return relative / relative.square().sum(dim=(-1, -2), keepdim=True).sqrt().clamp_min(1e-9)


@dataclass(frozen=True, eq=False)
class MultiPersonScore:
    """Average precision and recall of complete poses over a set of frames."""

    thresholds_m: tuple[float, ...]
    average_precision: Float[Tensor, "t"]
    """Per threshold, 0..1."""
    recall: Float[Tensor, "t"]
    """Per threshold, over the people in the ground truth."""
    matched_mpjpe_m: Float[Tensor, ""]
    """MPJPE of the poses matched at the last threshold; NaN if there are none."""


def multi_person_score(
    predicted: Float[Tensor, "T P J 3"],
    score: Float[Tensor, "T P"],
    found: Bool[Tensor, "T P"],
    truth: Float[Tensor, "T Q J 3"],
    present: Bool[Tensor, "T Q"],
    mask: Bool[Tensor, "T Q J"] | None = None,
    thresholds_m: Sequence[float] = (0.025, 0.05, 0.075, 0.1, 0.125, 0.15, 0.5),
) -> MultiPersonScore:
    """AP of poses by MPJPE, following VoxelPose (Tu et al. 2020) on Panoptic; recall@500 mm is the last value.

    Each predicted pose is assigned to the true person of its frame that is nearest by MPJPE. In descending order of
    score, it is a hit if that error is below the threshold and the person has not been hit before. AP is the area under
    the precision-recall curve, with precision made non-increasing. A predicted joint may be NaN: the error is over the
    others, and a pose with fewer than half of the person's joints is no hit.
    """
    distances = (predicted[:, :, None] - truth[:, None]).norm(dim=-1)
    known = torch.ones_like(truth[..., 0], dtype=torch.bool) if mask is None else mask
    both = known[:, None] & predicted.isfinite().all(dim=-1)[:, :, None]
    errors = _joint_mean(distances, both)
    enough = 2 * both.sum(dim=-1) >= known.sum(dim=-1)[:, None]
    errors = torch.where(present[:, None] & enough & errors.isfinite(), errors, torch.inf)
    frames = torch.arange(len(truth), device=truth.device)[:, None]
    nearest = errors.min(dim=-1)
    person = frames * truth.shape[1] + nearest.indices
    order = score[found].argsort(descending=True, stable=True)
    error, person = nearest.values[found][order], person[found][order]
    people = present.sum()
    parts = [precision_and_recall(error, person, t, present.numel(), people) for t in thresholds_m]
    hit = _first_hits(error, person, thresholds_m[-1], present.numel())
    return MultiPersonScore(
        tuple(thresholds_m), torch.stack([p for p, _ in parts]), torch.stack([r for _, r in parts]), error[hit].mean()
    )


def _joint_mean(values: Float[Tensor, "*batch J"], mask: Bool[Tensor, "*#batch J"] | None) -> Float[Tensor, "*batch"]:
    if mask is None:
        return values.mean(dim=-1)
    mask = mask.expand(values.shape)
    total = torch.where(mask, values, torch.zeros_like(values)).sum(dim=-1)
    return total / mask.sum(dim=-1)  # 0 / 0 is the NaN of a pose without joints


def _share_within(
    predicted: Float[Tensor, "*batch J 3"],
    truth: Float[Tensor, "*batch J 3"],
    mask: Bool[Tensor, "*batch J"] | None,
    thresholds: Sequence[float],
) -> Float[Tensor, "*batch"]:
    errors = joint_errors(predicted, truth)
    limits = errors.new_tensor(thresholds)
    return _joint_mean((errors[..., None] <= limits).to(errors).mean(dim=-1), mask)


def _first_hits(error: Tensor, person: Tensor, threshold: float, people: int) -> Bool[Tensor, "n"]:
    """Predictions, in descending order of score, that are near enough to a person not yet hit by an earlier one."""
    near = error < threshold
    rank = torch.arange(len(error), device=error.device)
    late = torch.full((people,), len(error), device=error.device)
    first = late.scatter_reduce(0, person[near], rank[near], "amin")
    return near & (first[person] == rank)


def precision_and_recall(
    error: Tensor, person: Tensor, threshold: float, places: int, people: Tensor
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Average precision and recall of predictions in descending order of score.

    `error` of each to the `person` nearest to it, who is one of `places`; `people` are those to be found.
    """
    hits = _first_hits(error, person, threshold, places).double().cumsum(0)
    precision = hits / torch.arange(1, len(hits) + 1, device=hits.device)
    envelope = precision.flip(0).cummax(0).values.flip(0)
    recall = hits / people
    steps = recall.diff(prepend=recall.new_zeros(1))
    return (envelope * steps).sum(), recall[-1] if len(recall) else recall.new_zeros(())
